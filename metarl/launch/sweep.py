"""Many runs in one directory: values of settings, each with the same seeds, and what came of them.

    OUT/seed-1                          of one experiment
    OUT/inner.step_size=0.1/seed-1      where settings are varied

The directory is what is known of a sweep: a run that is there belongs to it.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import UserError
from metarl.experiment import CONFIG, SEED_INDEPENDENT, AnyConfig, differences, flatten
from metarl.report.groups import ExperimentGroup
from metarl.runs.run import Run


def members(folder: Path) -> list[Path]:
    """The runs of a sweep, in order."""
    found = {file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{CONFIG}")}
    return sorted(found, key=lambda path: [_natural(part) for part in path.parts])


def _natural(text: str) -> list[tuple[float, str]]:
    """Numbers within a name in their own order."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]


def gather(
    folder: Path,
    planned: Mapping[Path, AnyConfig],
    resume: bool,
    overrides: tuple[str, ...] = (),
    trust_code: bool = False,
) -> list[Run]:
    """The runs of a sweep: those that are planned, made where they are missing.

    Args:
        folder: the sweep's directory.
        planned: configs by their place in it; empty for whatever is there already.
        resume: whether runs may be there already.
        overrides: settings that may change, such as `outer.iterations=500`, where nothing is
            planned.
        trust_code: import what the configs of those name that is not of this package.

    Raises:
        UserError: if runs are there and may not be, or are none, or were made otherwise.
    """
    present = members(folder)
    if (folder / CONFIG).exists():
        raise UserError(f"{folder} holds a single run; name another directory with --out")
    if present and not resume:
        raise UserError(
            f"{folder} already holds {len(present)} runs; go on with them with --resume {folder}, "
            "or name another directory with --out"
        )
    if not (present or planned):
        raise UserError(f"there is no run in {folder}; name a config and its seeds to begin")
    runs = {
        path: Run.open(path, () if planned else overrides, trust_code)
        for path in present
        if not planned or path.relative_to(folder) in planned
    }
    for place, config in planned.items():
        if (path := folder / place) in runs:
            runs[path].reconfigure(config)
    for place, config in planned.items():
        if (path := folder / place) not in runs:
            runs[path] = Run.create(path, config)
    for run in runs.values():
        run.save_config()
    order = [folder / place for place in planned] or list(runs)
    return [runs[path] for path in order]


def varied(entries: Sequence[ExperimentGroup]) -> list[str]:
    """The settings in which experiments differ."""
    first, *others = [entry.runs[0].config for entry in entries]
    changed = [change for other in others for change in differences(first, other, SEED_INDEPENDENT)]
    names = {change.partition(":")[0] for change in changed}
    # in the order of the config; what only others have comes last
    return sorted(names, key=[*flatten(first.model_dump()), *sorted(names)].index)


def ranked(entries: Sequence[ExperimentGroup]) -> list[ExperimentGroup]:
    """Experiments, the best after all of its adaptation first."""
    sign = -1.0 if entries[0].method.problem.metric.higher_is_better else 1.0
    return sorted(entries, key=lambda entry: sign * entry.summary.estimate[-1])


def settings_of(entry: ExperimentGroup, names: Sequence[str]) -> list[str]:
    """The values of these settings, as one writes them."""
    values = flatten(entry.runs[0].config.model_dump(mode="json"))
    return [_text(values.get(name)) for name in names]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def as_csv(entries: Sequence[ExperimentGroup]) -> str:
    """A row for each experiment: its settings, its runs, its scores with their intervals."""
    names, text = varied(entries), io.StringIO()
    metric = entries[0].method.problem.metric.name
    stages = max(len(entry.summary.estimate) for entry in entries)
    scores = [f"{metric}_after_{k}_steps" for k in range(stages)]
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{score}{part}" for score in scores for part in ("", "_low", "_high")]
    writer.writerow([*names, "seeds", *columns])
    for entry in entries:
        seeds = " ".join(str(run.config.seed) for run in entry.runs)
        summary = entry.summary
        limits = zip(summary.estimate, summary.low, summary.high, strict=True)
        numbers = [float(number) for stage in limits for number in stage]
        numbers_and_gaps = [*numbers, *[""] * (len(columns) - len(numbers))]
        writer.writerow([*settings_of(entry, names), seeds, *numbers_and_gaps])
    return text.getvalue()
