"""MAML for reinforcement learning: Algorithm 3 of Finn et al. (2017).

1   initialise θ                                            MAML.init
2   while not done do                                       metarl.method.train
3       sample a batch of tasks                             MAML.step
4       for all tasks do                                    collect, for all of them at once
5           sample K trajectories with θ
6           evaluate ∇_θ of the task's loss                 metarl.rl.losses.reinforce
7           θ'_i = θ − α ∇_θ loss                           metarl.inner_loop.adapt
8           sample trajectories with θ'_i
9       end for
10      update θ by the gradient of the adapted losses      MetaObjective, and the outer step
11  end while
"""

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import BatchUnit
from metarl.evaluation import AdaptationCurve
from metarl.method import GRADIENT_STEPS, AdaptationUnit, Metrics, TrainingState
from metarl.optim import Objective
from metarl.parallel import CPU, move, one_thread
from metarl.params import Params, concatenate, repeat
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.meta_gradient import meta_gradient_for
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.outer_loop import PolicyLearner, outer_step, to_adaptation_curve
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import VectorEnv, sample
from metarl.rl.trajectories import Rollouts, Samples, Trajectories, index_tasks
from metarl.rng import RngKey
from metarl.step_sizes import StepSizes, initial_params, mean_step_sizes


class MAML(PolicyLearner):
    """Learns parameters from which a gradient step on a few trajectories adapts a policy."""

    adaptation_unit: ClassVar[AdaptationUnit | None] = GRADIENT_STEPS

    @property
    def label(self) -> str:
        """The literature's name for the settings of the inner loop: ANIL, Meta-SGD and so on."""
        return self.problem.config.inner.maml

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

    @one_thread()
    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to held-out tasks by policy gradients, with the config's step sizes by default."""
        sizes = self.fine_tuning_step_sizes(params) if step_sizes is None else step_sizes
        tasks, key = self.problem.test_tasks()
        return evaluate_adaptation(self.problem, params, tasks, key, sizes)


def collect(
    inner: InnerLoop,
    meta: Params,
    envs: VectorEnv | Sequence[VectorEnv],
    tasks: NDArray[np.float64],
    horizon: int,
    key: RngKey,
    step_sizes: Sequence[float] | None = None,
    first_task: int = 0,
    count: BatchUnit = "episodes",
) -> Rollouts:
    """Lines 4 to 9: sample, take an inner step, sample again; once for each step size.

    Args:
        inner: the policy and its inner loop.
        meta: θ, where every task starts, and the step sizes if they are learned.
        envs: N·B environments in one or several vector environments; see `sample`.
        tasks: (N, T).
        horizon: H.
        key: random key of this call.
        step_sizes: in place of the config's.
        first_task: position of the first task in the meta-batch, if other processes have the rest.
        count: whether a batch is a number of episodes or of time steps; see `sample`.
    """
    started = time.perf_counter()
    trajectories: list[Trajectories] = []
    samples: list[Samples] = []
    sampled_with: list[Params] = []

    def sample_stage(params: Params) -> Samples:
        params = move(params, CPU)
        stage_key = key.fold_in(len(samples))
        trajectories.append(
            sample(inner.policy, params, envs, tasks, horizon, stage_key, first_task, count)
        )
        sampled_with.append(params)
        samples.append(inner.with_advantages(trajectories[-1]))
        return samples[-1]

    meta = move(meta, inner.device)
    params, state = repeat(initial_params(meta), len(tasks)), dict[str, Tensor]()
    for step, alpha in enumerate(inner.step_sizes(meta, step_sizes)):
        pre = sample_stage(params)  # line 5
        params, state = adapt_all(inner, params, pre, alpha, state, step)  # lines 6 and 7
    sample_stage(params)  # line 8
    seconds = time.perf_counter() - started
    return Rollouts(trajectories, samples, sampled_with, seconds=seconds)


def adapt_all(
    inner: InnerLoop, params: Params, samples: Samples, alpha: StepSizes, state: Params, step: int
) -> tuple[Params, Params]:
    """Line 7: parameters stacked over tasks after an inner step, in chunks of tasks.

    Also the state of the inner optimiser, stacked too; `step` is the number of previous steps.
    """
    meta_gradient = meta_gradient_for(inner)

    def adapt_chunk(chunk: slice) -> tuple[Params, Params]:
        theta, chunk_state = (
            {name: leaf[chunk] for name, leaf in stacked.items()} for stacked in (params, state)
        )
        return meta_gradient.adapt_chunk(
            theta, index_tasks(samples, chunk), alpha, chunk_state, step
        )

    adapted, states = zip(*inner.over_tasks(adapt_chunk, samples), strict=True)
    return concatenate(adapted), concatenate(states)


def collect_adaptation(
    problem: PolicyProblem,
    params: Params,
    tasks: NDArray[np.float64],
    key: RngKey,
    step_sizes: Sequence[float],
) -> Rollouts:
    """Adapt to tasks (N, T) by policy gradients, one step for each step size."""
    horizon, settings = problem.family.horizon, problem.config.evaluation
    envs = problem.make_envs(len(tasks), settings.episodes_per_task)
    try:
        return collect(
            problem.inner, params, envs, tasks, horizon, key, step_sizes, count=settings.batch_unit
        )
    finally:
        for part in envs:
            part.close()


def evaluate_adaptation(
    problem: PolicyProblem,
    params: Params,
    tasks: NDArray[np.float64],
    key: RngKey,
    step_sizes: Sequence[float],
) -> AdaptationCurve:
    """The adaptation curve of `collect_adaptation`; of learned step sizes it holds the means."""
    rollouts = collect_adaptation(problem, params, tasks, key, step_sizes)
    sizes = mean_step_sizes(problem.inner.step_sizes(params, step_sizes))
    return to_adaptation_curve(problem, tasks, rollouts, sizes)
