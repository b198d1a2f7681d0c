"""Grouping of runs into experiments, and checks that evaluations can be compared."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, Floats, Summary, mean_worst_tasks
from metarl.experiment import SEED_INDEPENDENT, AnyConfig, differences
from metarl.intervals import summarise, summarise_success
from metarl.method import Method
from metarl.report.evaluations import BEST, Evaluation, all_settings_of, load_or_evaluate
from metarl.runs.run import Run

T = TypeVar("T")

# the same images may lie elsewhere: their checksums are compared
NOT_OF_EXPERIMENT = (*SEED_INDEPENDENT, "data.path")
# evaluation settings that may differ between compared methods; tables show them
METHOD_SPECIFIC = ("step_sizes", "steps")


@dataclass(frozen=True)
class ExperimentGroup:
    """One experiment of a comparison: runs that differ only in their seed.

    `steps_to_match` is the number of gradient steps to reach the score of the experiment `matched`
    after one step, as text; both are empty if it was not computed.
    """

    label: str  # its name in tables and plots
    runs: Sequence[Run]  # one per seed
    method: Method  # of the first run
    curves: Sequence[AdaptationCurve]  # of each run
    summary: Summary  # of all runs
    steps_to_match: str = ""
    matched: str = ""  # a label

    @property
    def samples(self) -> list[int]:
        """The number of training samples of each run."""
        return [run.description().samples for run in self.runs]

    @property
    def worst(self) -> Floats:
        """The mean score of the worst 5% of tasks at each stage, over all runs."""
        metric = self.method.problem.metric
        return mean_worst_tasks([curve.scores for curve in self.curves], metric)

    @property
    def success(self) -> Summary | None:
        """The success rates of all runs, if they are known."""
        return summarise_success(self.curves)

    def steps(self) -> list[dict[str, float]]:
        """One row per adaptation step: `step`, `estimate`, `low`, `high`, `worst` and `runs`.

        Also `success`, if it is known.
        """
        summary = self.summary
        columns = [summary.estimate, summary.low, summary.high, self.worst]
        names = ["estimate", "low", "high", "worst"]
        if self.success is not None:
            names, columns = [*names, "success"], [*columns, self.success.estimate]
        return [
            {"step": step, **dict(zip(names, map(float, numbers), strict=True))}
            | {"runs": len(self.runs)}
            for step, numbers in enumerate(zip(*columns, strict=True))
        ]


def compare(
    runs: Sequence[Run], load: Callable[[Run], Evaluation] = load_or_evaluate
) -> list[ExperimentGroup]:
    """Group runs into experiments, and evaluate those that have no current evaluation.

    Args:
        runs: the runs.
        load: gives the evaluation of a run; one of a command also shows its progress.

    Raises:
        UserError: if there is none, or their tasks or evaluation settings differ.
    """
    if not runs:
        raise UserError("name at least one run to compare")
    check_readable(runs)
    _check_same_tasks(runs)  # before evaluations, which take minutes
    evaluations = [load(run) for run in runs]
    _check_same_settings(evaluations)
    return group_experiments(evaluations)


def group_experiments(evaluations: Sequence[Evaluation]) -> list[ExperimentGroup]:
    """Group evaluations with the same settings, in the order of the registry of methods.

    Raises:
        UserError: if the test tasks differ, because another version of metarl sampled them.
    """
    _check_same_test_tasks(evaluations)
    # the config may have been evaluated with other settings, whose curves have no mean
    grouped = group_by(
        evaluations,
        lambda group, other: (
            _label(group[0]) == _label(other)
            and group[0].curve.scores.shape == other.curve.scores.shape
            and same_experiment(group[0].run.config, other.run.config)
            and same_evaluation(group[0], other)
        ),
    )
    labels = Counter(_label(group[0]) for group in grouped)
    names = short_names([evaluation.run.path for evaluation in evaluations])
    groups = []
    for group in grouped:
        _check_distinct_seeds(group)
        group.sort(key=lambda evaluation: evaluation.run.config.seed)
        first, label = group[0], _label(group[0])
        if labels[label] > 1:  # two experiments with one method, told apart by their directories
            name = PurePosixPath(names[first.run.path])
            folder = first.run.path.resolve().parent
            in_folder = [e for e in evaluations if e.run.path.resolve().parent == folder]
            if len(group) > 1 and len(name.parts) > 1 and all(e in group for e in in_folder):
                name = name.parent  # of all its seeds, and nothing else
            label += f" ({name})"
        runs = [evaluation.run for evaluation in group]
        curves = [evaluation.curve for evaluation in group]
        summary = summarise([curve.scores for curve in curves])
        groups.append(ExperimentGroup(label, runs, first.method, curves, summary))
    order = list(groups[0].method.problem.methods)
    # custom methods are not in the registry, and come last
    present = [group.runs[0].config.method.name for group in groups]
    order += [name for name in present if name not in order]
    return sorted(groups, key=lambda group: order.index(group.runs[0].config.method.name))


def _label(evaluation: Evaluation) -> str:
    start = evaluation.run.config.init_from
    continued = f", from {Path(start.run).name}" if start else ""
    return evaluation.method.label + continued + ", best checkpoint" * (evaluation.name == BEST)


def same_evaluation(first: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations of one method have the same settings, step sizes included."""
    return all_settings_of(first.method) == all_settings_of(other.method)


def same_experiment(config: AnyConfig, other: AnyConfig) -> bool:
    """Whether two configs differ only in their seed, in where the data are, and without effect."""
    ignored = seed_independent_fields(config)
    start, other_start = config.init_from, other.init_from
    if start and other_start and start.sha256 and start.sha256 == other_start.sha256:
        ignored += ("init_from.",)  # the same weights may lie elsewhere
    return not differences(config, other, ignored)


def seed_independent_fields(config: AnyConfig) -> tuple[str, ...]:
    """Prefixes of the settings that may differ between the seeds of one experiment."""
    return (*NOT_OF_EXPERIMENT, *config.unused_settings())


def _check_same_test_tasks(evaluations: Sequence[Evaluation]) -> None:
    first, *others = evaluations
    for other in others:
        # differences are paired by task: equal settings alone do not make the tasks equal, up to
        # the digits of a published run
        tasks, other_tasks = first.curve.tasks, other.curve.tasks
        if tasks.shape != other_tasks.shape or not np.allclose(tasks, other_tasks, 1e-6, 0.0):
            raise UserError(
                f"{other.run.path} was evaluated on other tasks than {first.run.path}, one of them "
                f"by another version of metarl; evaluate both again: metarl evaluate "
                f"{first.run.path} and metarl evaluate {other.run.path}"
            )


def _check_distinct_seeds(group: Sequence[Evaluation]) -> None:
    """Runs of one experiment with one seed are the same run: they would count as two samples."""
    for first, second in pairwise(sorted(group, key=lambda item: item.run.config.seed)):
        if first.run.config.seed == second.run.config.seed:
            raise UserError(
                f"{first.run.path} and {second.run.path} have the same settings and the same seed "
                f"({first.run.config.seed}): they count once; name one of them"
            )


def are_seeds(runs: Sequence[Run]) -> bool:
    """Whether runs differ in their seeds, and in nothing else that has an effect."""
    seeds, first = {run.config.seed for run in runs}, runs[0]
    return len(seeds) == len(runs) and all(
        same_experiment(first.config, run.config) and first.data_hashes() == run.data_hashes()
        for run in runs
    )


def meta_learners(groups: Sequence[ExperimentGroup]) -> list[ExperimentGroup]:
    """The meta-learners that adapt."""
    return [
        group
        for group in groups
        if group.method.role == "meta-learner" and len(group.summary.estimate) > 1
    ]


def check_readable(runs: Sequence[Run]) -> None:
    """Raise UserError if a run is damaged, or given twice."""
    for run in runs:
        run.description()
    check_unique(runs)


def check_unique(runs: Sequence[Run]) -> None:
    """Raise UserError if a run is given twice: it would count as two seeds."""
    keys = [(run.path.resolve(), run.uses_best) for run in runs]
    if repeated := [path for path, best in keys if keys.count((path, best)) > 1]:
        raise UserError(f"{repeated[0]} is given twice; name each run once")


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest distinct names of directories: the last parts of their paths."""
    names: dict[Path, str] = {}
    for path in paths:
        parts = path.resolve().parts
        others = {other.resolve().parts for other in paths} - {parts}
        length = 1
        while any(other[-length:] == parts[-length:] for other in others):
            length += 1
        names[path] = "/".join(parts[-length:])
    return names


def group_by_tasks(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs on the same tasks, in the order of their first runs."""
    return group_by(
        runs,
        lambda group, run: (
            not _task_differences(group[0], run) and group[0].data_hashes() == run.data_hashes()
        ),
    )


def group_by(items: Iterable[T], belongs: Callable[[Sequence[T], T], bool]) -> list[list[T]]:
    """Put each item into the first group that it belongs to, or else into a new one."""
    groups: list[list[T]] = []
    for item in items:
        for group in groups:
            if belongs(group, item):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _task_differences(first: Run, run: Run) -> list[str]:
    """The settings that make the tasks of two runs different."""
    return [
        difference
        for difference in differences(first.config, run.config, NOT_OF_EXPERIMENT)
        if difference.startswith(("family.", "data."))
    ]


def _check_same_tasks(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if changed := _task_differences(first, run):
            raise UserError(
                f"{run.path} uses different tasks from {first.path} ({'; '.join(changed)}): they "
                "cannot be compared"
            )
        run.check_data_hashes(first.data_hashes())


def evaluation_differences(first: Method, other: Method) -> dict[str, str]:
    """The evaluation settings, by name, that make the scores of two methods incomparable."""
    before = first.problem.evaluation_settings
    # `trajectories` is the number of episodes per gradient step, or the number that is averaged
    same_unit = other.adaptation_unit == first.adaptation_unit
    ignored = METHOD_SPECIFIC if same_unit else (*METHOD_SPECIFIC, "episodes_per_task")
    return {
        name: f"evaluation.{name}: {before.get(name)} → {value}"
        for name, value in other.problem.evaluation_settings.items()
        if value != before.get(name) and name not in ignored
    }


def _check_same_settings(evaluations: Sequence[Evaluation]) -> None:
    first, *others = evaluations
    for other in others:
        if changed := evaluation_differences(first.method, other.method):
            settings = first.method.problem.evaluation_settings
            fix = " ".join(
                f"--set evaluation.{name}={json.dumps(settings.get(name))}" for name in changed
            )
            path = other.run.path
            raise UserError(
                f"{path} and {first.run.path} were evaluated with different settings "
                f"({'; '.join(changed.values())}); evaluate with the same ones: metarl evaluate "
                f"{path} {fix}"
            )
