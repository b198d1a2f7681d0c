"""A run in its published form: everything that tables and plots read, and if asked for the weights.

    config.yaml        unchanged
    state.json         iteration, samples, the weights' SHA-256, commit, machine, versions
    evaluation*.json   tasks rounded to eight significant digits, scores to five; without rewards
    metrics.jsonl      scores and success before and after adaptation, samples and times, in at
                       most 50 lines
    weights-*          unchanged, with `weights`; the run can then be loaded, rendered and evaluated

`metarl train NAME/config.yaml` trains it again.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from metarl.config.files import CONFIG
from metarl.errors import UserError
from metarl.evaluation import SUCCESS, Metric
from metarl.experiment import dump_config
from metarl.io import read_bytes, translate_os_errors, write_atomically
from metarl.method import load_method
from metarl.report.evaluations import (
    MAX_BYTES,
    evaluation_names,
    load_or_evaluate,
    read_evaluation,
)
from metarl.runs.checkpoint import STATE
from metarl.runs.metrics import METRICS, TIMES, score_names
from metarl.runs.run import Run

MAX_LINES = 50
# significant digits; comparisons check that tasks are equal up to 1e-6
DIGITS = {"mean": 8, "interval_95": 8, "scores": 5, "tasks": 8}
# of state.json; its `config` is config.yaml, and `order` and `pending` belong to the weights
RECORDED = ("iteration", "samples", "sha256", "provenance", "commit", "machine", "versions")
WITH_WEIGHTS = ("weights", "order", "pending")


def check_empty(folder: Path) -> None:
    """Raise UserError if a folder to publish to holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; remove it, or publish to another directory")


def publish(run: Run, folder: Path, weights: bool = False) -> None:
    """Write a run into an empty or new folder. Missing evaluations are made first.

    Args:
        run: a trained run.
        folder: where to write it.
        weights: whether its weights are written too.

    Raises:
        UserError: if the run is damaged or being trained, or the folder holds something.
        StorageError: if something cannot be written.
    """
    check_empty(folder)
    run.check_idle()
    run.checkpoint()  # raises if it is damaged: state.json is read as it is below
    state = json.loads((run.path / STATE).read_text())
    kept = (*RECORDED, *WITH_WEIGHTS) if weights else RECORDED
    files = {
        CONFIG: dump_config(run.config),
        STATE: _lines({"weights": None} | {key: state[key] for key in kept if key in state}),
    }
    first_with: dict[str, str] = {}  # the file that lists these tasks
    for name in evaluation_names(run):
        stored = load_or_evaluate(run, name)
        assert stored.file is not None
        values = json.loads(read_bytes(stored.file, MAX_BYTES))
        # which may be in another file
        values["tasks"] = read_evaluation(stored.file.parent, stored.file.name).tasks
        evaluation = {
            key: _round(value, DIGITS[key]) if key in DIGITS else value
            for key, value in values.items()
            if key != "rewards"
        }
        evaluation["settings"] = stored.method.problem.evaluation_settings
        tasks = _dump(evaluation["tasks"])
        if tasks in first_with:  # the scores of 600 tasks are short, their classes are not
            evaluation["tasks"] = first_with[tasks]
        first_with.setdefault(tasks, stored.file.name)
        files[stored.file.name] = _lines(evaluation)
    metrics = thin_metrics(run.metrics(), load_method(run.config).problem.metric)
    if metrics:
        files[METRICS] = "".join(_dump(line) + "\n" for line in metrics)
    with translate_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_atomically(folder / file, text)
        if weights:
            copyfile(run.path / state["weights"], folder / state["weights"])


def thin_metrics(
    metrics: Sequence[Mapping[str, float]], metric: Metric, max_lines: int = MAX_LINES
) -> list[dict[str, float]]:
    """Training metrics in at most `max_lines` lines, as if they had been reported less often.

    A line of metrics stands for the iterations since the line before: scores and times are means
    over them, samples a sum. Lines of equal numbers are merged by the same rule, so that the
    samples of a curve and the minutes of training stay the same.
    """
    if not metrics:
        return []
    kept = [
        name
        for prefix in (metric.name, SUCCESS)
        for names in score_names(metrics[0], prefix)
        for name in names
    ]
    sampled = metric.samples.replace(" ", "_")
    size = -(-len(metrics) // max_lines)  # ⌈lines / max_lines⌉
    ends = [line["iteration"] for line in metrics]
    # a line is a mean over the iterations since the one before, which weight it
    gaps = [end - start for start, end in pairwise([0, *ends])]
    lines = []
    for first in range(0, len(metrics), size):
        chunk, weights = metrics[first : first + size], gaps[first : first + size]

        def mean(values: Sequence[float], weights: Sequence[float] = weights) -> float:
            return float(f"{np.average(values, weights=weights):.6g}")

        lines.append(
            {"iteration": chunk[-1]["iteration"]}
            | {name: mean([line[name] for line in chunk]) for name in kept}
            | {sampled: sum(int(line[sampled]) for line in chunk)}
            | {"time/iteration": mean([sum(line.get(t, 0.0) for t in TIMES) for line in chunk])}
        )
    return lines


def _round(value: Any, digits: int) -> Any:
    """Numbers to so many significant digits, whole ones as integers, also within lists."""
    if isinstance(value, list):
        return [_round(part, digits) for part in value]
    number = float(f"{value:.{digits}g}")
    return int(number) if number.is_integer() else number


def _lines(values: Mapping[str, Any]) -> str:
    """JSON with a line for each key."""
    return "{\n" + ",\n".join(f"{_dump(k)}: {_dump(v)}" for k, v in values.items()) + "\n}\n"


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
