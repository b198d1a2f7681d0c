"""Adaptation of a policy to many tasks at once: lines 4 to 9 of Algorithm 3, and evaluations."""

import operator
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.config.sections import BatchUnit
from metarl.envs.family import checked_tasks
from metarl.evaluation import AdaptationCurve
from metarl.parallel import CPU, move
from metarl.params import Params, concatenate, repeat
from metarl.rl.advantages import Prior
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.meta_gradient import meta_gradient_for
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import VectorEnv, sample
from metarl.rl.trajectories import Rollouts, Samples, Trajectories, index_tasks
from metarl.rng import RngKey, make_rng
from metarl.step_sizes import StepSizes, initial_params, mean_step_sizes


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
    priors: Sequence[Prior | None] = (),
    deterministic: bool = False,
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
        priors: of the baseline at each stage, if it has one; these tasks' own by default.
        deterministic: take the mean action, or the most probable one, after the last step (line 8).
    """
    started = time.perf_counter()
    trajectories: list[Trajectories] = []
    samples: list[Samples] = []
    sampled_with: list[Params] = []

    def sample_stage(params: Params, deterministic: bool = False) -> Samples:
        params = move(params, CPU)
        stage_key = key.fold_in(len(samples))
        trajectories.append(
            sample(
                inner.policy,
                params,
                envs,
                tasks,
                horizon,
                stage_key,
                first_task,
                count,
                deterministic,
            )
        )
        sampled_with.append(params)
        prior = priors[len(samples)] if priors else inner.prior(trajectories[-1])
        samples.append(inner.with_advantages(trajectories[-1], prior))
        return samples[-1]

    meta = move(meta, inner.device)
    params, state = repeat(initial_params(meta), len(tasks)), dict[str, Tensor]()
    for step, alpha in enumerate(inner.step_sizes(meta, step_sizes)):
        pre = sample_stage(params)  # line 5
        params, state = adapt_all(inner, params, pre, alpha, state, step)  # lines 6 and 7
    sample_stage(params, deterministic)  # line 8
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
    if len(step_sizes):  # an oracle, for one, does not adapt
        problem.inner.warn_if_too_few(settings.episodes_per_task * horizon)
    priors = baseline_priors(problem, params, step_sizes)
    with problem.temporary_envs(len(tasks), settings.episodes_per_task) as envs:
        return collect(
            problem.inner,
            params,
            envs,
            tasks,
            horizon,
            key,
            step_sizes,
            count=settings.batch_unit,
            priors=priors,
            deterministic=bool(settings.deterministic),
        )


def baseline_priors(
    problem: PolicyProblem, params: Params, step_sizes: Sequence[float]
) -> list[Prior | None]:
    """The prior of the baseline at each stage, from training tasks that are adapted alike.

    They are a meta-batch with a random stream of its own, so that the priors of given parameters
    are always the same. Training needs none: it has the other tasks of its meta-batch.
    """
    config = problem.config
    if config.inner.baseline != "linear_prior":
        return [None] * (len(step_sizes) + 1)
    number, episodes = config.outer.meta_batch, config.inner.episodes_per_task
    tasks = checked_tasks(problem.family, make_rng(config.seed, "prior tasks"), number)
    key = RngKey(config.seed).fold_in("prior")
    # this process has all of them: the processes of a training have other things to do
    inner = replace(problem.inner, all_reduce_mean=operator.truediv)
    with problem.temporary_envs(number, episodes) as envs:
        rollouts = collect(inner, params, envs, tasks, problem.family.horizon, key, step_sizes)
    return [inner.prior(stage) for stage in rollouts.trajectories]


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
    return to_adaptation_curve(tasks, rollouts, sizes)


def to_adaptation_curve(
    tasks: NDArray[np.float64], rollouts: Rollouts, step_sizes: Sequence[float] = ()
) -> AdaptationCurve:
    """The returns of rollouts on tasks (N, T) at each stage, and their success if it is known.

    Args:
        tasks: (N, T).
        rollouts: with the evaluation's number of trajectories.
        step_sizes: of the gradient steps between the stages, if there are any.
    """
    stages = rollouts.trajectories
    returns = np.stack([stage.mean_returns.numpy() for stage in stages], axis=1)
    # a stage of adaptation by memory is one episode of a trial, whatever the number of trials
    episodes_used = [
        stage.num_episodes.double().mean().item() if step_sizes else 1 for stage in stages[:-1]
    ]
    episodes = tuple(round(total) for total in accumulate(episodes_used, initial=0))
    success: NDArray[np.float64] | None = None
    if any(stage.success is not None for stage in stages):
        # environments may report it in the episodes that succeed only
        rates = [stage.success_rates for stage in stages]
        success = np.stack([np.zeros(len(tasks)) if r is None else r.numpy() for r in rates], 1)
    rewards = np.stack([stage.mean_rewards.numpy() for stage in stages])
    return AdaptationCurve(
        tasks, returns, tuple(step_sizes), episodes, success=success, rewards=rewards
    )
