"""ProMP: proximal meta-policy search (Rothfuss et al. 2019), algorithm 1.

MAML whose outer step takes several steps of Adam on the same rollouts. What keeps them honest is in
the objective: the ratio after adaptation is clipped, as PPO clips it, and the divergence of the
policy that the inner steps start from is penalised (equations 12 to 14).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from metarl.config.sections import Fraction, MethodSection, NonNegativeFloat
from metarl.optim import GRADIENT_OPTIMIZERS, Objective
from metarl.params import Params
from metarl.rl.losses import clipped_surrogate, mean_kl
from metarl.rl.maml import MAML
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import ActionDistribution
from metarl.rl.trajectories import Rollouts, Samples


class ProMPSettings(MethodSection):
    """The ratio is clipped to 1 ± `clip`; `kl_penalty` is η, on the mean over inner steps.

    The paper's outer step is `outer: {algorithm: adam, epochs: 5}`. Its inner loss is the
    likelihood ratio, whose meta-gradient has a low variance (section 5.1).
    """

    name: Literal["promp"] = "promp"
    clip: Fraction = 0.3
    kl_penalty: NonNegativeFloat = 5e-4


@dataclass(frozen=True)
class ProximalObjective(MetaObjective):
    """The clipped surrogate after adaptation, less the penalised divergence before it."""

    settings: ProMPSettings

    @property
    def penalty_samples(self) -> list[Samples]:
        """The samples of the inner steps themselves."""
        return self.rollouts.pre

    def post_objective(self, policy: ActionDistribution, params: Params, post: Samples) -> Tensor:
        """The clipped surrogate (equation 14)."""
        return clipped_surrogate(policy, params, post, self.settings.clip)

    def pre_penalty(self, policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
        """The penalised KL divergence, which is averaged over the inner steps."""
        penalty = self.settings.kl_penalty / len(self.rollouts.pre)
        return penalty * mean_kl(policy, params, samples)


class ProMP(MAML):
    """MAML with a proximal outer objective."""

    label: ClassVar[str] = "ProMP"
    Settings: ClassVar[type[MethodSection]] = ProMPSettings
    # no TRPO: its line search cannot compare clipped surrogates
    outer_steps: ClassVar[tuple[str, ...]] = tuple(GRADIENT_OPTIMIZERS)

    def objective(self, rollouts: Rollouts) -> Objective:
        """The objective of the outer step."""
        return ProximalObjective(self.problem.inner, rollouts, self.settings)
