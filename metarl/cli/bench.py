"""`metarl bench`."""

import argparse
import json
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec

from rich.console import Console

from metarl.bench.hardware import hardware_limits
from metarl.bench.parts import PARTS
from metarl.bench.tables import TABLES
from metarl.bench.timing import run_in_subprocess
from metarl.cli.arguments import OTHER_FILE
from metarl.errors import UserError
from metarl.io import check_writable, report_os_errors, write_atomically
from metarl.progress import print_line, show_status
from metarl.runs.provenance import machine, package_commit
from metarl.threads import processors


def run(options: argparse.Namespace, console: Console) -> int:
    if unknown := set(options.parts) - set(PARTS):
        raise UserError(f"there is no part {unknown.pop()!r}; the parts are {', '.join(PARTS)}")
    check_writable(options.out, OTHER_FILE)
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
    for name in options.parts or [name for name, part in PARTS.items() if part.by_default]:
        part, figures = PARTS[name], {}
        if not options.parts and part.package and find_spec(part.package) is None:
            print_line(console, f"{name} is not measured: {part.package} is not installed")
            continue
        for number, case in enumerate(part.cases, start=1):
            with show_status(console, f"measuring {name}: {case} ({number} of {len(part.cases)})"):
                figures[case] = part.run(case, options.repeats)
        results[name] = figures
        console.print(TABLES[name](figures, limits))
        # after each part, since the whole takes twenty minutes and may be stopped
        with report_os_errors(f"cannot write {options.out}", OTHER_FILE):
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(options.out, json.dumps(results, indent=2) + "\n")
    print_line(console, f"figures: {options.out}")
    return 0
