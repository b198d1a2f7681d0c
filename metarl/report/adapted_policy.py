"""A run's policy on one task, before and after it adapted to it: to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.envs import PointNavigation, TaskFamily
from metarl.errors import UserError
from metarl.method import AdaptationUnit, load_method
from metarl.params import take
from metarl.report.evaluations import fitting_state, measured, steps_to_show
from metarl.report.plots import stage_name
from metarl.report.video import Episode, record
from metarl.rl.policies import Memory, Policy
from metarl.rl.problem import PolicyMethod, PolicyProblem
from metarl.rl.trajectories import Rollouts
from metarl.rng import RngKey, make_rng
from metarl.runs.run import Run


@dataclass(frozen=True)
class Adapted:
    """How a policy adapted to a task.

    Attributes:
        family: what the task is of.
        policy: what adapted.
        task: (T,).
        steps: numbers of gradient steps to look at.
        unit: what the stages count.
        rollouts: of this one task, stage after stage.
        seed: of videos.
    """

    family: TaskFamily
    policy: Policy
    task: NDArray[np.float64]
    steps: Sequence[int]
    unit: AdaptationUnit | None
    rollouts: Rollouts
    seed: int

    @property
    def description(self) -> str:
        """The task in words."""
        return self.family.describe(self.task)

    def episodes(self) -> dict[str, Episode]:
        """An episode of each stage; all with the same start and the same noise."""
        return {
            stage_name(step, self.unit): record(
                self.policy,
                take(self.rollouts.params[step], 0),
                self.family,
                self.task,
                self.seed,
                self._memory(step),
            )
            for step in self.steps
        }

    def _memory(self, step: int) -> Memory:
        """What the policy remembered before a stage, of the first trajectory."""
        memories = self.rollouts.memories
        return tuple(leaf[0, :1] for leaf in memories[step]) if memories else ()

    @property
    def shows_paths(self) -> bool:
        """Whether observations are positions in the plane, so that paths can be drawn."""
        return isinstance(self.family, PointNavigation)

    def paths(self, most: int = 3) -> dict[str, NDArray[Any]]:
        """Positions (B, H, 2) of each stage, by its name; NaN after an episode's end."""
        paths = {}
        for step in self.steps:
            gathered = self.rollouts.trajectories[step]
            positions = torch.where(gathered.mask[..., None], gathered.observations, torch.nan)
            paths[stage_name(step, self.unit)] = positions[0, :most, :, :2].numpy()
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
    policy_method(run)  # what is about something else is found before any work
    evaluated = measured(run)
    curve, method = evaluated.curve, cast(PolicyMethod, evaluated.method)
    problem: PolicyProblem = method.problem
    state, family, settings = fitting_state(run, method), problem.family, problem.config.evaluation
    most = curve.scores.shape[1] - 1
    steps = steps_to_show(run, most, steps, (0, 1, 3), "evaluation.step_sizes=[…]")
    chosen = curve.tasks[0] if task is None else np.array(task, dtype=np.float64)
    if chosen.shape != (family.task_size,) or not np.isfinite(chosen).all():
        example = " ".join(f"{number:.2f}" for number in curve.tasks[0])
        raise UserError(
            f"a task of {problem.title} has {family.task_size} numbers, such as --task {example}"
        )
    seed = int(make_rng(settings.seed, "rendering").integers(2**31))
    rollouts = method.rollouts(state.params, chosen[None], RngKey(seed), curve.first(max(steps)))
    return Adapted(family, method.policy, chosen, steps, method.adaptation_unit, rollouts, seed)


def policy_method(run: Run) -> PolicyMethod:
    """The method of a run that is about policies.

    Raises:
        UserError: if it is about something else.
    """
    method = load_method(run.config)
    if not isinstance(method.problem, PolicyProblem):
        raise UserError(
            f"{run.path} is about {method.problem.title}: there is no policy to film or to export"
        )
    return cast(PolicyMethod, method)
