"""`metarl sweep`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import missing_config_error, overrides_of, seeds_of
from metarl.cli.output import compare_runs
from metarl.errors import UserError
from metarl.io import translate_os_errors, write_atomically
from metarl.launch.grid import parse_grid
from metarl.launch.search import parse_ranges, search
from metarl.launch.several import LaunchOptions, sweep
from metarl.launch.signals import INTERRUPTED
from metarl.progress import print_line
from metarl.report.sweep_table import SweepTable
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
    if options.prune and not options.search:
        raise UserError("--prune belongs to --search N")
    if options.resume and options.out:
        raise UserError("--out and --resume contradict each other; runs stay where they are")
    # without further arguments, --resume continues the runs that are there
    resume_only = options.resume and not (options.config or options.seeds or options.search)
    if not (options.config or resume_only):
        raise missing_config_error("--resume OUT")
    out = options.resume or options.out or Path("runs") / f"{Path(options.config).stem}-sweep"
    seeds, overrides = seeds_of(options.seeds) or [1], overrides_of(options)
    # of a sweep that is resumed alone, the overrides are settings such as a number of iterations
    launch = LaunchOptions(
        bool(options.resume), overrides, options.trust_code, options.wandb, console, options.verb
    )
    if options.search:
        fixed, ranges = parse_ranges(overrides)
        trained = search(
            options.config, ranges, out, options.search, seeds, fixed, launch, options.prune
        )
    elif resume_only:
        trained = sweep(None, {}, out, options=launch)
        # the directory does not record what was not started yet
        print_line(
            console,
            f"continued the {len(trained.runs)} runs in {out}; for the rest of a sweep or search, "
            "repeat its command with --resume",
        )
    else:
        trained = sweep(options.config, parse_grid(overrides), out, seeds, launch)
    if trained.interrupted:
        return INTERRUPTED
    if trained.runs:  # also if others failed
        _print_table(out, trained.runs, console)
    return 1 if trained.failures else 0


def _print_table(out: Path, runs: Sequence[Run], console: Console) -> None:
    """Print the ranked table, and write sweep.csv."""
    result = SweepTable.of(compare_runs(runs, console))
    rows = result.rows()
    table = Table(title=result.groups[0].method.problem.title, caption=result.caption)
    last_parts = [name.rpartition(".")[2] for name in result.names]
    for number, column in enumerate(rows[0]):
        if number < len(result.names):  # the last part of a setting's name, to save space
            short_name = last_parts[number]
            is_unique = last_parts.count(short_name) == 1
            table.add_column(short_name if is_unique else column, overflow="fold")
        elif column == "seeds":
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=column == "95% interval")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    with translate_os_errors(out):
        write_atomically(out / "sweep.csv", result.to_csv())
    print_line(console, f"numbers: {out / 'sweep.csv'}")
