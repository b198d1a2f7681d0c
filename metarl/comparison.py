"""Runs side by side: who adapts best, on the same tasks, with the same budget."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.config import Config, EvaluationConfig, differences
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, adaptation_curve
from metarl.methods import LABELS
from metarl.plotting import step_name
from metarl.results import measured
from metarl.run import Run
from metarl.statistics import Summary, summarise
from metarl.training import inner_loop

# what may differ between runs that are training seeds of one experiment
SEED = ("seed", "device", "checkpoint_every", "evaluation.", "family.settings.num_threads")


@dataclass(frozen=True)
class Entry:
    """One experiment in a comparison: a method, and the runs that differ in their seed alone.

    Attributes:
        label: what to call it.
        runs: its runs.
        curves: the adaptation curve of each.
        summary: of all of them.
        catching_up: how many gradient steps it takes to the meta-policy's return after one, in
            words; empty where nobody asked.
    """

    label: str
    runs: Sequence[Run]
    curves: Sequence[AdaptationCurve]
    summary: Summary
    catching_up: str = ""

    @property
    def environment_steps(self) -> list[int]:
        """How many each run was trained with."""
        return [run.load().environment_steps for run in self.runs]


def compare(runs: Sequence[Run]) -> list[Entry]:
    """Group runs into experiments, in the order of `metarl.methods.LABELS`.

    Raises:
        UserError: if they are about different tasks, or were evaluated on different ones.
    """
    _check_families(runs)
    evaluated = [measured(run) for run in runs]
    _check_evaluations(runs, [settings for _, settings in evaluated])
    groups: list[list[int]] = []
    for index, run in enumerate(runs):
        for group in groups:
            if not differences(runs[group[0]].config, run.config, SEED):
                group.append(index)
                break
        else:
            groups.append([index])
    methods = Counter(runs[group[0]].config.method for group in groups)
    entries = []
    for group in groups:
        first = runs[group[0]]
        method = first.config.method
        label = LABELS[method]
        if methods[method] > 1:
            label += f" ({first.path.name})"
        curves = [evaluated[index][0] for index in group]
        summary = summarise([curve.returns for curve in curves])
        entries.append(Entry(label, [runs[index] for index in group], curves, summary))
    order = list(LABELS)
    return sorted(entries, key=lambda entry: order.index(entry.runs[0].config.method))


def with_catching_up(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Ask of those who fine-tune how many steps take them to the meta-policy's return after one.

    The first run of each goes on with the last of its step sizes.

    Args:
        entries: a comparison.
        most: after how many steps to give up.

    Raises:
        UserError: if no meta-policy is among them.
    """
    targets = [e.summary.centre[1] for e in entries if e.runs[0].config.method == "maml"]
    if not targets:
        raise UserError("--many-steps needs a meta-policy (method maml) to catch up with")
    asked = []
    for entry in entries:
        if entry.runs[0].config.method in ("pretrained", "random"):
            returns = _long_curve(entry, most).returns.mean(axis=0)
            reached = np.flatnonzero(returns >= max(targets))
            text = str(reached[0]) if len(reached) else f"more than {most}"
            entry = replace(entry, catching_up=text)
        asked.append(entry)
    return asked


def _long_curve(entry: Entry, steps: int) -> AdaptationCurve:
    run, sizes = entry.runs[0], entry.curves[0].step_sizes
    family, settings = run.config.load_family(), run.config.evaluation
    schedule = (*sizes, *[sizes[-1]] * steps)[:steps]
    return adaptation_curve(
        inner_loop(run.config, family),
        run.load().theta,
        family,
        settings.tasks,
        settings.trajectories,
        schedule,
        settings.seed,
    )


def _check_families(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        changed = [
            difference
            for difference in differences(first.config, run.config, SEED)
            if difference.startswith("family.")
        ]
        if changed:
            raise UserError(
                f"{run.path} is about other tasks than {first.path} ({'; '.join(changed)}): their "
                "returns cannot be compared"
            )


def _check_evaluations(runs: Sequence[Run], settings: Sequence[EvaluationConfig]) -> None:
    def config(evaluation: EvaluationConfig) -> Config:
        return runs[0].config.model_copy(update={"evaluation": evaluation})

    for run, evaluation in zip(runs[1:], settings[1:], strict=True):
        if changed := differences(config(settings[0]), config(evaluation)):
            fix = " ".join(f"--set {name.split(':')[0]}=…" for name in changed)
            raise UserError(
                f"{run.path} was evaluated otherwise than {runs[0].path} ({'; '.join(changed)}); "
                f"evaluate it alike: metarl evaluate {run.path} {fix}"
            )


def rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The comparison as a table: a row for each entry, by column name."""
    steps = max(len(entry.summary.centre) for entry in entries)
    table = []
    for entry in entries:
        row = {
            "method": entry.label,
            "seeds": ", ".join(str(run.config.seed) for run in entry.runs),
            "environment steps": _span(entry.environment_steps),
            "budget": _millions(_budget(entry.runs[0])),
            "step size": _step_sizes(entry.curves),
        }
        for k in range(steps):
            heading = "return before" if k == 0 else step_name(k)
            summary = entry.summary
            row[heading] = (
                f"{_short(summary.centre[k])} [{_short(summary.low[k])}, {_short(summary.high[k])}]"
                if k < len(summary.centre)
                else "–"
            )
        if any(other.catching_up for other in entries):
            row["steps to MAML's return after 1"] = entry.catching_up or "–"
        table.append(row)
    return table


def _span(steps: Sequence[int]) -> str:
    """The fewest and the most, in millions."""
    return " to ".join(dict.fromkeys([_millions(min(steps)), _millions(max(steps))]))


def _budget(run: Run) -> int:
    return run.config.budget(run.config.load_family().horizon)


def _millions(steps: int) -> str:
    return f"{steps / 1e6:.2f} M" if steps else "0"


def _short(value: float) -> str:
    """Three or four digits, as many as mean something."""
    return f"{value:.1f}" if abs(value) >= 100.0 else f"{value:.2f}"


def _step_sizes(curves: Sequence[AdaptationCurve]) -> str:
    """The first step size of each run, as it was trained for or chosen."""
    first = dict.fromkeys(f"{curve.step_sizes[0]:g}" for curve in curves if curve.step_sizes)
    return ", ".join(first) or "–"


def markdown(entries: Sequence[Entry]) -> str:
    """The table in Markdown."""
    table = rows(entries)
    lines = ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in table]
    return "\n".join([*lines, "", meaning(entries), ""])


def meaning(entries: Sequence[Entry]) -> str:
    """What the numbers of the table are, in a sentence."""
    meanings = list(dict.fromkeys(entry.summary.meaning for entry in entries))
    return f"Undiscounted return on unseen tasks: {'; '.join(meanings)}."


def training_curves(entry: Entry) -> Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Environment steps and returns in training, for each run; by "before" and "after" adaptation.

    A run that has no metrics, as those that come with the package, is left out.
    """
    curves: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {"before": [], "after": []}
    for run in entry.runs:
        metrics = run.metrics()
        if not metrics:
            continue
        steps = np.cumsum([line["environment_steps"] for line in metrics])
        names = [name for name in metrics[0] if name.startswith("return/")]
        curves["before"].append((steps, np.array([line[names[0]] for line in metrics])))
        if len(names) > 1:
            curves["after"].append((steps, np.array([line[names[-1]] for line in metrics])))
    return curves
