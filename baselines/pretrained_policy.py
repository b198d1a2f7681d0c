"""One policy for all tasks mixed, by PPO, then fine-tuned; and an oracle, which is told the task.

What meta-training is measured against in Finn et al. (2017), section 5.3. The network, the tasks
and the budget of environment steps are those of meta-training.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation import AdaptationCurve, best_schedule
from metarl.method import GRADIENT_STEPS, AdaptationUnit, Metrics, Role, TrainingState
from metarl.parallel import one_thread
from metarl.params import Params
from metarl.rl.maml import fine_tune, fine_tuned
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.problem import PolicyProblem
from metarl.rl.trajectories import Rollouts
from metarl.rng import RngKey

if TYPE_CHECKING:
    from metarl.baselines.ppo import MultiTaskPPO


class Pretrained(PolicyLearner):
    """PPO on all tasks mixed, fine-tuned on a new one by plain policy gradients."""

    role: ClassVar[Role] = "baseline"
    label: ClassVar[str] = "pretrained"
    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS
    supports_distributed: ClassVar[bool] = False
    uses_lr_schedule: ClassVar[bool] = False
    stages: ClassVar[int] = 1

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem)
        self._ppo: MultiTaskPPO | None = None

    @property
    def num_iterations(self) -> int:
        """One for every time that meta-training would have sampled: the same environment steps."""
        config = self.problem.config
        return config.outer.iterations * (config.inner.steps + 1)

    def initial_state(self) -> TrainingState:
        """The very policy that meta-training begins with."""
        if self.num_iterations:
            # imported here: stable-baselines3 takes a second, which nobody else should wait for
            from metarl.baselines.stable_baselines import check_perceptron

            check_perceptron(self.problem.policy)
        return TrainingState(0, self.problem.policy.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One rollout of all environments, and one update of PPO."""
        if self._ppo is None:
            # imported here: stable-baselines3 takes a second, which nobody else should wait for
            from metarl.baselines.ppo import MultiTaskPPO

            self._ppo = MultiTaskPPO(self.problem)
        return self._ppo.step(state)

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Fine-tune on unseen tasks, with the step sizes that served best on validation tasks."""
        sizes = chosen_step_sizes(self.problem, params) if step_sizes is None else step_sizes
        tasks, key = self.problem.test_tasks()
        return fine_tuned(self.problem, params, tasks, key, sizes)

    def rollouts(
        self, params: Params, tasks: NDArray[np.float64], key: RngKey, curve: AdaptationCurve
    ) -> Rollouts:
        """Fine-tune on these tasks (N, T) with the step sizes of an evaluation."""
        return fine_tune(self.problem, params, tasks, key, curve.step_sizes)

    def close(self) -> None:
        """Close the environments."""
        if self._ppo is not None:
            self._ppo.close()
            self._ppo = None


def chosen_step_sizes(problem: PolicyProblem, params: Params) -> tuple[float, ...]:
    """The schedule of fine-tuning: in proportion to the evaluation's, the best on validation tasks.

    Raises:
        FloatingPointError: if every step size of the config's grid breaks the policy down.
    """
    usual, baseline = problem.config.evaluation_step_sizes, problem.config.baseline
    tasks, key = problem.validation_tasks()
    return best_schedule(
        [tuple(first * size / usual[0] for size in usual) for first in baseline.step_sizes],
        lambda schedule: fine_tuned(problem, params, tasks, key, schedule),
        problem.metric,
        baseline.selection_step,
    )


class Oracle(Pretrained):
    """The same PPO with the task among the observations. It has nothing to adapt to."""

    label: ClassVar[str] = "oracle"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(replace(problem, task_conditioned=True))

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """The return without any adaptation, unless step sizes are given."""
        return super().evaluate(params, () if step_sizes is None else step_sizes)
