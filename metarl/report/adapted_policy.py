"""A run's policy on one task before and after adaptation, for videos and plots of paths."""

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
from metarl.report.evaluations import load_checked_state, load_or_evaluate, steps_to_show
from metarl.report.plots import stage_name
from metarl.report.video import Episode, record
from metarl.rl.policies import Memory, Policy
from metarl.rl.problem import PolicyMethod, PolicyProblem
from metarl.rl.trajectories import Rollouts
from metarl.rng import RngKey, make_rng
from metarl.runs.run import Run


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy at several stages of its adaptation to a task.

    Attributes:
        family: the family of the task.
        policy: the policy.
        task: (T,).
        steps: the stages to show.
        unit: of the stages.
        rollouts: of this task, at every stage.
        seed: of the recorded episodes.
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
        """One recorded episode per stage, all with the same initial state and action noise."""
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
        """The state of a recurrent policy before a stage, for the first trajectory."""
        memories = self.rollouts.memories
        return tuple(leaf[0, :1] for leaf in memories[step]) if memories else ()

    @property
    def has_paths(self) -> bool:
        """Whether observations are positions in the plane."""
        return isinstance(self.family, PointNavigation)

    def paths(self, max_paths: int = 3) -> dict[str, NDArray[Any]]:
        """Positions (B, H, 2) by name of the stage; NaN after the end of an episode."""
        paths = {}
        for step in self.steps:
            trajectories = self.rollouts.trajectories[step]
            mask = trajectories.mask[..., None]
            positions = torch.where(mask, trajectories.observations, torch.nan)
            paths[stage_name(step, self.unit)] = positions[0, :max_paths, :, :2].numpy()
        return paths


def adapt_to_task(
    run: Run, task: Sequence[float] | None = None, steps: Sequence[int] | None = None
) -> AdaptedPolicy:
    """Adapt a run's policy to one task, with the step sizes of its evaluation.

    Args:
        run: a run with a checkpoint.
        task: (T,); by default the first test task of the evaluation.
        steps: the stages to show; by default 0, 1 and 3.

    Raises:
        UserError: if the run has no policy, or the task or the steps are invalid.
    """
    policy_method(run)  # raises before the evaluation
    evaluation = load_or_evaluate(run)
    curve, method = evaluation.curve, cast(PolicyMethod, evaluation.method)
    problem: PolicyProblem = method.problem
    state, family, settings = (
        load_checked_state(run, method),
        problem.family,
        problem.config.evaluation,
    )
    last = curve.scores.shape[1] - 1
    steps = steps_to_show(run, last, steps, (0, 1, 3), "evaluation.step_sizes=[…]")
    chosen = curve.tasks[0] if task is None else np.array(task, dtype=np.float64)
    if chosen.shape != (family.task_size,) or not np.isfinite(chosen).all():
        example = " ".join(f"{number:.2f}" for number in curve.tasks[0])
        raise UserError(
            f"a task of {problem.title} has {family.task_size} numbers, such as --task {example}"
        )
    seed = int(make_rng(settings.seed, "rendering").integers(2**31))
    rollouts = method.rollouts(state.params, chosen[None], RngKey(seed), curve.truncate(max(steps)))
    return AdaptedPolicy(
        family, method.policy, chosen, steps, method.adaptation_unit, rollouts, seed
    )


def policy_method(run: Run) -> PolicyMethod:
    """The method of a reinforcement learning run.

    Raises:
        UserError: if it is a run of supervised learning.
    """
    method = load_method(run.config)
    if not isinstance(method.problem, PolicyProblem):
        raise UserError(
            f"{run.path} is a {method.problem.title} run; it has no policy to render or export"
        )
    return cast(PolicyMethod, method)
