"""A network on one task before and after adaptation, to be looked at."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.report.evaluations import fitting_state, measured, steps_to_show
from metarl.report.plots import Classification, Fit
from metarl.rng import make_rng
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import CLASSIFICATION
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.sinusoid import INPUTS, Sinusoid, points

GRID = 200  # points that a curve is drawn through
LARGE = 1e3


def fit(run: Run, task: Sequence[float] | None = None, steps: Sequence[int] | None = None) -> Fit:
    """Adapt a run's network to one wave, with the step sizes of its evaluation.

    Args:
        run: about waves, with a checkpoint.
        task: amplitude and phase; the first of the evaluation's waves where None.
        steps: after how many gradient steps to look; 0, 1 and 10, as far as the run goes, where
            None.

    Raises:
        UserError: if the task or the steps make no sense for the run.
    """
    curve, method = _evaluated(run)
    problem = method.problem
    most = len(curve.step_sizes)
    steps = steps_to_show(run, most, steps, (0, 1, 10), "evaluation.steps=…")
    wave = curve.tasks[:1] if task is None else np.array([task], dtype=np.float64)
    if wave.shape != (1, 2) or not (np.abs(wave) < LARGE).all():
        raise UserError("a wave has an amplitude and a phase, such as --task 3.0 1.5")
    shots = problem.evaluation_shots
    shown = make_rng(problem.config.evaluation.seed, "points").uniform(*INPUTS, (shots, 1))
    x = np.concatenate([shown, np.linspace(*INPUTS, GRID)[:, None]])
    episodes = points(wave, x[None], shots, problem.task_conditioned)
    theta = fitting_state(run, method).params
    outputs = method.predictions(theta, episodes, curve.step_sizes)[0].numpy()
    grid = x[shots:]
    return Fit(
        problem.describe(wave[0]),
        np.concatenate([shown, episodes.support[1][0].numpy()], axis=1),
        np.concatenate([grid, episodes.query[1][0].numpy()], axis=1),
        {step: np.concatenate([grid, outputs[step]], axis=1) for step in steps},
    )


def classify(run: Run) -> Classification:
    """Adapt a run's network to the first episode of its evaluation."""
    curve, method = _evaluated(run)
    if not shows_pictures(method.problem):
        raise UserError(
            f"{run.path} is about {method.problem.title}, which no picture is drawn of; "
            "metarl.load_network predicts in Python"
        )
    episodes = next(method.problem.unseen("test", len(curve.tasks)))
    outputs = method.predictions(fitting_state(run, method).params, episodes, curve.step_sizes)
    (images, shown), (queries, labels) = episodes.support, episodes.query
    first = [int((shown[0] == label).nonzero()[0]) for label in range(int(shown.max()) + 1)]
    return Classification(
        method.problem.describe(episodes.tasks[0]),
        _pictures(images[0, first]),
        _pictures(queries[0]),
        labels[0].numpy(),
        outputs[0, -1].argmax(-1).numpy(),
        len(curve.step_sizes),
    )


def shows_pictures(problem: SupervisedProblem) -> bool:
    """Whether a problem is about telling apart images that can be drawn."""
    shape = problem.tasks("test").shape
    return problem.kind is CLASSIFICATION and len(shape) == 3 and shape[0] in (1, 3)


def shows_sinusoids(run: Run) -> bool:
    """Whether a run is about waves: others are about images, or about policies."""
    config = run.config
    return isinstance(config, SupervisedConfig) and isinstance(config.data, Sinusoid)


def _evaluated(run: Run) -> tuple[AdaptationCurve, SupervisedMethod]:
    """A run's evaluation, and its method with the settings of that."""
    evaluated = measured(run)
    method = evaluated.method
    assert isinstance(method, SupervisedMethod)
    run.check_data_hashes(method.problem.data_hashes)
    return evaluated.curve, method


def _pictures(images: torch.Tensor) -> NDArray[np.float64]:
    """(M, C, H, W) to (M, H, W, C)."""
    return images.movedim(1, -1).double().numpy()
