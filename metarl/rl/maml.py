"""MAML for reinforcement learning: Algorithm 3 of Finn et al. (2017).

1   initialise θ                                            MAML.initial_state
2   while not done do                                       metarl.method.train
3       sample a batch of tasks                             MAML.step
4       for all tasks do                                    metarl.rl.adaptation.collect, at once
5           sample K trajectories with θ
6           evaluate ∇_θ of the task's loss                 metarl.rl.losses.inner_loss
7           θ'_i = θ − α ∇_θ loss                           metarl.rl.adaptation.adapt_all
8           sample trajectories with θ'_i
9       end for
10      update θ by the gradient of the adapted losses      MetaObjective, and the outer step
11  end while

Lines 6 and 7 are `metarl.inner_loop.adapt_step`, which autograd differentiates for line 10. For
perceptrons, `metarl.rl.analytic_mlp` has the same step and its derivatives in closed form, which
are faster; `metarl.rl.meta_gradient.meta_gradient_for` chooses.
"""

from typing import ClassVar

from metarl.method import GRADIENT_STEPS, AdaptationUnit, Metrics, TrainingState
from metarl.optim import Objective
from metarl.rl.adaptation import collect
from metarl.rl.config import Config
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.outer_loop import PolicyLearner, outer_step
from metarl.rl.trajectories import Rollouts


class MAML(PolicyLearner):
    """Learns parameters from which a gradient step on a few trajectories adapts a policy."""

    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS

    @property
    def label(self) -> str:
        """The literature's name for the settings of the inner loop: ANIL, Meta-SGD and so on."""
        return self.problem.config.inner.maml

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        unused = {"baseline.": "which is not a baseline"}
        if config.inner.learned_step_sizes != "none":
            sizes = config.evaluation_step_sizes
            unused["evaluation.step_sizes"] = (
                f"which learned its step sizes: {', '.join(map(str, sizes))} have no effect; give "
                f"the number of steps instead, evaluation.steps={len(sizes)}"
            )
        return unused

    @property
    def num_stages(self) -> int:
        """One batch of trajectories before each inner step, and one after all of them."""
        return self.problem.config.inner.steps + 1

    def initial_state(self) -> TrainingState:
        """Line 1."""
        return TrainingState(0, self.problem.inner.init(self.problem.generator()))

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """Lines 3 to 10."""
        problem, iteration = self.problem, state.iteration
        episodes = problem.config.inner.episodes_per_task
        problem.inner.warn_if_too_few(episodes * problem.family.horizon)
        tasks = problem.sample_tasks(iteration)  # line 3
        rollouts = collect(  # lines 4 to 9
            problem.inner,
            state.params,
            problem.env_shards,
            tasks,
            problem.family.horizon,
            problem.key(iteration),
            first_task=problem.shard.start,
        )
        objective = self.objective(rollouts)
        return outer_step(problem, state, rollouts, objective, GRADIENT_STEPS)  # line 10

    def objective(self, rollouts: Rollouts) -> Objective:
        """The objective that line 10 maximises."""
        return MetaObjective(self.problem.inner, rollouts)
