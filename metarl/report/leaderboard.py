"""All scores of the results pages in one table for programs, as CSV and as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from metarl.io import translate_os_errors, write_atomically
from metarl.report.groups import ExperimentGroup
from metarl.report.published import Published, estimates
from metarl.report.text_tables import csv_table
from metarl.report.training_curves import mean_training_minutes, minutes_to_score


def leaderboard_entries(
    tasks: str, settings: str, groups: Sequence[ExperimentGroup], published: Published | None
) -> Iterator[dict[str, Any]]:
    """An entry for each method on some tasks, with its scores before and after each step.

    A method has several entries if its runs were evaluated in several ways: `evaluation` has the
    settings, such as the step sizes, or for Meta-World the split of the tasks.

    Scores have 95% intervals, over seeds if there are several, otherwise over tasks, and the number
    of `episodes` (or labelled examples, `instances`) of a new task until then. `samples`
    (environment steps, or tasks) and `minutes` of training are means over seeds. Of policies,
    `minutes_to_published` is the median time until MAML's published score after one step.

    Args:
        tasks: the name of the tasks.
        settings: of the tasks, apart from those that the name has.
        groups: evaluated experiments on these tasks.
        published: the published results for these tasks.
    """
    for group in groups:
        figures = estimates(published.rows.get(group.method.label, {})) if published else {}
        minutes = mean_training_minutes(group.runs)
        curve, unit = group.curves[0], group.method.adaptation_unit
        target, metric = published.target if published else None, group.method.problem.metric
        reached = None if target is None else minutes_to_score(group.runs, metric, target)
        yield {
            "tasks": tasks,
            "settings": settings,
            "metric": metric.name,
            "method": group.label,
            "unit": unit.name if unit else "",
            "evaluation": {"tasks": len(curve.tasks)} | group.method.problem.evaluation_settings,
            "seeds": [run.config.seed for run in group.runs],
            "samples": round(fmean(group.samples)),
            "minutes": _round(minutes),
            "minutes_to_published": _round(reached),
            "scores": [
                {
                    "step": step,
                    "episodes": curve.episodes[step] if curve.episodes else None,
                    "instances": curve.instances[step] if curve.instances else None,
                    **{name: _round(row[name]) for name in ("estimate", "low", "high", "worst")},
                    "success": _round(row.get("success")),
                    "published": figures.get(step),
                }
                for step, row in enumerate(group.steps())
            ],
        }


def write_leaderboard(entries: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write the entries to leaderboard.json, and to leaderboard.csv with a row for each score."""
    rows = [
        {
            **{name: value for name, value in entry.items() if name != "scores"},
            "seeds": " ".join(map(str, entry["seeds"])),
            "evaluation": json.dumps(entry["evaluation"]),
            **score,
        }
        for entry in entries
        for score in entry["scores"]
    ]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    files = {folder / "leaderboard.csv": csv_table(rows)}
    files[folder / "leaderboard.json"] = f"[\n{lines}\n]\n"
    with translate_os_errors(folder):
        for file, text in files.items():
            write_atomically(file, text)
    return list(files)


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
