"""The adaptation curve: how good a policy is after 0, 1, 2, ... gradient steps on a new task.

This is the only evaluator. Meta-policies, pretrained and random ones are all measured by it, on the
same tasks and with the same environments' randomness where the seed is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.config import Config
from metarl.envs import TaskFamily
from metarl.params import Params
from metarl.randomness import stream
from metarl.rl.maml import InnerLoop, adapt_by_sampling


@dataclass(frozen=True)
class AdaptationCurve:
    """Returns on unseen tasks against the number of gradient steps.

    Attributes:
        tasks: (N, T).
        returns: (N, K + 1): the mean undiscounted return of the trajectories that were gathered
            after k updates, k = 0...K.
        step_sizes: of the K updates.
    """

    tasks: NDArray[np.float64]
    returns: NDArray[np.float64]
    step_sizes: tuple[float, ...]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over tasks, (K + 1,)."""
        mean: NDArray[np.float64] = self.returns.mean(axis=0)
        return mean

    @property
    def interval(self) -> NDArray[np.float64]:
        """Half-width of the 95% confidence interval over tasks: 1.96 σ/√N, (K + 1,)."""
        width: NDArray[np.float64] = (
            1.96 * self.returns.std(axis=0, ddof=1) / np.sqrt(len(self.returns))
        )
        return width

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "mean": self.mean.tolist(),
            "interval_95": self.interval.tolist(),
            "step_sizes": list(self.step_sizes),
            "tasks": self.tasks.tolist(),
            "returns": self.returns.tolist(),
        }


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
    tuning = InnerLoop(
        inner.policy, tuple(step_sizes), inner.gamma, inner.lam, inner.estimator, first_order=True
    )
    envs = family.make_vec(num_tasks * trajectories)
    try:
        rollouts = adapt_by_sampling(tuning, params, envs, tasks, family.horizon, seed)
    finally:
        envs.close()
    returns = [gathered.returns.double().mean(dim=1).numpy() for gathered in rollouts.trajectories]
    return AdaptationCurve(tasks, np.stack(returns, axis=1), tuple(step_sizes))


def evaluate(
    config: Config, inner: InnerLoop, params: Params, family: TaskFamily
) -> AdaptationCurve:
    """The adaptation curve that a config asks for."""
    settings = config.evaluation
    return adaptation_curve(
        inner,
        params,
        family,
        settings.tasks,
        settings.trajectories,
        config.evaluation_step_sizes,
        settings.seed,
    )
