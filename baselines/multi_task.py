"""Multi-task pretraining by the outer step of meta-training, then fine-tuning.

What meta-learning adds is the difference from this baseline: the network, the outer step, its
schedule, and the numbers of tasks, updates and environment steps are those of MAML, and only
the inner steps are missing. Finn et al. (2017), section 5.3, pretrain in this way, by TRPO.
"""

from dataclasses import replace
from typing import ClassVar

from metarl.baselines.pretrained_policy import Pretrained
from metarl.method import Metrics, TrainingState
from metarl.rl.config import PPO_SETTINGS, Config
from metarl.rl.maml import MAML
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.problem import PolicyProblem


class MultiTask(Pretrained):
    """The outer step on all tasks jointly, fine-tuned to a new task by policy gradients."""

    label: ClassVar[str] = "multi-task"
    supports_distributed: ClassVar[bool] = True
    uses_lr_schedule = PolicyLearner.uses_lr_schedule
    num_iterations = PolicyLearner.num_iterations

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem)
        inner, outer = problem.config.inner, problem.config.outer
        # MAML without inner steps: an iteration has K + 1 times as many tasks, with one batch of
        # episodes each, in place of K + 1 batches of each task
        joint = problem.config.model_copy(
            update={
                "inner": inner.model_copy(update={"steps": 0}),
                "outer": outer.model_copy(
                    update={"meta_batch": self.num_stages * outer.meta_batch}
                ),
            }
        )
        self._training = MAML(replace(problem, config=joint))

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        return {
            name: reason
            for name, reason in super().unused_settings(config).items()
            if name not in ("stages", "policy.min_std") and not name.startswith("outer.")
        } | dict.fromkeys(PPO_SETTINGS, "which is not trained by PPO")

    @property
    def num_stages(self) -> int:
        """The number of batches that MAML samples from every environment in an iteration."""
        return self.problem.config.inner.steps + 1

    def initial_state(self) -> TrainingState:
        return self._training.initial_state()

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One outer step for the mean return of all tasks, without adaptation."""
        return self._training.step(state)

    def close(self) -> None:
        self._training.close()
        super().close()
