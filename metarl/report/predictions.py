"""Predictions of a network on one task before and after adaptation, for plots."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.method import Problem
from metarl.params import Params
from metarl.report.evaluations import load_checked_state, load_or_evaluate, steps_to_show
from metarl.report.plots import Classification, Fit
from metarl.rng import make_rng
from metarl.runs.run import Run
from metarl.supervised.custom_tasks import SampledTasks
from metarl.supervised.losses import CLASSIFICATION
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.sinusoid import INPUTS, Sinusoid, Sinusoids, points
from metarl.supervised.tasks import Episodes

GRID_SIZE = 200  # points of a plotted curve
MAX_TASK_PARAM = 1e3


def predict_curve(
    run: Run, task: Sequence[float] | None = None, steps: Sequence[int] | None = None
) -> Fit:
    """Adapt a run's network to one function, with the step sizes of its evaluation.

    By default it is the first test task of the evaluation, before and after the first and the last
    gradient step. Only sine waves have another `task`, an amplitude and a phase.

    Raises:
        UserError: if the task or the steps are invalid.
    """
    curve, method = _load_evaluation(run)
    last = len(curve.step_sizes)
    steps = steps_to_show(run, last, steps, sorted({0, 1, last}), "evaluation.steps=…")
    theta = load_checked_state(run, method).params
    if isinstance(method.problem.config.data, Sinusoid):
        return _predict_wave(method, theta, curve, task, steps)
    if task is not None:
        raise UserError("--task is for policies and sine waves; omit it for the first test task")
    problem, [first, *_] = method.problem, curve.tasks
    episodes = next(problem.evaluation_episodes("test", len(curve.tasks)))
    (x, y), (queries, targets) = episodes.support, episodes.query
    x, y, queries, targets = x[:1], y[:1], queries[:1], targets[:1]
    low, high = torch.aminmax(torch.cat([x, queries], dim=1)[..., 0])
    grid = torch.linspace(float(low), float(high), GRID_SIZE)[None, :, None]
    # inputs of an oracle have the task after the variable
    grid = torch.cat([grid, x[:, :1, 1:].expand(1, GRID_SIZE, -1)], dim=2)
    no_targets = y[:, :0]  # `predictions` does not read them
    on_grid = Episodes(episodes.tasks[:1], (x, y), (grid, no_targets))
    outputs = method.predictions(theta, on_grid, curve.step_sizes)[0]
    return Fit(
        problem.describe(first),
        _points(x[0], y[0]),
        _points(queries[0], targets[0]),
        {step: _points(grid[0], outputs[step]) for step in steps},
        function=False,
    )


def _predict_wave(
    method: SupervisedMethod,
    theta: Params,
    curve: AdaptationCurve,
    task: Sequence[float] | None,
    steps: Sequence[int],
) -> Fit:
    problem = method.problem
    wave = curve.tasks[:1] if task is None else np.array([task], dtype=np.float64)
    if wave.shape != (1, 2) or not (np.abs(wave) < MAX_TASK_PARAM).all():
        raise UserError("a wave has an amplitude and a phase, such as --task 3.0 1.5")
    shots = problem.evaluation_shots
    # the same points for all methods and stages
    support = make_rng(problem.config.evaluation.seed, "points").uniform(*INPUTS, (shots, 1))
    # the plotted grid takes the place of the query inputs
    x = np.concatenate([support, np.linspace(*INPUTS, GRID_SIZE)[:, None]])
    tasks = SampledTasks("sinusoid", Sinusoids(), "test", problem.task_conditioned)
    episodes = tasks.episodes(wave, points(wave, x[None]), shots, len(x))
    outputs = method.predictions(theta, episodes, curve.step_sizes)[0]
    grid = torch.from_numpy(x[shots:])
    return Fit(
        problem.describe(wave[0]),
        _points(torch.from_numpy(support), episodes.support[1][0]),
        _points(grid, episodes.query[1][0]),
        {step: _points(grid, outputs[step]) for step in steps},
    )


def _points(x: torch.Tensor, y: torch.Tensor) -> NDArray[np.float64]:
    """Inputs (M, ·), of which the first is the variable, and outputs (M, 1) as points (M, 2)."""
    points: NDArray[np.float64] = torch.cat([x[:, :1], y], dim=1).double().numpy()
    return points


def predict_episode(run: Run) -> Classification:
    """Adapt a run's network to the first episode of its evaluation.

    Raises:
        UserError: if the run does not classify images.
    """
    curve, method = _load_evaluation(run)
    if not has_images(method.problem):
        raise UserError(
            f"{run.path} is a {method.problem.title} run, for which there is no plot; use "
            "metarl.load_network in Python for its predictions"
        )
    episodes = next(method.problem.evaluation_episodes("test", len(curve.tasks)))
    theta = load_checked_state(run, method).params
    outputs = method.predictions(theta, episodes, curve.step_sizes)
    (images, support_labels), (queries, labels) = episodes.support, episodes.query
    classes = range(int(support_labels.max()) + 1)
    first = [int((support_labels[0] == label).nonzero()[0]) for label in classes]
    return Classification(
        method.problem.describe(episodes.tasks[0]),
        _channels_last(images[0, first]),
        _channels_last(queries[0]),
        labels[0].numpy(),
        outputs[0, -1].argmax(-1).numpy(),
        len(curve.step_sizes),
    )


def has_images(problem: SupervisedProblem) -> bool:
    """Whether a problem is the classification of grey or RGB images."""
    shape = problem.tasks("test").shape
    return problem.kind is CLASSIFICATION and len(shape) == 3 and shape[0] in (1, 3)


def is_curve(problem: Problem) -> bool:
    """Whether a problem is the regression of functions of one variable."""
    if not isinstance(problem, SupervisedProblem) or problem.kind is CLASSIFICATION:
        return False
    tasks = problem.data.tasks("test")  # without the task, which an oracle observes as well
    return tasks.shape == (1,) and tasks.outputs == 1


def _load_evaluation(run: Run) -> tuple[AdaptationCurve, SupervisedMethod]:
    evaluation = load_or_evaluate(run)
    method = evaluation.method
    assert isinstance(method, SupervisedMethod)
    run.check_data_hashes(method.problem.data_hashes)
    return evaluation.curve, method


def _channels_last(images: torch.Tensor) -> NDArray[np.float64]:
    """(M, C, H, W) to (M, H, W, C)."""
    return images.movedim(1, -1).double().numpy()
