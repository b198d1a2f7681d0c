"""`metarl bench`."""

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import describe
from metarl.errors import UserError
from metarl.files import write_atomically
from metarl.processors import processors
from metarl.progress import working
from metarl.runs.benchmark import (
    GROWTH,
    ITERATED,
    SAMPLED,
    SUPERVISED,
    Figures,
    Question,
    alone,
    iteration,
    sampling,
    supervised,
)
from metarl.runs.run import machine, package_commit

DESCRIPTION = """\
Measure how far training is from what the hardware allows, as medians and ratios of one run:

  sampling    the whole sampler, against plain MuJoCo physics and gymnasium's vector environments
  iteration   a meta-iteration, and what its parts cost
  growth      how time and memory grow with tasks N, trajectories B and horizon H
  supervised  a meta-iteration on waves and on images (of noise: no data are needed)

Takes about a quarter of an hour on two processors, with nothing else running."""

EXAMPLES = """\
examples:
  metarl bench
  metarl bench iteration --repeats 9 --out today.json
"""

PARTS: Mapping[str, tuple[Callable[..., Figures], Mapping[str, Question]]] = {
    "sampling": (sampling, SAMPLED),
    "iteration": (iteration, ITERATED),
    "growth": (iteration, GROWTH),
    "supervised": (supervised, SUPERVISED),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _bench)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all of them)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="R", help="how many times (default: 5)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench.json"), metavar="FILE", help="default: bench.json"
    )


def _bench(options: argparse.Namespace, console: Console) -> int:
    if unknown := set(options.parts) - set(PARTS):
        raise UserError(f"there is no part {unknown.pop()!r}; the parts are {', '.join(PARTS)}")
    if options.repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {options.repeats}")
    results: dict[str, object] = {
        "date": date.today().isoformat(),
        "commit": package_commit(),
        "processors": processors(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("metarl-maml", "torch", "mujoco", "numpy")},
        "repeats": options.repeats,
    }
    for part in options.parts or PARTS:
        figures: dict[str, Figures] = {}
        measure, questions = PARTS[part]
        for number, (name, (config, overrides)) in enumerate(questions.items(), start=1):
            with working(console, f"measuring {part}: {name} ({number} of {len(questions)})"):
                figures[name] = alone(measure, config, overrides, options.repeats)
        results[part] = figures
        console.print(_table(part, figures))
        try:
            write_atomically(options.out, json.dumps(results, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {options.out} ({error.strerror})") from error
    console.print(f"figures: {options.out}", highlight=False, soft_wrap=True)
    return 0


def _headed(title: str, *headings: str) -> Table:
    """A table with these columns, of whose headings 80 columns cut no word."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for number, heading in enumerate(headings):
        widest = max(map(len, heading.split()))
        table.add_column(
            heading, justify="right" if number else "left", min_width=widest, overflow="fold"
        )
    return table


def _table(part: str, figures: Mapping[str, Figures]) -> Table:
    match part:
        case "sampling":
            return _sampling(figures)
        case "supervised":
            return _supervised(figures)
        case _:
            return _iteration(part, figures)


def _supervised(figures: Mapping[str, Figures]) -> Table:
    title = "supervised: milliseconds of a meta-iteration, and GB of memory"
    table = _headed(title, "experiment", "whole", "drawing", "share", "GB")
    for name, f in figures.items():
        whole, drawing = f["iteration"], f["drawing"]
        table.add_row(
            name,
            f"{1e3 * whole:.2f}",
            f"{1e3 * drawing:.2f}",
            f"{drawing / whole:.1%}",
            f"{f['memory']:.2f}",
        )
    return table


def _sampling(figures: Mapping[str, Figures]) -> Table:
    measured, ratios = ("physics", "observed", "sampler"), ("of physics", "of observed")
    title = "sampling: thousand environment steps a second"
    table = _headed(title, "family", *measured, *ratios, "× sync", "× async")
    for name, f in figures.items():
        table.add_row(
            name,
            *(f"{f[kind] / 1e3:.1f}" for kind in measured),
            f"{f['sampler'] / f['physics']:.0%}",
            f"{f['sampler'] / f['observed']:.0%}",
            f"{f['sampler'] / f['sync']:.0f}",
            f"{f['sampler'] / f['async']:.0f}",
        )
    return table


def _iteration(title: str, figures: Mapping[str, Figures]) -> Table:
    names = ("sampling", "learning", "adapt", "gradient", "curvature", "line search")
    title = f"{title}: seconds of a meta-iteration, and GB of memory"
    table = _headed(title, "experiment", "whole", *names, "GB")
    for name, f in figures.items():
        whole = f["sampling"] + f["learning"]
        table.add_row(
            name, f"{whole:.2f}", *(f"{f[kind]:.2f}" for kind in names), f"{f['memory']:.2f}"
        )
    return table
