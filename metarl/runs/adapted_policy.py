"""A run's policy on one task, before and after it adapted to it: to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.envs import PointNavigation, TaskFamily
from metarl.errors import UserError
from metarl.methods import policy_experiment
from metarl.params import take
from metarl.runs.plots import step_name
from metarl.randomness import stream
from metarl.runs.results import fitting_state, measured, steps_to_show
from metarl.rl.evaluation import fine_tune
from metarl.rl.experiment import PolicyExperiment
from metarl.rl.maml import Rollouts
from metarl.rl.policies import Policy
from metarl.runs.run import Run
from metarl.runs.video import Episode, record


@dataclass(frozen=True)
class Adapted:
    """How a policy adapted to a task.

    Attributes:
        family: what the task is of.
        policy: what adapted.
        task: (T,).
        steps: numbers of gradient steps to look at.
        rollouts: of this one task, after 0, 1, ... steps.
        seed: of videos.
    """

    family: TaskFamily
    policy: Policy
    task: NDArray[np.float64]
    steps: Sequence[int]
    rollouts: Rollouts
    seed: int

    @property
    def description(self) -> str:
        """The task in words."""
        return self.family.describe(self.task)

    def episodes(self) -> dict[str, Episode]:
        """An episode after each number of steps; all with the same start and the same noise."""
        return {
            step_name(step): record(
                self.policy,
                take(self.rollouts.params[step], 0),
                self.family,
                self.task,
                self.seed,
            )
            for step in self.steps
        }

    @property
    def shows_paths(self) -> bool:
        """Whether observations are positions in the plane, so that paths can be drawn."""
        return isinstance(self.family, PointNavigation)

    def paths(self, most: int = 3) -> dict[int, NDArray[Any]]:
        """Positions (B, H, 2) after each number of steps, NaN after an episode's end."""
        paths = {}
        for step in self.steps:
            gathered = self.rollouts.trajectories[step]
            positions = torch.where(gathered.mask[..., None], gathered.observations, torch.nan)
            paths[step] = positions[0, :most, :, :2].numpy()
        return paths


def adapt_to_task(
    run: Run, task: Sequence[float] | None = None, steps: Sequence[int] | None = None
) -> Adapted:
    """Adapt a run's policy to one task, with the step sizes of its evaluation.

    Args:
        run: with a checkpoint.
        task: (T,); the first of the evaluation's unseen tasks where None.
        steps: numbers of gradient steps to look at; 0, 1 and 3, as far as the run goes, where None.

    Raises:
        UserError: if the task or the steps make no sense for the run.
    """
    policy_experiment(run)
    curve, experiment = measured(run)
    assert isinstance(experiment, PolicyExperiment)
    state, family, settings = fitting_state(run, experiment), experiment.family, experiment.config.evaluation
    most = len(curve.step_sizes)
    steps = steps_to_show(run, most, steps, (0, 1, 3), "evaluation.step_sizes=[…]")
    chosen = curve.tasks[0] if task is None else np.array(task, dtype=np.float64)
    if chosen.shape != (family.task_size,) or not np.isfinite(chosen).all():
        example = " ".join(f"{number:.2f}" for number in curve.tasks[0])
        raise UserError(
            f"a task of {experiment.title} has {family.task_size} numbers, such as --task {example}"
        )
    inner = experiment.inner
    seed = int(stream(settings.seed, "rendering").integers(2**31))
    step_sizes = curve.step_sizes[: max(steps)]
    rollouts = fine_tune(
        inner, state.theta, family, chosen[None], settings.trajectories, step_sizes, seed
    )
    return Adapted(family, inner.policy, chosen, steps, rollouts, seed)
