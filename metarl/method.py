"""What a method is to those who train, evaluate and compare, and the one training loop.

A problem is what is to be learned: tasks, a model, a measure; there is one class of them a domain
(`metarl.rl.problem`, `metarl.supervised.problem`). A method is how: a file each, found by its name
in the registry of its domain. Everything else, runs, commands, comparisons, knows these two alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from metarl.config.registry import Registry
from metarl.config.sections import MethodSection
from metarl.evaluation import AdaptationCurve, Metric
from metarl.parallel import one_thread
from metarl.params import Params, aligned

Metrics = dict[str, float]
Role = Literal["meta-learner", "baseline"]
Axis = Literal["gradient steps", "episodes", "instances"]


class Counted(NamedTuple):
    """What adaptation is counted in, in words.

    Attributes:
        stage: what one stage of it is.
        column: above the numbers of the stages in a table.
        plot: on the axis of a plot.
    """

    stage: str
    column: str
    plot: str


AXES: dict[Axis, Counted] = {
    "gradient steps": Counted(
        "a gradient step", "gradient steps", "gradient steps on the new task"
    ),
    "episodes": Counted("an episode", "episode", "episodes of the new task that were used"),
    "instances": Counted("an instance of each class", "instances seen", "instances of each class"),
}

PROBLEMS = Registry(
    "domain",
    {
        "rl": "metarl.rl.problem:PolicyProblem",
        "supervised": "metarl.supervised.problem:SupervisedProblem",
    },
)


@dataclass(frozen=True)
class TrainingState:
    """All that a run needs to continue exactly.

    A state that is read from a file continues as the one that was written: the leaves of both are
    aligned, on which rounding depends.

    Attributes:
        iteration: how many iterations are done.
        theta: the meta-parameters.
        optimizer: state of the outer optimiser; empty for TRPO, which has none.
        samples: how many samples were learned from so far: environment steps or examples.
        pending: metrics of the iterations since they were last reported, summed up, and under
            `iterations` how many these are.
    """

    iteration: int
    theta: Params
    optimizer: Params = field(default_factory=dict)
    samples: int = 0
    pending: Metrics = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("theta", "optimizer"):
            object.__setattr__(self, name, aligned(getattr(self, name)))  # frozen for all others


class Problem(Protocol):
    """Tasks, a model, and a measure: what a config describes beside the method."""

    @property
    def config(self) -> Any:
        """The whole config."""

    @property
    def title(self) -> str:
        """What it is about, in a few words."""

    @property
    def metric(self) -> Metric:
        """What it is measured by."""

    @property
    def data_hashes(self) -> dict[str, str]:
        """Checksums of the data, where there are any: what a resumed run must find unchanged."""

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """What its evaluation depends on, as plain values; equal where evaluations are alike."""

    def check(self) -> None:
        """Find out whether all is there that training and evaluation need.

        Raises:
            UserError: if there is no such device, or data are missing, damaged or too few.
        """

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task in words."""


class Method(Protocol):
    """One way to learn a problem. A class that is made with the problem, `Class(problem)`.

    Class attributes:
        role: of a meta-learner, or of what meta-learners are compared with.
        axis: what its adaptation is counted in; None where it does not adapt.
        Settings: what it alone can be told; at least `name`.
    """

    role: ClassVar[Role]
    axis: ClassVar[Axis | None]
    Settings: ClassVar[type[MethodSection]]

    @property
    def label(self) -> str:
        """What to call it in tables and plots."""

    @property
    def problem(self) -> Any:
        """What it learns."""

    @property
    def updates(self) -> int:
        """How many iterations training takes."""

    @property
    def budget(self) -> int:
        """The most samples that training takes."""

    @property
    def anneals(self) -> bool:
        """Whether every iteration depends on how many there will be."""

    @property
    def distributes(self) -> bool:
        """Whether several processes can share its tasks."""

    def initial_state(self) -> TrainingState:
        """Before the first iteration."""

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One iteration: a pure function of the state and of the problem.

        Raises:
            FloatingPointError: if something is not finite. The state before it is sound.
        """

    def adaptation_curve(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to the unseen tasks of the evaluation.

        Args:
            params: the meta-parameters.
            step_sizes: of the gradient steps; the method's own where None.
        """

    def close(self) -> None:
        """Release what training holds, such as environments."""


def load_method(config: Any) -> Method:
    """The method that a config names, on the problem that it describes.

    Raises:
        UserError: if its data are not there, or damaged.
    """
    problem = PROBLEMS.load(config.domain)(config)
    method: Method = method_class(config)(problem)
    return method


def method_class(config: Any) -> Any:
    """The class of the method that a config names."""
    return PROBLEMS.load(config.domain).methods.load(config.method.name)


def train(
    method: Method, state: TrainingState | None = None
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Go on from a state, or begin; yield what follows, iteration after iteration.

    Chunks of tasks are on threads of our own (`metarl.parallel.over_chunks`), and torch has one:
    its own threads spin while they wait, on processors that others want.

    Metrics go with every `report_every`-th iteration and with the last, and are empty otherwise.
    They are means over the iterations since the last report, but for numbers of samples, which are
    sums. What follows a state is the same, bit for bit, as in a run that was never interrupted.

    Raises:
        FloatingPointError: if something is not finite. The last state that was yielded is sound.
    """
    state = method.initial_state() if state is None else state
    config, total = method.problem.config, method.problem.metric.samples.replace(" ", "_")
    with one_thread(), closing(method):
        while state.iteration < method.updates:
            pending = state.pending
            state, metrics = method.step(state)
            pending = {name: pending.get(name, 0.0) + value for name, value in metrics.items()} | {
                "iterations": pending.get("iterations", 0.0) + 1.0
            }
            report: Metrics = {}
            if state.iteration % config.report_every == 0 or state.iteration == method.updates:
                count = pending.pop("iterations")
                report = {
                    name: value if name == total else value / count
                    for name, value in pending.items()
                }
                pending = {}
            state = replace(state, pending=pending)
            yield state, report
