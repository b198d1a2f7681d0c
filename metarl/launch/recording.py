"""Videos of the policy during training, by `record_every` in a config."""

import warnings
from pathlib import Path

from metarl.errors import UserError
from metarl.io import translate_os_errors
from metarl.method import TrainingState
from metarl.report.adapted_policy import adapt_agent, policy_method, rendering_seed
from metarl.report.video import compose_frames, write_gif
from metarl.runs.run import Run

VIDEOS = "videos"  # in a run directory


class VideoRecorder:
    """Records the policy on the first held-out task, before and after one stage of adaptation.

    It plays in its own environments with its own random streams: the training is the same, bit for
    bit, with and without videos. Where nothing can be rendered, it warns once and does nothing.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._method = policy_method(run)
        self._is_possible = True

    def record(self, state: TrainingState) -> Path | None:
        """Write a GIF into the run directory, and return its path; None if that is impossible."""
        if not self._is_possible:
            return None
        method, problem = self._method, self._method.problem
        seed, task = rendering_seed(problem), problem.test_tasks()[0][0]
        # selecting a step size on validation tasks would take minutes: such methods don't adapt
        selects = getattr(method, "selects_step_sizes", False)
        steps = (0, 1) if method.adaptation_unit and not selects else (0,)
        try:
            agent = method.agent(state.params, seed, *[()] * selects)
            adapted = adapt_agent(method, agent, task, steps, seed)
            title = f"iteration {state.iteration}: {adapted.description}"
            frames, fps = compose_frames(adapted.episodes(), title)
        # mujoco raises RuntimeError or AttributeError where there is no OpenGL; a training must not
        # end for want of a video
        except (RuntimeError, UserError, AttributeError, FloatingPointError) as error:
            self._is_possible = False
            warnings.warn(f"record_every: no video is recorded: {error}", stacklevel=2)
            return None
        path = self._run.path / VIDEOS / f"{state.iteration:06d}.gif"
        with translate_os_errors(self._run.path):
            path.parent.mkdir(exist_ok=True)
            write_gif(path, frames, fps)
        return path
