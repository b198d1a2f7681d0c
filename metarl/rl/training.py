"""Meta-training: Algorithm 3 of Finn et al. (2017), one iteration after the other."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from metarl.compute import CPU, device_for, move
from metarl.distributed import mean_over_tasks, seconds_waited, shard
from metarl.envs import TaskFamily
from metarl.params import Params, flatten
from metarl.randomness import stream, torch_stream
from metarl.rl.config import AdamConfig, Config
from metarl.rl.maml import (
    InnerLoop,
    Rollouts,
    adam_outer_step,
    adapt_by_sampling,
    trpo_outer_step,
)
from metarl.rl.policies import policy_for
from metarl.training import Metrics, TrainingState
from metarl.trust_region import TrustRegion


def inner_loop(config: Config, family: TaskFamily) -> InnerLoop:
    """The policy that fits the family's environments, and how it adapts."""
    env = family.make()
    try:
        policy = policy_for(
            env.observation_space,
            env.action_space,
            config.policy.hidden_sizes,
            config.policy.activation,
            config.policy.init_std,
            config.policy.min_std,
        )
    finally:
        env.close()
    settings = config.inner
    return InnerLoop(
        policy,
        (settings.step_size,) * settings.steps,
        settings.gamma,
        settings.lam,
        settings.estimator,
        settings.first_order,
    )


def initial_state(config: Config, inner: InnerLoop) -> TrainingState:
    """Before the first iteration."""
    return TrainingState(0, inner.policy.init(torch_stream(config.seed, "initialisation")))


def meta_train(
    config: Config, family: TaskFamily | None = None, state: TrainingState | None = None
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Yield the state and the metrics after every meta-iteration.

    Args:
        config: the experiment.
        family: the tasks; what the config names where None.
        state: where to continue; at the beginning where None. What follows is then the same, bit
            for bit, as in a run that was never interrupted.

    Raises:
        UserError: if the config asks for a GPU and there is none.
        FloatingPointError: if observations, rewards or the meta-gradient are not finite. The last
            state that was yielded is sound.
    """
    family = family or config.load_family()
    inner = replace(inner_loop(config, family), device=device_for(config.device))
    state = state or initial_state(config, inner)
    mine = shard(config.outer.meta_batch)
    envs = family.make_vec((mine.stop - mine.start) * config.inner.trajectories)
    try:
        for iteration in range(state.iteration, config.outer.iterations):
            started = time.perf_counter()
            generator = stream(config.seed, "tasks", iteration)
            tasks = family.sample_tasks(generator, config.outer.meta_batch)[mine]
            rollouts = adapt_by_sampling(
                inner,
                state.theta,
                envs,
                tasks,
                family.horizon,
                config.seed,
                iteration,
                first_task=mine.start,
            )
            sampled = time.perf_counter()
            theta, optimizer, metrics = _outer_step(config, inner, state, rollouts)
            finished = time.perf_counter()
            if not torch.isfinite(flatten(theta)).all():
                raise FloatingPointError(
                    "the meta-parameters are not finite any more; lower the outer step "
                    "(outer.learning_rate) or the inner one (inner.step_size)"
                )
            seen = _sampling_metrics(inner, rollouts, config.outer.meta_batch)
            steps = round(seen["environment_steps"])
            state = TrainingState(iteration + 1, theta, optimizer, state.samples + steps)
            yield (
                state,
                {
                    **seen,
                    **metrics,
                    "time/sampling": sampled - started,
                    "time/learning": finished - sampled,
                    "time/communication": seconds_waited(),
                    "time/steps_per_second": steps / (sampled - started),
                },
            )
    finally:
        envs.close()


def _outer_step(
    config: Config, inner: InnerLoop, state: TrainingState, rollouts: Rollouts
) -> tuple[Params, Params, Metrics]:
    outer = config.outer
    if isinstance(outer, AdamConfig):
        theta, optimizer, objective = adam_outer_step(
            inner,
            state.theta,
            rollouts,
            state.optimizer,
            outer.annealed(outer.learning_rate, state.iteration),
        )
        return theta, optimizer, {"outer/objective": objective}
    settings = TrustRegion(
        outer.annealed(outer.max_kl, state.iteration),
        outer.cg_iterations,
        outer.damping,
        outer.backtrack_ratio,
        outer.max_backtracks,
    )
    theta, step = trpo_outer_step(inner, state.theta, rollouts, settings, outer.curvature_stride)
    return (
        theta,
        {},
        {
            "outer/objective": step.objective,
            "outer/improvement": step.improvement,
            "outer/kl": step.kl,
            "outer/line_search_steps": step.candidates,
            "outer/accepted": float(step.accepted),
        },
    )


def _sampling_metrics(inner: InnerLoop, rollouts: Rollouts, meta_batch: int) -> Metrics:
    """Means over the tasks of all processes, and how many steps were taken for them."""
    post = move(rollouts.post, CPU)
    entropy = inner.policy.entropy(post.distribution).expand_as(post.weights)
    sums = {"policy/entropy": (post.weights * entropy).sum()}
    for step, gathered in enumerate(rollouts.trajectories):
        sums[f"return/after_{step}_steps"] = gathered.returns.mean(dim=1).sum()
        sums[f"episode_length/after_{step}_steps"] = gathered.lengths.double().mean(dim=1).sum()
    sums["environment_steps"] = torch.stack([t.mask.sum() for t in rollouts.trajectories]).sum()
    totals = torch.stack([value.double() for value in sums.values()])
    means = mean_over_tasks(totals, len(post.weights))
    metrics = dict(zip(sums, means.tolist(), strict=True))
    metrics["environment_steps"] *= meta_batch
    return metrics
