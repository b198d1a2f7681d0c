"""The functions of `import metarl`: the commands of the command line, for Python."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from metarl.config.files import EVALUATION_NAME, EVALUATION_NAMES
from metarl.config.sections import Section
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.experiment import differences
from metarl.launch import several
from metarl.launch import train as training
from metarl.launch.grid import as_mapping, as_seeds
from metarl.launch.search import as_range
from metarl.launch.search import search as launch_search
from metarl.launch.several import LaunchOptions, Trained
from metarl.launch.train import Callback, ConfigLike
from metarl.method import Metrics, TrainingState
from metarl.models.network import AdaptiveNetwork
from metarl.models.policy import AdaptivePolicy
from metarl.report import evaluations, groups
from metarl.report.comparison import Comparison
from metarl.report.sweep_table import SweepTable
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.data import ImageData

RunLike = str | Path | Run


def load(
    run: RunLike, *, trust_code: bool = False, seed: int = 0, checkpoint: str | None = None
) -> AdaptivePolicy:
    """Load the policy of a run.

    Args:
        run: a `Run`, the directory of one, the name of a trained run of this package (`metarl
            list`), or `hf:USER/NAME` on the Hugging Face hub.
        trust_code: whether to import custom code that the config names, such as your own task
            family. Importing executes it.
        seed: seed of the sampled actions.
        checkpoint: "last", which is the default, or "best" for the parameters with the best
            validation score, if the run was trained with `early_stopping`.

    Returns:
        The policy, whose methods are `act`, `adapt`, `evaluate`, `render` and others.

    Raises:
        UserError: if the run does not exist or is damaged, if it names custom code that is not
            trusted, or if it is a run of few-shot learning (see `load_network`).

    Example:
        >>> import metarl
        >>> policy = metarl.load("point_navigation")
        >>> policy.act([0.0, 0.0]).shape
        (2,)
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"seed must be a whole number of at least 0, not {seed!r}")
    return AdaptivePolicy.from_run(_open(run, trust_code, None, checkpoint), seed)


def load_network(
    run: RunLike,
    *,
    trust_code: bool = False,
    data: Section | None = None,
    checkpoint: str | None = None,
) -> AdaptiveNetwork:
    """Load the network of a run of few-shot regression or classification.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        data: `Dataset.of(...)`, if the run was trained on a data set object from Python.
        checkpoint: as for `load`.

    Returns:
        The network, whose methods are `adapt`, `predict` and `evaluate`.

    Raises:
        UserError: as for `load`, or if the data are not found.

    Example:
        >>> import metarl
        >>> wave = metarl.load_network("sinusoid").adapt([0.0, 1.0, 2.0], [0.0, 2.5, 2.7])
        >>> wave.predict([0.5, 1.5]).shape
        (2, 1)
    """
    return AdaptiveNetwork.of(_open(run, trust_code, data, checkpoint))


def train(
    config: ConfigLike,
    out: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    init_from: RunLike | None = None,
    progress: bool = False,
    report: Callable[[int, Metrics], None] | None = None,
) -> Run:
    """Meta-train a policy or a network, then evaluate it on held-out tasks.

    Everything is saved in the directory `out`: weights, metrics (also for TensorBoard), evaluation.
    If training is interrupted by Ctrl-C or an error, `resume=True` or `metarl train --resume`
    continues it, with the same results as an uninterrupted training.

    Args:
        config: `Config(...)`, a mapping as in YAML, a YAML file, or the name of a config of this
            package.
        out: the directory of the run. It must be new or empty, unless `resume` is True.
        resume: whether to continue the run in `out`, if there is one.
        callbacks: functions called after every iteration as `callback(state, metrics)`. `state` has
            `iteration` and `params`; `metrics` is a dictionary such as
            {"return/after_1_steps": -12.3}, empty in iterations without a report (`report_every`).
            If a callback returns False, training stops, and the run is evaluated; `resume=True`
            continues it. If one raises an exception, the state is saved first.
        init_from: a run with the same network, as for `load`, from whose weights training starts.
        progress: whether to print the progress, with an estimate of the remaining time.
        report: deprecated; use `callbacks`.

    Returns:
        The run. `metarl.load(run)` loads its policy, `metarl.load_network(run)` its network, and
        `run.to_frame()` its training log.

    Raises:
        UserError: before training starts, if the config is invalid, `out` cannot be written, or the
            weights of `init_from` do not fit.
        FloatingPointError: if training diverges.
    """
    if report is not None:
        message = "train(report=...) is deprecated; use train(callbacks=[...])"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        callbacks = [*callbacks, _as_callback(report)]
    # its path, which the config of the new run records
    source = str(init_from.path if isinstance(init_from, Run) else init_from or "")
    console = Console() if progress else None
    return training.train(config, Path(out), resume, callbacks, source, console)


def _as_callback(report: Callable[[int, Metrics], None]) -> Callback:
    # its result is dropped: a report could not stop the training
    def callback(state: TrainingState, metrics: Metrics) -> None:
        if metrics:
            report(state.iteration, metrics)

    return callback


def train_seeds(
    config: ConfigLike,
    seeds: int | Sequence[int],
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool = False,
    trust_code: bool = False,
) -> list[Run]:
    """Train an experiment with several seeds in parallel, one process per seed.

    Args:
        config: as for `train`.
        seeds: a list of seeds, or their number n for the seeds 1, ..., n.
        out: the directory of the runs, which are `out/seed-1` and so on.
        resume: whether to continue the runs that `out` contains.
        progress: whether to print the progress.
        trust_code: as for `load`, for the runs that `out` contains.

    Returns:
        The runs, in the order of the seeds.

    Raises:
        UserError: before training starts, if the config is invalid or `out` cannot be written; at
            the end, if a run failed. The others are complete, and `resume=True` continues the rest.
    """
    options = _launch_options(resume, progress, trust_code, "train")
    return _complete(several.train_seeds(config, as_seeds(seeds), Path(out), options))


def sweep(
    config: ConfigLike,
    grid: Mapping[str, Any],
    out: str | Path,
    *,
    seeds: int | Sequence[int] = 1,
    resume: bool = False,
    progress: bool = False,
    trust_code: bool = False,
) -> SweepTable:
    """Train every combination of the values of settings in parallel, and rank them.

    Args:
        config: as for `train`.
        grid: lists of values by the full name of a setting, such as
            `{"inner.step_size": [0.05, 0.1], "outer.iterations": 100}`. A setting with a single
            value is the same for all runs.
        out: the directory of the runs.
        seeds: the seeds of each combination, as for `train_seeds`.
        resume: as for `train_seeds`.
        progress: as for `train_seeds`.
        trust_code: as for `train_seeds`.

    Returns:
        The table of the combinations, the best first. `print` shows it, `to_frame()` has a row for
        each combination and adaptation step, and `groups` has the runs of each combination.

    Raises:
        UserError: as for `train_seeds`.
    """
    options = _launch_options(resume, progress, trust_code)
    trained = several.sweep(config, grid, Path(out), as_seeds(seeds), options)
    return SweepTable.of(groups.compare(_complete(trained)))


def search(
    config: ConfigLike,
    ranges: Mapping[str, tuple[float, float]],
    out: str | Path,
    *,
    trials: int,
    seeds: int | Sequence[int] = 1,
    prune: bool = False,
    resume: bool = False,
    progress: bool = False,
    trust_code: bool = False,
) -> SweepTable:
    """Search for good values of settings in ranges, with optuna (the extra `search`).

    Args:
        config: as for `train`.
        ranges: lower and upper limits by the full name of a setting, such as
            `{"inner.step_size": (0.01, 0.5)}`; two integers are a range of integers.
        out: the directory of the runs.
        trials: the number of combinations, including those that `out` contains.
        seeds: as for `sweep`.
        prune: whether to stop combinations whose score in training is worse than the median of the
            others at the same iteration.
        resume: as for `sweep`.
        progress: as for `sweep`.
        trust_code: as for `sweep`.

    Returns:
        The table of the combinations, as for `sweep`.

    Raises:
        UserError: as for `sweep`, or if optuna is not installed. If some runs fail, the table has
            the other combinations, with a warning.
    """
    limits = {}
    for name, ends in as_mapping(ranges).items():
        if not isinstance(ends, Sequence) or len(ends) != 2:
            raise UserError(f"{name}: a range is a pair of numbers, such as (0.01, 0.5)")
        limits[name] = as_range(name, *ends)
    options = _launch_options(resume, progress, trust_code)
    trained = launch_search(
        config, limits, Path(out), trials, as_seeds(seeds), options=options, prune=prune
    )
    if trained.failures and trained.runs and not trained.interrupted:
        # in a search over step sizes, that some combinations diverge is no reason to end
        names = ", ".join(trained.failures)
        warnings.warn(f"some runs failed, and are not in the table: {names}", stacklevel=2)
        trained = replace(trained, failures={})
    return SweepTable.of(groups.compare(_complete(trained)))


def _launch_options(
    resume: bool, progress: bool, trust_code: bool, verb: str = "sweep"
) -> LaunchOptions:
    console = Console() if progress else None
    return LaunchOptions(resume=resume, trust_code=trust_code, console=console, verb=verb)


def _complete(trained: Trained) -> list[Run]:
    """The runs, if all are complete."""
    if trained.interrupted:  # a signal was handled, so that Python has not raised it
        raise KeyboardInterrupt
    if trained.failures:
        problems = "; ".join(f"{name}: {text}" for name, text in trained.failures.items())
        raise UserError(f"some runs failed ({problems}); fix the cause, and use resume=True")
    return list(trained.runs)


def evaluate(
    run: RunLike,
    *,
    trust_code: bool = False,
    data: Section | None = None,
    checkpoint: str | None = None,
    name: str | None = None,
    **settings: Any,
) -> AdaptationCurve:
    """Evaluate a run on held-out tasks.

    The result is stored in the run's directory, unless settings are changed without a `name`.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        data: as for `load_network`.
        checkpoint: as for `load`. Results for "best" are stored in evaluation-best.json and so on,
            all others in evaluation.json.
        name: of the evaluation; it is then stored in evaluation-NAME.json and so on.
        settings: settings of the section `evaluation` to change, such as `tasks=200`.

    Returns:
        The scores on each task after 0, 1, 2, ... adaptation steps. `print` shows their means.

    Raises:
        UserError: as for `load`, or if a setting does not exist.
    """
    if name is not None and (
        not isinstance(name, str)
        or not re.fullmatch(EVALUATION_NAME, name)
        or name in (evaluations.BEST, evaluations.PAPER)
    ):
        raise UserError(
            f"name must be {EVALUATION_NAMES}, and not {evaluations.BEST} or {evaluations.PAPER}, "
            f"which metarl writes, not {name!r}"
        )
    opened = _open(run, trust_code, data, checkpoint)
    if name and opened.uses_best:
        raise UserError(
            "name: evaluations of the best checkpoint are stored in evaluation-best.json and so on "
            "only; leave out either the name or the checkpoint"
        )
    # the run's own evaluation, which tables and `policy.evaluate` read, has the config's settings
    stored = name or (None if settings else "")
    return evaluations.evaluate(evaluations.with_evaluation(opened, settings), name=stored)


def compare(*runs: RunLike, trust_code: bool = False) -> Comparison:
    """Compare runs on the same held-out tasks; runs without an evaluation are evaluated first.

    Runs that differ only in their seed are aggregated.

    Args:
        runs: the runs, each as for `load`.
        trust_code: as for `load`.

    Returns:
        The comparison. `print` shows its tables; `to_frame()` has a row for each method and
        adaptation step.

    Raises:
        UserError: as for `load`, or if the runs have different tasks.
    """
    return Comparison(groups.compare([_open(run, trust_code) for run in runs]))


def _open(
    run: RunLike, trust_code: bool, data: Section | None = None, checkpoint: str | None = None
) -> Run:
    """The run, with other data if there are any; `run.at(...)` has its own checkpoint."""
    if not isinstance(run, Run):
        if not isinstance(run, str | Path):
            raise UserError(
                "a run is a Run, a directory or a name, not an object of class "
                f"{type(run).__name__}; pass several as separate arguments"
            )
        run = Run.open(Path(run), trust_code=trust_code)
    if data is not None:
        run = _with_data(run, data)
    return run.at(checkpoint) if checkpoint else run


def _with_data(run: Run, data: Section) -> Run:
    if not isinstance(run.config, SupervisedConfig) or not isinstance(data, ImageData):
        raise UserError(
            f"data must be Dataset.of(...) for a run of few-shot classification, not {data!r}"
        )
    config = run.config.model_copy(update={"data": data})
    # the images themselves are compared by their checksums
    images = ("data.dataset", "data.settings", "data.path")
    if changed := differences(run.config, config, images):
        raise UserError(
            f"the run in {run.path} was trained on other data ({'; '.join(changed)}); pass those "
            "of its training"
        )
    return Run(run.path, config, run.results)  # the caller's run keeps its own config
