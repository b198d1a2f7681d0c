"""Runs grouped into experiments, and what may be compared: the same tasks, measured alike."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, Summary, summarise
from metarl.experiment import SEED, AnyConfig, differences
from metarl.method import Method, method_class
from metarl.report.evaluations import Evaluated, measured
from metarl.runs.run import Run

Thing = TypeVar("Thing")

# how a method adapts is its own business; the table tells it
OWN = ("step_sizes", "steps")


@dataclass(frozen=True)
class Entry:
    """One experiment in a comparison: a method, and the runs that differ in their seed alone.

    Attributes:
        label: what to call it.
        runs: its runs.
        method: of the first run.
        curves: the adaptation curve of each.
        summary: of all of them.
        steps_to_match: how many gradient steps it takes to where MAML is after one, in words; empty
            where nobody asked.
    """

    label: str
    runs: Sequence[Run]
    method: Method
    curves: Sequence[AdaptationCurve]
    summary: Summary
    steps_to_match: str = ""

    @property
    def samples(self) -> list[int]:
        """How many each run was trained with."""
        return [run.load().samples for run in self.runs]


def compare(runs: Sequence[Run]) -> list[Entry]:
    """Evaluate runs where they were not, and put them side by side.

    Args:
        runs: what to compare.

    Raises:
        UserError: if they are about different tasks, or were evaluated on different ones.
    """
    refuse_twice(runs)
    _check_tasks(runs)
    evaluated = [measured(run) for run in runs]
    _check_evaluations(evaluated)
    return experiments(evaluated)


def experiments(evaluated: Sequence[Evaluated]) -> list[Entry]:
    """Group what was evaluated alike, in the order of the domain's registry of methods.

    Raises:
        UserError: if the tasks were not the same, because another version of metarl drew them.
    """
    _check_tasks_drawn(evaluated)
    groups = gathered(evaluated, _same_experiment)
    labels = Counter(group[0].method.label for group in groups)
    names = short_names([each.run.path for each in evaluated])
    entries = []
    for group in groups:
        group.sort(key=lambda each: each.run.config.seed)
        first = group[0]
        label = first.method.label
        if labels[label] > 1:
            label += f" ({names[first.run.path]})"
        runs, curves = [each.run for each in group], [each.curve for each in group]
        summary = summarise([curve.scores for curve in curves])
        entries.append(Entry(label, runs, first.method, curves, summary))
    order = list(entries[0].method.problem.methods)
    # whatever is not registered is somebody's own, and comes last
    present = [entry.runs[0].config.method.name for entry in entries]
    order += [name for name in present if name not in order]
    return sorted(entries, key=lambda entry: order.index(entry.runs[0].config.method.name))


def _same_experiment(group: Sequence[Evaluated], other: Evaluated) -> bool:
    first = group[0]
    as_far = first.curve.scores.shape == other.curve.scores.shape
    return as_far and same_experiment(first.run.config, other.run.config)


def same_experiment(config: AnyConfig, other: AnyConfig) -> bool:
    """Whether these are training seeds of one experiment."""
    return not differences(config, other, free(config))


def free(config: AnyConfig) -> tuple[str, ...]:
    """How settings begin that may differ between training seeds of the same experiment.

    What baselines are told is nothing to a meta-learner.
    """
    return (*SEED, "baseline.") if method_class(config).role == "meta-learner" else SEED


def _check_tasks_drawn(evaluated: Sequence[Evaluated]) -> None:
    first, *others = evaluated
    for other in others:
        if not np.array_equal(first.curve.tasks, other.curve.tasks):
            raise UserError(
                f"{other.run.path} was evaluated on other tasks than {first.run.path}, one of them "
                f"by another version of metarl; evaluate both anew: metarl evaluate "
                f"{first.run.path} and metarl evaluate {other.run.path}"
            )


def meta_learners(entries: Sequence[Entry]) -> list[Entry]:
    """Those that adapt."""
    return [
        entry
        for entry in entries
        if entry.method.role == "meta-learner" and len(entry.summary.estimate) > 1
    ]


def refuse_twice(runs: Sequence[Run]) -> None:
    """Raise UserError if a run is named twice: it would count as two seeds."""
    paths = [run.path.resolve() for run in runs]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]} is named twice; a run counts once")


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What to call directories: by their last part, or as many as tell them apart."""
    names: dict[Path, str] = {}
    for path in paths:
        whole = path.resolve().parts
        others = {other.resolve().parts for other in paths} - {whole}
        length = 1
        while any(other[-length:] == whole[-length:] for other in others):
            length += 1
        names[path] = "/".join(whole[-length:])
    return names


def by_tasks(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that can be compared with one another, in the order of their first ones."""
    return gathered(runs, lambda group, run: not _other_tasks(group[0], run))


def gathered(
    things: Iterable[Thing], fits: Callable[[Sequence[Thing], Thing], bool]
) -> list[list[Thing]]:
    """Things in groups, each in the first one that it fits into, else in one of its own."""
    groups: list[list[Thing]] = []
    for thing in things:
        for group in groups:
            if fits(group, thing):
                group.append(thing)
                break
        else:
            groups.append([thing])
    return groups


def _other_tasks(first: Run, run: Run) -> list[str]:
    """Which settings make the tasks of one run others than those of another."""
    return [
        difference
        for difference in differences(first.config, run.config, SEED)
        if difference.startswith(("family.", "data."))
    ]


def _check_tasks(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        run.check_data_hashes(first.data_hashes())
        changed = _other_tasks(first, run)
        if changed:
            raise UserError(
                f"{run.path} is about other tasks than {first.path} ({'; '.join(changed)}): they "
                "cannot be compared"
            )


def other_evaluation(first: Method, other: Method) -> dict[str, str]:
    """By name, the settings because of which scores of two methods cannot be compared."""
    before = first.problem.evaluation_settings
    # by gradients, how many episodes a step takes; else, how many are averaged
    own = OWN if other.adaptation_unit == first.adaptation_unit else (*OWN, "trajectories")
    return {
        name: f"evaluation.{name}: {before.get(name)} → {value}"
        for name, value in other.problem.evaluation_settings.items()
        if value != before.get(name) and name not in own
    }


def _check_evaluations(evaluated: Sequence[Evaluated]) -> None:
    first, *others = evaluated
    for other in others:
        if changed := other_evaluation(first.method, other.method):
            fix = " ".join(f"--set evaluation.{name}=…" for name in changed)
            path = other.run.path
            raise UserError(
                f"{path} was evaluated otherwise than {first.run.path} "
                f"({'; '.join(changed.values())}); evaluate it alike: metarl evaluate {path} {fix}"
            )
