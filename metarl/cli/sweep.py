"""`metarl sweep`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import (
    add_config,
    add_data,
    add_seeds,
    add_set,
    add_trust,
    add_wandb,
    missing_config_error,
    seeds_of,
    set_help,
)
from metarl.cli.output import compare_runs, print_line
from metarl.errors import UserError
from metarl.io import translate_os_errors, write_atomically
from metarl.launch.grid import parse_grid
from metarl.launch.search import parse_ranges, search
from metarl.launch.several import LaunchOptions, sweep
from metarl.launch.signals import INTERRUPTED
from metarl.report.sweep_table import SweepTable
from metarl.runs.run import Run

DESCRIPTION = """\
Train every combination of the given values of settings with the same seeds in parallel: one
process with one thread per run, as many at a time as there are processors. A setting with one
value is the same for all runs.

Each run has its own directory, OUT/SETTING=VALUE/seed-1, for `compare`, `report` and TensorBoard.
Ctrl-C stops all runs after saving them. --resume OUT continues unfinished runs, and adds seeds or
values if CONFIG, --set and --seeds are given again. The final table ranks the combinations by their
mean over seeds after adaptation, with an interval; OUT/sweep.csv has all numbers.

With --search N, settings have ranges, SETTING=LOW..HIGH, and N combinations are tried, sampled more
often near good ones (the extra `search`: pip install 'metarl-maml[search]')."""

EXAMPLES = """\
examples:
  metarl sweep quickstart --set inner.step_size=0.05,0.1,0.2 --seeds 3
  metarl sweep my.yaml --set outer.max_kl=0.01,0.02 --set inner.steps=1,2 --seeds 1 2 --out runs/try
  metarl sweep my.yaml --set policy.hidden_sizes=[64,64],[100,100] --set outer.iterations=50
  metarl sweep --resume runs/try
  metarl sweep quickstart --set inner.step_size=0.01..0.5 --seeds 2 --search 20
  metarl sweep quickstart --set inner.step_size=0.1,0.2 --seeds 5 --resume runs/quickstart-sweep
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _sweep)
    add_config(parser)
    add_set(parser, "SECTION.SETTING=VALUE[,VALUE...]", "the values of a setting")
    add_seeds(parser)
    parser.add_argument(
        "--out", type=Path, metavar="OUT", help="directory of the runs (default: runs/NAME-sweep)"
    )
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="try N combinations from the ranges of settings, such as 0.01..0.5",
    )
    add_data(parser)
    parser.add_argument("--resume", type=Path, metavar="OUT", help="continue the sweep in OUT")
    add_wandb(parser)
    add_trust(parser)


def _sweep(options: argparse.Namespace, console: Console) -> int:
    if options.search is not None and options.search < 1:
        raise UserError(f"--search must be at least 1, not {options.search}")
    if options.resume and options.out:
        raise UserError("--out and --resume contradict each other; runs stay where they are")
    # without further arguments, --resume continues the runs that are there
    resume_only = options.resume and not (options.config or options.seeds or options.search)
    if not (options.config or resume_only):
        raise missing_config_error("--resume OUT")
    out = options.resume or options.out or Path("runs") / f"{Path(options.config).stem}-sweep"
    seeds = seeds_of(options) or [1]
    launch = LaunchOptions(
        resume=bool(options.resume),
        overrides=options.set,
        trust_code=options.trust_code,
        wandb=options.wandb,
        console=console,
        verb="sweep",
    )
    if options.search:
        fixed, ranges = parse_ranges(options.set)
        trained = search(options.config, ranges, out, options.search, seeds, fixed, launch)
    elif resume_only:
        trained = sweep(None, {}, out, options=launch)
    else:
        trained = sweep(options.config, parse_grid(options.set), out, seeds, launch)
    if trained.interrupted:
        return INTERRUPTED
    if trained.runs:
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
