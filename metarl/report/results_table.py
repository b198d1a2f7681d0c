"""A table of the page of results: a row for each experiment, seed, and published figure."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

import yaml

from metarl.evaluation import Summary, mean_over_tasks
from metarl.method import AdaptationUnit
from metarl.report.comparison import markdown_table, minutes
from metarl.report.groups import OWN, Entry
from metarl.report.paired import Difference
from metarl.report.published import Published, in_words
from metarl.runs.run import Run

STAGES = (0, 1, 2, 3, 5, 10, 12)  # as far as a run goes
# settings of an evaluation that a section's title or another column tells
TOLD = {*OWN, "ways", "shots", "tasks", "trajectories"}
# what a row is of, its scores by stage, and what it took
Row = tuple[dict[str, str], dict[int, str], dict[str, str]]


def results_rows(
    groups: Sequence[Sequence[Entry]], known: Published | None, found: Sequence[Difference]
) -> list[dict[str, str]]:
    """A row for each experiment and protocol, for each of its seeds, and for each published one.

    Args:
        groups: the experiments on the same tasks, those that were evaluated alike together.
        known: what was published of these tasks.
        found: a meta-learner less others, for a column.
    """
    entries = [entry for group in groups for entry in group]
    settings = [entry.method.problem.evaluation_settings for entry in entries]
    varying = [
        name
        for name in settings[0]
        if name not in TOLD and any(other.get(name) != settings[0][name] for other in settings)
    ]
    rows = []
    for entry, less in zip(entries, _differences(entries, found), strict=True):
        (words, scores, cost), *of_seeds = _measured(entry, varying)
        rows += [(words, scores, less | cost), *of_seeds]
    if known:
        for method, figures in known.rows.items():
            words = {"": f"*published: {method}*", "tasks": str(known.tasks or "")}
            rows.append((words, {k: in_words(figure) for k, figure in figures.items()}, {}))
    reached = {k for _, scores, _ in rows for k in scores}
    stages = {_heading(k): k for k in STAGES if k in reached}
    first, _, last = rows[0]
    return [
        {name: words.get(name, "") for name in first}
        | {heading: scores.get(k, "–") for heading, k in stages.items()}
        | {name: cost.get(name, "") for name in last}
        for words, scores, cost in rows
    ]


def _measured(entry: Entry, varying: Sequence[str]) -> list[Row]:
    """The rows of one experiment: all seeds together, and each alone.

    Args:
        entry: the experiment.
        varying: settings of the evaluation that are not the same in all rows.
    """
    curve = entry.curves[0]
    sizes = dict.fromkeys(", ".join(f"{s:g}" for s in c.step_sizes[:3]) for c in entry.curves)
    unit: AdaptationUnit | None = entry.method.adaptation_unit
    how = f"1 {unit.name} per stage" if unit and not curve.step_sizes else " or ".join(sizes)
    if len(curve.step_sizes) > 3:
        how += ", …"
    settings = entry.method.problem.evaluation_settings
    common = {name: yaml.safe_dump(settings.get(name)).split("\n")[0] for name in varying}
    common["step sizes"] = how or "–"
    if curve.episodes:
        common["episodes a stage"] = str(curve.episodes[1]) if len(curve.episodes) > 1 else "–"

    def row(label: str, runs: Sequence[Run], summary: Summary) -> Row:
        seeds = ", ".join(str(run.config.seed) for run in runs)
        words = {"": label, **common, "seeds": seeds, "tasks": str(len(curve.tasks))}
        return words, {k: summary.after(k) for k in range(len(summary.estimate))}, cost(runs)

    def cost(runs: Sequence[Run]) -> dict[str, str]:
        samples = [run.checkpoint().description.samples for run in runs]
        return {
            entry.method.problem.metric.samples: f"{fmean(samples) / 1e6:.2f} M",
            "minutes": minutes(runs),
        }

    rows = [row(entry.label, entry.runs, entry.summary)]
    if len(entry.runs) > 1:
        for run, each in zip(entry.runs, entry.curves, strict=True):
            label = f"{entry.label}, seed {run.config.seed}"
            rows.append(row(label, [run], mean_over_tasks(each.scores)))
    return rows


def _differences(entries: Sequence[Entry], found: Sequence[Difference]) -> list[dict[str, str]]:
    """For each experiment a column: by how much another is above it after a step, task by task."""
    firsts = list(dict.fromkeys(each.first.label for each in found))
    heading = f"{firsts[0] if len(firsts) == 1 else 'a meta-learner'} less it, after 1"
    less = {id(each.first): "itself" for each in found} | {
        id(each.second): each.summary.after(1)
        + (f" ({each.first.label})" if len(firsts) > 1 else "")
        for each in found
    }
    return [{heading: less.get(id(entry), "–")} if found else {} for entry in entries]


def _heading(stage: int) -> str:
    return "before" if stage == 0 else f"after {stage}"


def with_minus(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in which a minus is one, where it is before a number and not part of a command."""
    return re.sub(r"(?<=[ \[])-(?=\d)", "−", markdown_table(rows))
