"""What an experiment is to those who train, evaluate and compare: the same for every domain."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation import AdaptationCurve, Metric
from metarl.params import Params
from metarl.training import Metrics, TrainingState


class Experiment(Protocol):
    """Tasks, a model, and a method: what a config describes.

    Attributes:
        title: what it is about, in a few words.
        metric: what it is measured by.
        data_hashes: of the data, where there are any: what a resumed run must find unchanged.
    """

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def metric(self) -> Metric: ...  # noqa: D102

    @property
    def data_hashes(self) -> dict[str, str]: ...  # noqa: D102

    @property
    def config(self) -> Any:
        """Its config."""

    @property
    def budget(self) -> int:
        """The most samples that training takes."""

    def check(self) -> None:
        """Find out whether all is there that training and evaluation need.

        Raises:
            UserError: if there is no such device, or data are missing, damaged or too few.
        """

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """What its evaluation depends on, as plain values; equal where evaluations are alike."""

    def initial_state(self) -> TrainingState:
        """Before the first iteration."""

    def train(self, state: TrainingState) -> Iterator[tuple[TrainingState, Metrics]]:
        """Go on from a state, by the config's method; yield what follows.

        Metrics are empty where there is nothing to report.

        Raises:
            FloatingPointError: if something is not finite. The last state that was yielded is
                sound.
        """

    def progress(self, metrics: Metrics) -> str:
        """How it goes, in a few words."""

    def step_sizes(self, first: float | None = None) -> tuple[float, ...]:
        """Those of the evaluation, in proportion to the first where that is given."""

    def adaptation_curve(
        self, params: Params, step_sizes: Sequence[float], validation: bool = False
    ) -> AdaptationCurve:
        """Adapt to unseen tasks, those of the test or of the validation."""

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task in words."""


def evaluate(experiment: Experiment, params: Params) -> AdaptationCurve:
    """The adaptation curve that a config asks for, by the rules of its method.

    What was meta-trained takes the config's step sizes. What was pretrained, or not trained at all,
    takes those that served it best on validation tasks. An oracle and a nearest neighbour do not
    adapt.
    """
    match experiment.config.method:
        case "maml":
            schedule = experiment.step_sizes()
        case "oracle" | "nearest_neighbour":
            schedule = ()
        case _:
            schedule = choose_step_sizes(experiment, params)
    return experiment.adaptation_curve(params, schedule)


def choose_step_sizes(experiment: Experiment, params: Params) -> tuple[float, ...]:
    """The step sizes of fine-tuning: the best of the config's grid on validation tasks.

    The best has the best score over all steps of the curve. A step size that breaks the model down
    is out of the race.

    Raises:
        FloatingPointError: if every step size does.
    """
    grid = experiment.config.baseline.step_sizes
    sign = 1.0 if experiment.metric.higher_is_better else -1.0
    scores: dict[tuple[float, ...], float] = {}
    for step_size in grid:
        schedule = experiment.step_sizes(step_size)
        with suppress(FloatingPointError):
            curve = experiment.adaptation_curve(params, schedule, validation=True)
            scores[schedule] = sign * float(curve.scores[:, 1:].mean())
    if not scores:
        raise FloatingPointError(
            f"every step size of baseline.step_sizes {list(grid)} breaks the model down; add "
            "smaller ones"
        )
    return max(scores, key=lambda schedule: scores[schedule])
