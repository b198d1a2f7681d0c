"""The interface of a method and of the problem it learns, and the one training loop.

A problem is what is to be learned: tasks, a model and a metric. There is one class for each domain
(`metarl.rl.problem`, `metarl.supervised.problem`). A method is how it is learned: one file each,
found by name in the registry of its domain. Runs, commands and comparisons know only these two.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.config.registry import Registry
from metarl.config.sections import Experiment, MethodSection
from metarl.errors import UserError
from metarl.evaluation import VALIDATION, AdaptationCurve, Metric
from metarl.parallel import one_thread
from metarl.params import Params, aligned, split_prefix, with_prefix

Metrics = dict[str, float]
Role = Literal["meta-learner", "baseline"]


@dataclass(frozen=True)
class AdaptationUnit:
    """The unit in which the stages of a method's adaptation are counted, with its labels."""

    name: str  # one unit, such as "gradient step"
    column: str  # heading of a table's column of stages
    axis_label: str  # of a plot
    metric: str  # suffix of a training metric after k units, a format string
    stage: str  # description of stage k, a format string
    first: int = 0  # 1 for episodes, since the first episode is part of the adaptation
    has_step_sizes: bool = False  # whether a stage is a step along a gradient
    counts_episodes: bool = False  # whether stages are episodes of the new task

    def stage_name(self, stage: int) -> str:
        """A stage in words: "before adaptation", "after 2 steps", "episode 1"."""
        number = stage + self.first
        if number == 0:
            return "before adaptation"
        return self.stage.format(number, "s" * (number > 1))


GRADIENT_STEPS = AdaptationUnit(
    "gradient step",
    "gradient steps",
    "gradient steps on the new task",
    "after_{}_steps",
    "after {} step{}",
    has_step_sizes=True,
)
EPISODES = AdaptationUnit(
    "episode",
    "episode",
    "adaptation episodes",
    "after_{}_episodes",
    "episode {}",
    first=1,
    counts_episodes=True,
)
INSTANCES = AdaptationUnit(
    "instance of each class",
    "instances",
    "instances of each class",
    "after_{}_instances",
    "after {} instance{} of each class",
)
ADAPTATION_UNITS = {unit.column: unit for unit in (GRADIENT_STEPS, EPISODES, INSTANCES)}

BEST = "best."  # the prefix of what early stopping keeps in `TrainingState.extra`

PROBLEMS = Registry(
    "domain",
    {
        "rl": "metarl.rl.problem:PolicyProblem",
        "supervised": "metarl.supervised.problem:SupervisedProblem",
    },
)


def _renamed(old: str, new: str) -> Any:
    def value(self: object) -> Any:
        warnings.warn(f"TrainingState.{old} is deprecated: use {new}", DeprecationWarning, 2)
        return getattr(self, new)

    return property(value)


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run needs to continue exactly.

    All tensors are copied to aligned memory: vectorised sums round differently with other
    alignments, and a state read from a file must continue like the one that was written.

    Attributes:
        iteration: the number of completed iterations.
        params: the meta-parameters.
        opt_state: state of the outer optimiser; empty for TRPO, which has none.
        samples: the number of samples used so far: environment steps or examples.
        metric_accumulator: sums of the metrics since they were last reported; under `iterations`,
            their number.
        extra: any other tensors that a method keeps between iterations, such as a replay buffer or
            a second network. They are saved with the checkpoint, in their own dtypes.
    """

    iteration: int
    params: Params
    opt_state: Params = field(default_factory=dict)
    samples: int = 0
    metric_accumulator: Metrics = field(default_factory=dict)
    extra: Params = field(default_factory=dict)

    theta = _renamed("theta", "params")
    optimizer = _renamed("optimizer", "opt_state")
    pending = _renamed("pending", "metric_accumulator")

    def __post_init__(self) -> None:
        for name in ("params", "opt_state", "extra"):
            object.__setattr__(self, name, aligned(getattr(self, name)))  # the class is frozen


class Problem(Protocol):
    """Tasks, a model and a metric: what a config describes besides the method."""

    @property
    def config(self) -> Any:
        """The whole config."""

    @property
    def title(self) -> str:
        """A short name for tables and plots."""

    @property
    def metric(self) -> Metric:
        """The metric of training and evaluation."""

    @property
    def data_hashes(self) -> dict[str, str]:
        """Checksums of the data, if any: a resumed run must find them unchanged."""

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """The settings of the evaluation as plain values; evaluations with equal ones compare."""

    def check(self) -> None:
        """Check that everything needed for training and evaluation is available.

        Raises:
            UserError: if the device does not exist, or data are missing, damaged or too few.
        """

    def describe(self, task: NDArray[np.float64]) -> str:
        """A description of a task (T,)."""


class Method(Protocol):
    """One way to learn a problem. A class constructed with the problem: `Class(problem)`.

    Class attributes:
        role: whether it is a meta-learner, or a baseline that meta-learners are compared with.
        adaptation_unit: what its adaptation is counted in; None if it does not adapt.
        Settings: the schema of its own section in a config; at least `name`.
    """

    role: ClassVar[Role]
    adaptation_unit: ClassVar[AdaptationUnit | None]
    Settings: ClassVar[type[MethodSection]]

    @property
    def label(self) -> str:
        """Its name in tables and plots."""

    @property
    def problem(self) -> Any:
        """The problem that it learns."""

    @property
    def num_iterations(self) -> int:
        """The number of training iterations."""

    @property
    def max_samples(self) -> int:
        """An upper bound on the samples used in training."""

    @property
    def uses_lr_schedule(self) -> bool:
        """Whether an iteration depends on the total number of iterations."""

    @property
    def supports_distributed(self) -> bool:
        """Whether several processes can share its meta-batch."""

    def initial_state(self) -> TrainingState:
        """The state before the first iteration."""

    def step(self, state: TrainingState) -> tuple[TrainingState, Metrics]:
        """One iteration: a pure function of the state and the problem.

        Raises:
            FloatingPointError: if something is not finite. The previous state is still valid.
        """

    def evaluate(
        self, params: Params, step_sizes: Sequence[float] | None = None
    ) -> AdaptationCurve:
        """Adapt to the held-out tasks of the evaluation.

        Args:
            params: the meta-parameters.
            step_sizes: of the gradient steps; the method's own if None.
        """

    def close(self) -> None:
        """Release the resources of training, such as environments."""


Configured = TypeVar("Configured", bound=Experiment)


def resolve(config: Configured) -> Configured:
    """Replace the settings of a config that have to be measured by their values.

    This may run environments. Training does it once and writes the resolved config into the run.

    Raises:
        UserError: if they cannot be measured.
    """
    resolved: Configured = PROBLEMS.load(config.domain).resolve(config)
    return resolved


def load_method(config: Any) -> Method:
    """The method named in a config, constructed with the problem that the config describes.

    Raises:
        UserError: if its data are missing or damaged.
    """
    problem = PROBLEMS.load(config.domain)(config)
    method: Method = method_class(config)(problem)
    return method


def method_class(config: Any) -> Any:
    """The class of the method named in a config."""
    return with_current_names(PROBLEMS.load(config.domain).methods.load(config.method.name))


# members of custom methods written for version 0.1, and what they are called now
DEPRECATED = {
    "axis": "adaptation_unit",
    "adaptation_curve": "evaluate",
    "updates": "num_iterations",
    "budget": "max_samples",
    "anneals": "uses_lr_schedule",
    "distributes": "supports_distributed",
}


def with_current_names(cls: Any) -> Any:
    """Give a custom method's class the current names of members that it defines by an old one.

    A base class may deprecate further names by a dictionary `deprecated_names`.
    """
    for old, new in {**DEPRECATED, **getattr(cls, "deprecated_names", {})}.items():
        for owner in (c for c in cls.__mro__ if old in vars(c) and new not in vars(c)):
            warnings.warn(
                f"{owner.__name__}.{old} is deprecated: it is called {new} now",
                DeprecationWarning,
                stacklevel=3,
            )
            value = vars(owner)[old]
            is_unit = old == "axis" and value is not None
            setattr(owner, new, ADAPTATION_UNITS[value] if is_unit else value)
            # an override may call super() by the old name, which metarl's base class has not
            for base in (c for c in owner.__mro__ if new in vars(c) and old not in vars(c)):
                setattr(base, old, vars(base)[new])
    return cls


def is_trained(method: Method, state: TrainingState) -> bool:
    """Whether a training has come to its last iteration, or was stopped early."""
    return state.iteration >= method.num_iterations or is_stopped_early(method, state)


def is_stopped_early(method: Method, state: TrainingState) -> bool:
    """Whether the last `patience` validations were not better than the best one."""
    stopping, best = method.problem.config.early_stopping, state.extra.get(f"{BEST}iteration")
    if not stopping or stopping.patience is None or best is None:
        return False
    return bool(state.iteration - int(best) >= stopping.patience * stopping.every)


def has_best_state(state: TrainingState) -> bool:
    """Whether there was a validation, the best of which `train` keeps in `extra`."""
    return f"{BEST}iteration" in state.extra


def best_state(state: TrainingState) -> TrainingState:
    """The state with the parameters of the best validation, which `train` keeps in `extra`.

    Raises:
        UserError: if there was no validation.
    """
    _, best = split_prefix(state.extra, BEST)
    if not best:
        raise UserError(
            "there is no best checkpoint, only the last one: train with early_stopping=true"
        )
    _, params = split_prefix(best, "params.")
    return replace(state, iteration=int(best["iteration"]), params=params)


def _better(best: Params, score: float, state: TrainingState, metric: Metric) -> Params:
    """The best validation so far: its score, iteration and parameters, as tensors."""
    # NaN, of parameters that diverge, is better than nothing only
    if best and (math.isnan(score) or metric.sign * score <= metric.sign * float(best["score"])):
        return best
    params = with_prefix(state.params, "params.")
    values = {"score": torch.tensor(score).double(), "iteration": torch.tensor(state.iteration)}
    return values | params


def at_iteration(method: Method, iteration: int) -> Method:
    """The method with the settings of a training iteration."""
    config = method.problem.config.at(iteration)
    if config is method.problem.config:
        return method
    staged: Method = method_class(config)(replace(method.problem, config=config))
    return staged


def train(
    method: Method, state: TrainingState | None = None
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Train from a state, or from the beginning; yield the state after each iteration.

    Every `report_every`-th iteration and the last one yield metrics too; all others an empty
    dictionary. Metrics are means over the iterations since the last report, except for numbers of
    samples, which are sums. With early stopping, iterations with a validation yield metrics too,
    and the training may end before its last iteration. What follows a state is the same, bit for
    bit, as in a run that was never interrupted.

    Raises:
        FloatingPointError: if something is not finite. The last state that was yielded is valid.
    """
    state = method.initial_state() if state is None else state
    stopping = method.problem.config.early_stopping
    config, total = method.problem.config, method.problem.metric.samples.replace(" ", "_")
    # chunks of tasks run on our own threads; torch's would spin while they wait
    with one_thread(), ExitStack() as resources:
        current = resources.enter_context(closing(method))
        while not is_trained(method, state):
            # sums are part of the state: a report may follow an interruption
            sums, best = state.metric_accumulator, split_prefix(state.extra, BEST)[1]
            if config.at(state.iteration) != current.problem.config:  # a stage begins
                current.close()
                current = resources.enter_context(closing(at_iteration(method, state.iteration)))
            state, metrics = current.step(state)
            validation: Metrics = {}
            if stopping and state.iteration % stopping.every == 0:
                score = method.validation_score(state.params, stopping.tasks)  # type: ignore[attr-defined]
                validation = {f"{VALIDATION}/{method.problem.metric.name}": score}
                best = _better(best, score, state, method.problem.metric)
            if best:
                state = replace(state, extra=state.extra | with_prefix(best, BEST))
            sums = {name: sums.get(name, 0.0) + value for name, value in metrics.items()} | {
                "iterations": sums.get("iterations", 0.0) + 1.0
            }
            report: Metrics = {}
            is_last = is_trained(method, state)
            if state.iteration % config.report_every == 0 or is_last or validation:
                count = sums.pop("iterations")
                report = {
                    name: value if name == total else value / count for name, value in sums.items()
                } | validation
                sums = {}
            state = replace(state, metric_accumulator=sums)
            yield state, report
