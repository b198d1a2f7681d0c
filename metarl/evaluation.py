"""The adaptation curve: how good a policy is after 0, 1, 2, ... gradient steps on a new task.

This is the only evaluator. Meta-policies, pretrained and random ones are all measured by it, on the
same tasks and with the same environments' randomness where the seed is the same.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.config import Config
from metarl.envs import TaskFamily
from metarl.params import Params
from metarl.randomness import stream
from metarl.rl.maml import InnerLoop, Rollouts, adapt_by_sampling
from metarl.statistics import Summary, mean_over_tasks


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
    def summary(self) -> Summary:
        """Mean over tasks, with its interval."""
        return mean_over_tasks(self.returns)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        summary = self.summary
        return {
            "mean": summary.centre.tolist(),
            "interval_95": (summary.high - summary.centre).tolist(),
            "step_sizes": list(self.step_sizes),
            "tasks": self.tasks.tolist(),
            "returns": self.returns.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AdaptationCurve":
        """The inverse of `to_json`."""
        return cls(np.array(value["tasks"]), np.array(value["returns"]), tuple(value["step_sizes"]))


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


def evaluate(
    config: Config, inner: InnerLoop, params: Params, family: TaskFamily
) -> AdaptationCurve:
    """The adaptation curve that a config asks for, by the rules of its method.

    A meta-policy takes the config's step sizes. A pretrained or random policy takes those that
    served it best on validation tasks. An oracle does not adapt.
    """
    settings = config.evaluation
    schedule = config.evaluation_step_sizes
    if config.method == "oracle":
        schedule = ()
    elif config.method != "maml":
        schedule = choose_step_sizes(config, inner, params, family)
    return adaptation_curve(
        inner, params, family, settings.tasks, settings.trajectories, schedule, settings.seed
    )


def choose_step_sizes(
    config: Config, inner: InnerLoop, params: Params, family: TaskFamily
) -> tuple[float, ...]:
    """The step sizes of fine-tuning: the best of the config's grid on validation tasks.

    The best has the highest return over all steps of the curve. A step size that breaks the policy
    down is out of the race.

    Raises:
        FloatingPointError: if every step size does.
    """
    settings, grid = config.evaluation, config.baseline
    # tasks, starts and noise of validation have nothing in common with those of the evaluation
    seed = int(stream(settings.seed, "validation").integers(2**31))
    first = config.evaluation_step_sizes[0]
    scores: dict[tuple[float, ...], float] = {}
    for step_size in grid.step_sizes:
        schedule = tuple(step_size * size / first for size in config.evaluation_step_sizes)
        with suppress(FloatingPointError):
            curve = adaptation_curve(
                inner,
                params,
                family,
                grid.validation_tasks,
                settings.trajectories,
                schedule,
                seed,
            )
            scores[schedule] = float(curve.returns[:, 1:].mean())
    if not scores:
        raise FloatingPointError(
            f"every step size of baseline.step_sizes {list(grid.step_sizes)} breaks the policy "
            "down; add smaller ones"
        )
    return max(scores, key=lambda schedule: scores[schedule])
