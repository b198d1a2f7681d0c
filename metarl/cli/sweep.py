"""`metarl sweep`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import (
    add_config,
    add_data,
    add_seeds,
    add_set,
    add_trust,
    add_wandb,
    describe,
    no_config,
    seeds_of,
)
from metarl.cli.signals import INTERRUPTED
from metarl.errors import UserError
from metarl.experiment import AnyConfig, load_config
from metarl.launch.grid import folder_of, variants
from metarl.launch.search import propose, ranges_of, require_optuna
from metarl.launch.weights_and_biases import require_wandb
from metarl.threads import processors

if TYPE_CHECKING:
    from metarl.report.groups import ExperimentGroup

DESCRIPTION = """\
Train every combination of the values that settings are given, each with the same seeds: side by
side, a process and a thread each, as many at once as there are processors. A setting with one value
is the same for all.

Every run is a directory of its own, OUT/SETTING=VALUE/seed-1, so that `compare`, `report` and
TensorBoard take them like any others. Ctrl-C stops all of them, and each saves what it has;
--resume OUT goes on with what is unfinished, and with more seeds or values where CONFIG, --set and
--seeds say so anew. At the end a table tells how well each combination adapts, the best first, as
the mean over its seeds with an interval; OUT/sweep.csv holds all of its numbers.

With --search N settings have ranges, SETTING=LOW..HIGH, and N combinations are tried, more often
where those before did well (the extra `search`: pip install 'metarl-maml[search]')."""

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
    describe(parser, DESCRIPTION, EXAMPLES, _sweep)
    parser.set_defaults(name="sweep")
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
    if options.wandb:
        require_wandb()
    if options.search is not None:
        return _search(options, console)
    planned = _planned(options)
    # imported here: torch takes a second, which a mistake in the config should not wait for
    from metarl.cli.multi_run import train_several

    return train_several(options, planned, console, _show)


def _planned(options: argparse.Namespace) -> Mapping[Path, AnyConfig]:
    if not options.config and options.resume and not options.seeds:
        return {}
    _place(options)
    return {
        variant.path: load_config(options.config, variant.overrides)
        for variant in variants(options.set, seeds_of(options) or [1])
    }


def _place(options: argparse.Namespace) -> None:
    """Make sure that there is a config, and as `options.out` a directory."""
    if not options.config:
        raise no_config("--resume OUT")
    if not options.resume:
        options.out = options.out or Path("runs") / f"{Path(options.config).stem}-sweep"


def _search(options: argparse.Namespace, console: Console) -> int:
    """Batches of combinations, each chosen by what came of those before."""
    if options.search < 1:
        raise UserError(f"--search must be at least 1, not {options.search}")
    _place(options)
    require_optuna()
    fixed, ranges = ranges_of(options.set)
    seeds = seeds_of(options) or [1]
    options.set = fixed

    def planned(overrides: Sequence[str]) -> dict[Path, AnyConfig]:
        return {
            folder_of(overrides) / f"seed-{seed}": load_config(
                options.config, [*fixed, *overrides, f"seed={seed}"]
            )
            for seed in seeds
        }

    lowest = planned([f"{name}={between.low:g}" for name, between in ranges.items()])
    planned([f"{name}={between.high:g}" for name, between in ranges.items()])
    # imported here: torch takes a second, which a mistake in the config should not wait for
    from metarl.cli.comparison_output import load
    from metarl.cli.multi_run import train_all
    from metarl.launch.sweep import members
    from metarl.method import load_method

    metric = load_method(next(iter(lowest.values()))).problem.metric
    status, done = train_all(options, {}, console) if options.resume else (0, [])
    while status != INTERRUPTED:
        out: Path = options.resume or options.out
        tried = {path.parent.name for path in members(out)}
        number = min(options.search - len(tried), max(1, processors() // len(seeds)))
        if number < 1:
            break
        entries = load(done, console) if done else []
        proposals = propose(ranges, entries, len(tried), number, metric.higher_is_better)
        batch: dict[Path, AnyConfig] = {}
        for values in proposals:
            overrides = [f"{name}={value}" for name, value in values.items()]
            if folder_of(overrides).name not in tried:
                batch |= planned(overrides)
        if not batch:
            console.print("what the search would try next was tried already: it ends here")
            break
        failed, more = train_all(options, batch, console)
        status, done = max(status, failed), [*done, *more]
        options.resume, options.out = out, None
    if done and status != INTERRUPTED:
        _show(options.resume or options.out, load(done, console), console)
    return status


def _show(out: Path, entries: Sequence["ExperimentGroup"], console: Console) -> None:
    """A table, the best first, and the same as CSV."""
    from metarl.evaluation import format_score
    from metarl.io import translate_os_errors, write_atomically
    from metarl.launch.sweep import as_csv, ranked, settings_of, varied
    from metarl.report.comparison import caption

    entries, names = ranked(entries), varied(entries)
    metric = entries[0].method.problem.metric.name
    table = Table(title=entries[0].method.problem.title, caption=caption(entries))
    for name in names:
        last = name.rpartition(".")[2]  # 80 columns have no place for all of it
        alone = sum(other.rpartition(".")[2] == last for other in names) == 1
        table.add_column(last if alone else name, overflow="fold")
    table.add_column("seeds", overflow="fold")
    for column in (f"{metric} before", "adapted", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        summary = entry.summary
        table.add_row(
            *settings_of(entry, names),
            ", ".join(str(run.config.seed) for run in entry.runs),
            format_score(summary.estimate[0]),
            format_score(summary.estimate[-1]),
            f"[{format_score(summary.low[-1])}, {format_score(summary.high[-1])}]",
        )
    console.print(table)
    with translate_os_errors(out):
        write_atomically(out / "sweep.csv", as_csv(entries))
    console.print(f"numbers: {out / 'sweep.csv'}", highlight=False, soft_wrap=True)
