"""Adaptation of a policy to unseen tasks, by plain policy gradients."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metarl.envs import TaskFamily
from metarl.evaluation import AdaptationCurve
from metarl.params import Params
from metarl.randomness import stream
from metarl.rl.maml import InnerLoop, Rollouts, adapt_by_sampling


def adaptation_curve(
    inner: InnerLoop,
    params: Params,
    family: TaskFamily,
    num_tasks: int,
    trajectories: int,
    step_sizes: Sequence[float],
    seed: int,
) -> AdaptationCurve:
    """Fine-tune a policy on unseen tasks by plain policy gradients, and say how well it does.

    Args:
        inner: policy, discount and advantages; its step sizes are not used.
        params: the parameters to start from.
        family: tasks and environments.
        num_tasks: how many tasks, N.
        trajectories: of each task, gathered anew after every update.
        step_sizes: of the K updates.
        seed: fixes tasks, environments and action noise.
    """
    tasks = family.sample_tasks(stream(seed, "evaluation tasks"), num_tasks)
    rollouts = fine_tune(inner, params, family, tasks, trajectories, step_sizes, seed)
    returns = [gathered.returns.double().mean(dim=1).numpy() for gathered in rollouts.trajectories]
    return AdaptationCurve(tasks, np.stack(returns, axis=1), tuple(step_sizes))


def fine_tune(
    inner: InnerLoop,
    params: Params,
    family: TaskFamily,
    tasks: NDArray[np.float64],
    trajectories: int,
    step_sizes: Sequence[float],
    seed: int,
) -> Rollouts:
    """Adapt to these tasks (N, T) by plain policy gradients; see `adaptation_curve`."""
    tuning = replace(inner, step_sizes=tuple(step_sizes), first_order=True)
    envs = family.make_vec(len(tasks) * trajectories)
    try:
        return adapt_by_sampling(tuning, params, envs, tasks, family.horizon, seed)
    finally:
        envs.close()
