"""E-MAML: MAML that credits exploration (Stadie et al. 2018, section 3).

An adapted policy depends on θ in two ways: through the gradient steps from θ, and through the
trajectories that θ sampled for them. MAML's gradient has only the first term. E-MAML adds the
second: the log-probabilities of the actions before adaptation times the return after it.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from metarl.config.sections import MethodSection, PositiveFloat
from metarl.distributed import moments
from metarl.errors import UserError
from metarl.optim import Objective
from metarl.params import Params
from metarl.rl.losses import surrogate
from metarl.rl.maml import MAML
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import ActionDistribution
from metarl.rl.problem import PolicyProblem
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
    """The surrogate after adaptation, plus one before it whose advantage is the outcome.

    Attributes:
        outcome: the standardised return of each task's adapted policy, (N,).
        credit: the weight of the second surrogate.
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
    """MAML whose outer objective credits the actions of the inner steps' trajectories."""

    label: ClassVar[str] = "E-MAML"
    Settings: ClassVar[type[MethodSection]] = EMAMLSettings

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem)
        if problem.config.outer.meta_batch == 1:
            raise UserError(
                "outer.meta_batch: E-MAML credits actions by a task's return relative to those of "
                "the other tasks in the batch; set at least 2"
            )

    def objective(self, rollouts: Rollouts) -> Objective:
        """The objective of the outer step."""
        # advantages are standardised per task and so have no level: a task's return is the outcome
        outcome = standardised(rollouts.trajectories[-1].mean_returns).to(rollouts.post.advantages)
        return ExploringObjective(self.problem.inner, rollouts, outcome, self.settings.credit)


def standardised(returns: Tensor) -> Tensor:
    """Returns (N,) of this process's tasks, standardised over the tasks of all processes."""
    mean, variance = moments(returns)
    standard: Tensor = (returns.double() - mean) / (variance.sqrt() + 1e-8)
    return standard
