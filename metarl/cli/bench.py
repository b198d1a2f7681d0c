"""`metarl bench`."""

import argparse
import json
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import set_help
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import working
from metarl.threads import processors

if TYPE_CHECKING:
    from metarl.bench.measurements import Figures

DESCRIPTION = """\
Measure how far training is from what the hardware allows, as medians and ratios of one run:

  sampling    the whole sampler, against plain MuJoCo physics and gymnasium's vector environments
  iteration   a meta-iteration, and what its parts cost
  growth      how time and memory grow with tasks N, trajectories B and horizon H
  supervised  a meta-iteration on waves and on images (of noise: no data are needed)
  contention  an iteration of every method, alone and with another such training beside it

What the machine can do at most, its floors, is measured first, and figures are shares of it. Takes
about twenty minutes on two processors, with nothing else running."""

EXAMPLES = """\
examples:
  metarl bench
  metarl bench iteration --repeats 9 --out today.json
"""

PARTS = ("sampling", "iteration", "growth", "supervised", "contention")
# whose process must be free to start others, a training each
IN_THIS_PROCESS = ("contention",)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _bench)
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
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.bench import measurements as benchmark
    from metarl.runs.provenance import machine, package_commit

    results: dict[str, object] = {
        "date": date.today().isoformat(),
        "commit": package_commit(),
        "processors": processors(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("metarl-maml", "torch", "mujoco", "numpy")},
        "repeats": options.repeats,
    }
    with working(console, "measuring what this machine can do"):
        results["floors"] = limits = benchmark.alone(benchmark.floors, options.repeats)
    console.print(
        f"floors: matrix products {limits['product']:.0f} GFLOP/s, "
        f"memory {limits['memory']:.1f} GB/s",
        highlight=False,
    )
    for part in options.parts or PARTS:
        figures: dict[str, Figures] = {}
        measure, questions = benchmark.PARTS[part]
        for number, (name, (config, overrides)) in enumerate(questions.items(), start=1):
            with working(console, f"measuring {part}: {name} ({number} of {len(questions)})"):
                asked = (config, overrides, options.repeats)
                inside = part in IN_THIS_PROCESS
                figures[name] = measure(*asked) if inside else benchmark.alone(measure, *asked)
        results[part] = figures
        console.print(_table(part, figures, limits))
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


def _table(part: str, figures: Mapping[str, "Figures"], limits: "Figures") -> Table:
    match part:
        case "sampling":
            return _sampling(figures)
        case "supervised":
            return _supervised(figures)
        case "contention":
            return _contention(figures)
        case "growth":
            return _growth(figures, limits)
        case _:
            return _iteration(figures, limits)


def _supervised(figures: Mapping[str, "Figures"]) -> Table:
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


def _sampling(figures: Mapping[str, "Figures"]) -> Table:
    table = _headed(
        "sampling: thousand environment steps a second",
        "family",
        "thousand steps/s",
        "the sampler is",
    )
    kinds = {
        "physics": "plain physics",
        "observed": "physics with observations",
        "sync": "SyncVectorEnv",
        "async": "AsyncVectorEnv",
    }
    for name, f in figures.items():
        table.add_section()
        table.add_row(name, f"{f['sampler'] / 1e3:.1f}")
        for kind, words in kinds.items():
            ratio = f["sampler"] / f[kind]
            times = f"{ratio:.0f} times" if ratio >= 1.5 else f"{ratio:.0%}"
            table.add_row(f"  {words}", f"{f[kind] / 1e3:.1f}", f"{times} that")
    return table


def _iteration(figures: Mapping[str, "Figures"], limits: "Figures") -> Table:
    table = _headed(
        "iteration: seconds of a meta-iteration and of its parts",
        "experiment",
        "seconds",
        "GFLOP",
        "GFLOP/s",
        "of products",
    )
    for name, f in figures.items():
        whole = f["sampling"] + f["learning"]
        table.add_section()
        table.add_row(f"{name} ({f['memory']:.2f} GB)", f"{whole:.2f}")
        f = {**f, "GFLOP learning": _learnt(f)}
        for part in ("sampling", "adapt", "learning", "gradient", "curvature", "line search"):
            row = _arithmetic(f[part], f.get(f"GFLOP {part}"), limits)
            indent = "  " if part in ("sampling", "learning") else "    "
            table.add_row(indent + part, f"{f[part]:.2f}", *row)
    return table


def _learnt(f: "Figures") -> float:
    """The arithmetic of learning, with one candidate of the line search."""
    return sum(f[f"GFLOP {part}"] for part in ("gradient", "curvature", "line search"))


def _arithmetic(seconds: float, count: float | None, limits: "Figures") -> tuple[str, ...]:
    if count is None:
        return ()
    rate = count / seconds
    return f"{count:.1f}", f"{rate:.0f}", f"{rate / limits['product']:.0%}"


def _growth(figures: Mapping[str, "Figures"], limits: "Figures") -> Table:
    table = _headed(
        "growth: seconds of a meta-iteration on point navigation",
        "size",
        "whole",
        "sampling",
        "learning",
        "of products",
        "memory, GB",
    )
    for name, f in figures.items():
        table.add_row(
            name,
            f"{f['sampling'] + f['learning']:.2f}",
            f"{f['sampling']:.2f}",
            f"{f['learning']:.2f}",
            _arithmetic(f["learning"], _learnt(f), limits)[-1],
            f"{f['memory']:.2f}",
        )
    return table


def _contention(figures: Mapping[str, "Figures"]) -> Table:
    table = _headed(
        "contention: seconds of an iteration", "method", "alone", "two at once", "ratio"
    )
    for name, f in figures.items():
        ratio = f["beside"] / f["alone"]
        table.add_row(name, f"{f['alone']:.3f}", f"{f['beside']:.3f}", f"{ratio:.2f}")
    return table
