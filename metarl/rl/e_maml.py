"""E-MAML: MAML that explores (Stadie et al. 2018), whose objective knows who gathered the data.

What a task's policy becomes depends on θ in two ways: by the gradient steps from θ, and by the
trajectories that θ sampled for them. MAML follows the first alone. Here the actions before
adaptation are credited with the return after it as well, by their log-probabilities (section 3).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.config.sections import MethodSection, PositiveFloat
from metarl.distributed import mean_over_tasks
from metarl.optim import Objective
from metarl.params import Params
from metarl.rl.losses import surrogate
from metarl.rl.maml import MAML
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import ActionDistribution
from metarl.rl.trajectories import Rollouts, Samples


class EMAMLSettings(MethodSection):
    """`credit` is the weight of the credit that actions before adaptation get.

    A weight of 1 takes the mean over time steps, as every surrogate here does. The paper's
    derivation sums over the K episodes of a task, which is K times as much of a noisy signal.
    """

    name: Literal["e_maml"] = "e_maml"
    credit: PositiveFloat = 1.0


@dataclass(frozen=True)
class ExploringObjective(MetaObjective):
    """The surrogate after adaptation, and one before it whose advantage is what came of it.

    Attributes:
        outcome: how well each task's adapted policy did, (N,), where 0 is as well as expected.
        credit: what the second surrogate counts.
    """

    outcome: Tensor
    credit: float

    @property
    def penalty_samples(self) -> list[Samples]:
        """The samples of the inner steps, all actions of a task with its outcome as advantage."""
        outcome = self.outcome[:, None]
        return [
            step._replace(advantages=outcome.expand_as(step.advantages))
            for step in self.rollouts.pre
        ]

    def pre_penalty(self, policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
        """The negative credit: the objective subtracts penalties, and credit is to grow."""
        return -self.credit * surrogate(policy, params, samples)


class EMAML(MAML):
    """MAML whose outer objective credits the actions that adaptation learned from."""

    label: ClassVar[str] = "E-MAML"
    Settings: ClassVar[type[MethodSection]] = EMAMLSettings

    def objective(self, rollouts: Rollouts) -> Objective:
        """What the outer step improves."""
        settings = self.problem.config.method
        assert isinstance(settings, EMAMLSettings)
        outcome = standardised(rollouts.trajectories[-1].mean_returns).to(rollouts.post.advantages)
        return ExploringObjective(self.problem.inner, rollouts, outcome, settings.credit)


def standardised(returns: Tensor) -> Tensor:
    """Returns (N,) of this process's tasks, less the mean over all tasks, in standard deviations.

    As advantages are: so that neither the scale of rewards nor that of a task's chances counts.
    """
    each = returns.double()
    means = mean_over_tasks(torch.stack([each.sum(), each.square().sum()]), len(each))
    variance = (means[1] - means[0].square()).clamp(min=0.0)
    return (each - means[0]) / (variance.sqrt() + 1e-8)
