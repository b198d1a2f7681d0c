"""`metarl bench`."""

import argparse
import json
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from metarl.bench.hardware import hardware_limits
from metarl.bench.parts import PARTS
from metarl.bench.tables import part_table
from metarl.bench.timing import run_in_subprocess
from metarl.cli.arguments import set_help
from metarl.cli.output import print_line
from metarl.errors import UserError
from metarl.io import write_atomically
from metarl.progress import show_status
from metarl.runs.provenance import machine, package_commit
from metarl.threads import processors

DESCRIPTION = """\
Measure speed and memory relative to hardware limits: medians and ratios on this machine.

  sampling    the sampler, compared with plain MuJoCo physics and Gymnasium's vector environments
  iteration   a meta-iteration and its parts
  growth      scaling of time and memory with tasks N, trajectories B and horizon H
  supervised  a meta-iteration on waves and on images (noise: no data set is needed)
  contention  an iteration of every method, single and with a concurrent training

The hardware limits (roofline) are measured first, and figures are shares of them. All parts take
about twenty minutes on two idle processors."""

EXAMPLES = """\
examples:
  metarl bench
  metarl bench iteration --repeats 9 --out today.json
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _bench)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="R", help="number of repeats (default: 5)"
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
    with show_status(console, "measuring hardware limits"):
        limits = run_in_subprocess(hardware_limits, options.repeats)
    results["limits"] = limits
    print_line(
        console,
        f"hardware limits: matrix products {limits['product']:.0f} GFLOP/s, "
        f"memory {limits['memory']:.1f} GB/s",
    )
    for name in options.parts or PARTS:
        part, figures = PARTS[name], {}
        for number, case in enumerate(part.cases, start=1):
            with show_status(console, f"measuring {name}: {case} ({number} of {len(part.cases)})"):
                figures[case] = part.run(case, options.repeats)
        results[name] = figures
        console.print(part_table(name, figures, limits))
        try:
            write_atomically(options.out, json.dumps(results, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {options.out} ({error.strerror})") from error
    print_line(console, f"figures: {options.out}")
    return 0
