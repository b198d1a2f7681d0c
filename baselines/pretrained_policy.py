"""Multi-task pretraining by PPO with fine-tuning, and an oracle that observes the task.

These are the baselines of Finn et al. (2017), section 5.3. The network and the tasks are those of
meta-training, and so is the number of environment steps, unless episodes end early: then there are
more.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from metarl.baselines.ppo import MultiTaskPPO
from metarl.baselines.stable_baselines import check_perceptron
from metarl.config.sections import INNER_STEP, NO_STEPS
from metarl.evaluation import best_schedule
from metarl.method import GRADIENT_STEPS, AdaptationUnit, Metrics, Role, TrainingState
from metarl.parallel import one_thread
from metarl.params import Params
from metarl.rl.adaptation import evaluate_adaptation
from metarl.rl.config import Config
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.problem import PolicyProblem


class Pretrained(PolicyLearner):
    """PPO on all tasks jointly, fine-tuned to a new task by policy gradients."""

    role: ClassVar[Role] = "baseline"
    label: ClassVar[str] = "pretrained"
    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS
    supports_distributed: ClassVar[bool] = False
    uses_lr_schedule: ClassVar[bool] = False
    selects_step_sizes: ClassVar[bool] = True

    def __init__(self, problem: PolicyProblem) -> None:
        super().__init__(problem)
        self._ppo: MultiTaskPPO | None = None

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        outer = type(config.outer).model_fields.keys() - {"iterations", "meta_batch"}
        return {
            **{f"outer.{name}": "which is trained by PPO; see baseline" for name in outer},
            "inner.step_size": "whose step size is the best of baseline.step_sizes",
            "early_stopping": "which uses the whole budget",
            "stages": "which trains with one batch size",
            "inner.first_order": "whose fine-tuning is not differentiated",
            # at the policy that sampled, the ratio is 1 and its gradient that of log π
            "inner.estimator": "whose fine-tuning is not differentiated",
            "inner.learned_step_sizes": "whose fine-tuning is not differentiated",
            "policy.min_std": "since the standard deviation of PPO has no lower bound",
        }

    @property
    def num_stages(self) -> int:
        """One batch of trajectories before each update."""
        return 1

    @property
    def num_iterations(self) -> int:
        """One for each batch of episodes that meta-training samples."""
        config = self.problem.config
        # a meta-iteration samples once before each inner step, and once after the last
        return config.outer.iterations * (config.inner.steps + 1)

    def initial_state(self) -> TrainingState:
        """The initial policy of meta-training."""
        if self.num_iterations:
            check_perceptron(self.problem.policy)
        return TrainingState(0, self.problem.policy.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One rollout of all environments, and one update of PPO."""
        if self._ppo is None:
            self._ppo = MultiTaskPPO(self.problem)
        return self._ppo.step(state)

    @one_thread()
    def fine_tuning_step_sizes(self, params: Params) -> Sequence[float]:
        """A schedule in proportion to the evaluation's, the best one on validation tasks.

        Raises:
            FloatingPointError: if every step size of the config's grid makes the policy diverge.
        """
        problem = self.problem
        schedule, baseline = problem.config.evaluation_step_sizes, problem.config.baseline
        tasks, key = problem.validation_tasks(baseline.validation_tasks)
        return best_schedule(
            [
                # the grid scales the whole schedule: α, α/2, ... keeps its form
                tuple(first * size / schedule[0] for size in schedule)
                for first in baseline.step_sizes
            ],
            lambda sizes: evaluate_adaptation(problem, params, tasks, key, sizes),
            problem.metric,
            baseline.selection_step,
        )

    def close(self) -> None:
        if self._ppo is not None:
            self._ppo.close()
            self._ppo = None


class Oracle(Pretrained):
    """The same PPO with the task appended to the observation. It does not adapt."""

    label: ClassVar[str] = "oracle"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None
    selects_step_sizes: ClassVar[bool] = False

    def __init__(self, problem: PolicyProblem) -> None:
        # the task is part of the observation; methods that adapt must find it out
        super().__init__(replace(problem, task_conditioned=True))

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        names = {*INNER_STEP, "inner.estimator", "inner.bootstrap", "inner.gae_lambda"}
        names |= {"inner.baseline"}
        names |= {"evaluation.step_sizes", "evaluation.steps", "baseline.step_sizes"}
        names |= {"baseline.validation_tasks", "baseline.selection_step"}
        # inner.steps is a part of the budget
        unused = dict.fromkeys(names - {"inner.steps"}, NO_STEPS)
        cuda = {"device": "which computes on the CPU"} if config.device == "cuda" else {}
        return super().unused_settings(config) | unused | cuda

    def fine_tuning_step_sizes(self, params: Params) -> Sequence[float]:
        """None: the return is measured without adaptation."""
        return ()
