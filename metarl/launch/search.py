"""Search over ranges of settings with optuna's tree-structured Parzen estimator.

Bergstra et al. (2011), "Algorithms for Hyper-Parameter Optimization". Earlier trials are read from
their runs, so that a search continues from its directory alone.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config.files import CONFIG, read_values
from metarl.config.sections import current_name
from metarl.errors import UserError
from metarl.evaluation import Metric
from metarl.experiment import AnyConfig, all_settings, by_full_name
from metarl.launch.grid import RANGE, check_once, check_variable, folder_name
from metarl.launch.several import (
    LaunchOptions,
    Trained,
    check_directory,
    find_runs,
    is_pruned,
    train_runs,
)
from metarl.launch.train import ConfigLike, as_config
from metarl.method import load_method
from metarl.report.groups import ExperimentGroup, compare
from metarl.rng import make_rng
from metarl.runs.metrics import read_metrics
from metarl.threads import processors

MAX_ATTEMPTS = 100  # to propose a combination that was not tried yet
LOG_SCALE_RATIO = 10.0  # ranges whose ends have at least this ratio are searched on a log scale


@dataclass(frozen=True)
class Range:
    """A closed range of numbers, or of integers."""

    low: float
    high: float
    is_integer: bool

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def uses_log_scale(self) -> bool:
        """Whether values are searched on a log scale."""
        return self.low > 0.0 and self.high >= LOG_SCALE_RATIO * self.low

    def at(self, part: float) -> float:
        """The value at a part of the range, between 0 for its low end and 1 for its high end."""
        value = self.low + part * (self.high - self.low)
        return round(value) if self.is_integer else value

    def rounded(self, value: float) -> float:
        """A value in the range, rounded for the name of its directory.

        Numbers are rounded to a thousandth of the range's width, or on a log scale to three digits.
        """
        if self.is_integer:
            return value
        if self.uses_log_scale:
            value = float(f"{value:.3g}")
        else:
            value = round(value, 3 - floor(log10(self.high - self.low)))
        return min(max(value, self.low), self.high)


def require_optuna() -> None:
    """Raise UserError if optuna is not installed."""
    if find_spec("optuna") is None:
        raise UserError(
            "--search needs the package optuna: pip install 'metarl-maml[search]', or omit it and "
            "give values, such as inner.step_size=0.1,0.2"
        )


def as_range(name: str, low: float, high: float) -> Range:
    """A range, of integers if both ends are; UserError if it is empty, or the setting is fixed."""
    ends = (low, high)
    if not all(isinstance(end, int | float | np.number) for end in ends) or not low < high:
        raise UserError(
            f"{name}: a range has two numbers, the lower one first, such as 0.01 and 0.5, not "
            f"{low!r} and {high!r}"
        )
    check_variable(name)
    return Range(low, high, all(isinstance(end, int | np.integer) for end in ends))


def parse_ranges(settings: Sequence[str]) -> tuple[list[str], dict[str, Range]]:
    """Separate settings with a range, `inner.step_size=0.01..0.5`, from those with a value.

    Returns:
        The settings with a value, and the ranges by name of the setting.

    Raises:
        UserError: if there is no range, or a range is invalid.
    """
    fixed, ranges = [], {}
    check_once(settings)
    for setting in settings:
        name, _, text = setting.partition("=")
        matched = RANGE.fullmatch(text)
        if not matched:
            if name == "seed":
                check_variable(name)
            fixed.append(setting)
            continue
        is_integer = all(re.fullmatch(r"-?\d+", end) for end in matched.groups())
        low, high = map(int if is_integer else float, matched.groups())
        ranges[name] = as_range(name, low, high)
    if not ranges:
        raise UserError("--search needs a range, such as --set inner.step_size=0.01..0.5")
    return fixed, ranges


def search(
    config: ConfigLike,
    ranges: Mapping[str, Range],
    out: Path,
    trials: int,
    seeds: Sequence[int] = (1,),
    overrides: Sequence[str] = (),
    options: LaunchOptions | None = None,
    prune: bool = False,
) -> Trained:
    """Search for good settings, see `metarl.search`; `overrides` are settings of all runs.

    Combinations are proposed in batches, each from the scores of all before.
    """
    require_optuna()
    if not isinstance(trials, int | np.integer) or trials < 1:
        raise UserError(f"trials: must be a whole number of at least 1, not {trials!r}")
    if not ranges:
        raise UserError("a search needs a range, such as inner.step_size between 0.01 and 0.5")
    options = replace(options or LaunchOptions(verb="sweep"), overrides=overrides, is_search=True)

    def plan(varied: Sequence[str]) -> dict[Path, AnyConfig]:
        """The runs of a combination, given as settings such as `inner.step_size=0.1`."""
        return {
            folder_name(varied) / f"seed-{seed}": as_config(
                config, [*overrides, *varied, f"seed={seed}"]
            )
            for seed in seeds
        }

    # both ends of the ranges, and a value between them, are validated before any run starts
    first, *_ = [
        next(iter(plan([f"{name}={r.at(part):g}" for name, r in ranges.items()]).values()))
        for part in (0.0, 0.4, 1.0)
    ]
    # by their present names, which the runs record
    recorded = all_settings(first)
    ranges = {current_name(name, recorded): limits for name, limits in ranges.items()}
    method = load_method(first)
    metric = method.problem.metric
    if prune:
        # the first scores are still those of the random initial weights
        warm_up = method.num_iterations // 4
        options = replace(
            options, should_prune=lambda run: is_below_median(run, out, metric, warm_up)
        )
    check_directory(out, options)
    # the combinations that are there: with all seeds, and as the config says
    present = find_runs(out)
    pruned = {path.parent.name for path in present if is_pruned(path)}
    batch: dict[Path, AnyConfig] = {}
    for name in dict.fromkeys(path.parent.name for path in present):
        varied = name.split(",")
        if {setting.partition("=")[0] for setting in varied} != {*ranges}:
            raise UserError(
                f"the runs in {out} vary other settings ({name}) than the ranges of this search "
                f"({', '.join(ranges)}); choose another directory with --out"
            )
        if name not in pruned:
            batch |= plan(varied)
    result = Trained([], {})
    while True:
        if batch:
            trained = train_runs(batch, out, options)
            options = replace(options, resume=True)  # the next batch joins this one
            result = Trained(
                [*result.runs, *trained.runs],
                {**result.failures, **trained.failures},
                trained.interrupted,
            )
        tried = {path.parent.name for path in find_runs(out)}
        # as many combinations at a time as fill the processors: the fewer, the more each proposal
        # knows of those before
        batch_size = min(trials - len(tried), max(1, processors() // len(seeds)))
        if result.interrupted or batch_size < 1:
            return result
        groups = compare(result.runs) if result.runs else []
        ranked = {run.path.parent.name for run in result.runs}
        failed = {Path(name).parent.name for name in result.failures}
        unranked = [
            # a combination that failed, such as one that diverged, has no scores: it is the worst
            (_recorded(out / name), {} if name in failed else training_scores(out / name, metric))
            for name in sorted(tried - ranked)
        ]
        for attempt in range(MAX_ATTEMPTS):
            proposals = propose(
                ranges, groups, len(tried), batch_size, metric.higher_is_better, unranked, attempt
            )
            # a combination may be proposed again, whose runs are there already
            batch = {
                place: config
                for varied in proposals
                if folder_name(varied).name not in tried
                for place, config in plan(varied).items()
            }
            if batch:
                break
        else:
            message = (
                f"the search ends after {len(tried)} of {trials} combinations: all that were "
                "proposed next have been tried"
            )
            if options.console:
                options.console.print(message)
            else:
                warnings.warn(message, stacklevel=3)
            return result


def _recorded(combination: Path) -> dict[str, Any]:
    """The settings of a combination by their full names."""
    return by_full_name(read_values(find_runs(combination)[0] / CONFIG))


def training_scores(combination: Path, metric: Metric) -> dict[int, float]:
    """The scores after adaptation by iteration, as means over the seeds that all have reached.

    There are none if the metrics of a seed are damaged.
    """
    curves = []
    for run in find_runs(combination):
        try:
            lines = read_metrics(run)
        except UserError:  # no reason to end the search; the process of the run reports it
            return {}
        names = [name for name in (lines[0] if lines else ()) if name.startswith(f"{metric.name}/")]
        curves.append({int(line["iteration"]): line[names[-1]] for line in lines if names})
    common = set[int].intersection(*map(set, curves)) if curves else set[int]()
    return {step: sum(curve[step] for curve in curves) / len(curves) for step in sorted(common)}


def is_below_median(run: Path, out: Path, metric: Metric, warm_up: int) -> bool:
    """Whether to stop the combination of a run: its best score so far is worse than the median.

    The median is over the combinations in `out`. None stops in the first `warm_up` iterations.
    """
    if any(map(is_pruned, find_runs(run.parent))):  # a mean over some of the seeds is no score
        return True
    optuna: Any = import_module("optuna")
    create_trial = optuna.trial.create_trial
    study = _create_study(optuna, metric.higher_is_better)
    for combination in sorted({path.parent for path in find_runs(out)} - {run.parent}):
        if scores := training_scores(combination, metric):
            # those that are still running count too, as far as they are
            study.add_trial(create_trial(value=0.0, intermediate_values=scores))
    scores = training_scores(run.parent, metric)
    trial = create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=scores)
    return bool(optuna.pruners.MedianPruner(n_warmup_steps=warm_up).prune(study, trial))


def _create_study(optuna: Any, higher_is_better: bool, sampler: Any = None) -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every study that is created
    direction = "maximize" if higher_is_better else "minimize"
    return optuna.create_study(direction=direction, sampler=sampler)


def propose(
    ranges: Mapping[str, Range],
    groups: Sequence[ExperimentGroup],
    num_started: int,
    num_proposals: int,
    higher_is_better: bool,
    pruned: Sequence[tuple[Mapping[str, Any], Mapping[int, float]]] = (),
    attempt: int = 0,
) -> list[list[str]]:
    """Propose combinations to try next, as settings such as `inner.step_size=0.1`.

    `groups` are the evaluated trials, `pruned` the settings of pruned or failed ones, with their
    scores in training by iteration, if any. `num_started`, which includes all of them, and
    `attempt` seed the proposals.
    """
    optuna: Any = import_module("optuna")
    distributions = {
        name: optuna.distributions.IntDistribution(int(r.low), int(r.high), log=r.uses_log_scale)
        if r.is_integer
        else optuna.distributions.FloatDistribution(r.low, r.high, log=r.uses_log_scale)
        for name, r in ranges.items()
    }
    seed = int(make_rng(0, "search", num_started, attempt).integers(2**31))
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = _create_study(optuna, higher_is_better, sampler)
    trials: list[tuple[Mapping[str, Any], dict[str, Any]]] = [
        (
            all_settings(group.runs[0].config),
            {"value": float(group.summary.estimate[-1])},
        )
        for group in groups
    ]
    state = optuna.trial.TrialState.PRUNED
    trials += [
        (settings, {"state": state, "intermediate_values": scores}) for settings, scores in pruned
    ]
    for settings, outcome in trials:
        params = {name: settings.get(name) for name in ranges}
        # a resumed search may have narrower ranges, in which optuna accepts no older value
        if all(value is not None and value in ranges[name] for name, value in params.items()):
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, **outcome)
            )
    # constant_liar: trials that run count as bad, so that a batch spreads over the ranges
    proposals = [study.ask(distributions).params for _ in range(num_proposals)]
    # rounded in text: the value is part of a directory's name, by which a resumed search finds it
    return [
        [f"{name}={ranges[name].rounded(value):.10g}" for name, value in params.items()]
        for params in proposals
    ]
