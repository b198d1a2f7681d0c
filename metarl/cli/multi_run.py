"""Several runs in one directory: trained side by side, and summed up together."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from metarl.cli.comparison_output import load, show
from metarl.cli.signals import INTERRUPTED, stopping
from metarl.errors import UserError
from metarl.experiment import AnyConfig
from metarl.launch.scheduler import LOG, Job, side_by_side
from metarl.launch.sweep import gather
from metarl.method import load_method
from metarl.progress import Progress
from metarl.report.evaluations import is_complete
from metarl.report.groups import ExperimentGroup, evaluation_differences
from metarl.runs.run import Run
from metarl.threads import is_main_process, processors, under_torchrun

Summary = Callable[[Path, Sequence[ExperimentGroup], Console], None]


def train_several(
    options: argparse.Namespace,
    planned: Mapping[Path, AnyConfig],
    console: Console,
    summary: Summary,
) -> int:
    """Train runs side by side, and sum up those that came to their end.

    Args:
        options: of the command line; `resume` or else `out` is their directory.
        planned: configs by their place in it; empty for whatever is there.
        console: where to tell of it.
        summary: prints, and writes into the directory, what came of them.

    Returns:
        The exit status: 1 if one of them failed.
    """
    status, done = train_all(options, planned, console)
    if done and status != INTERRUPTED:
        summary(options.resume or options.out, load(done, console), console)
    return status


def train_all(
    options: argparse.Namespace, planned: Mapping[Path, AnyConfig], console: Console
) -> tuple[int, list[Run]]:
    """As `train_several`, without a summary.

    Returns:
        The exit status, and the runs that came to their end.
    """
    if under_torchrun():
        if not is_main_process():
            return 2, []  # the first process says so
        raise UserError("several runs share the processors by themselves; start without torchrun")
    if options.resume and options.out:
        raise UserError("--out and --resume contradict each other; runs stay where they are")
    out: Path = options.resume or options.out
    # whatever can be wrong is found before any directory is made
    methods = {place: load_method(config) for place, config in planned.items()}
    for method in methods.values():
        method.problem.check()
        if changed := evaluation_differences(next(iter(methods.values())), method):
            fix = " ".join(f"--set evaluation.{name}=…" for name in changed)
            raise UserError(
                f"these runs would not be evaluated alike ({'; '.join(changed.values())}), and "
                f"could not be compared; add {fix}"
            )
    planned = {place: method.problem.config for place, method in methods.items()}
    runs = gather(out, planned, bool(options.resume), tuple(options.set), options.trust_code)
    jobs = _jobs(out, runs, options)
    at_once = min(processors(), max(1, len(jobs)))
    _say(console, f"{len(runs)} runs in {out}, {len(runs) - len(jobs)} of them complete")
    if jobs:
        _say(console, f"training {at_once} at a time, with one thread each; {LOG} in each run")
    failures: list[Job] = []

    def failed(job: Job, words: str) -> None:
        failures.append(job)
        _say(console, f"{job.name} failed: {words} (all it said: {job.log})")

    with stopping() as stop:
        with Progress(console) as progress:
            side_by_side(jobs, lambda: stop.asked, failed, progress)
        if stop.asked:
            _say(console, f"stopped; continue with: metarl {options.name} --resume {out}")
            return INTERRUPTED, []
    # as they are now, after others trained them
    done = [run for run in (Run(run.path, run.config) for run in runs) if not _unfinished(run)]
    if failures:
        names = ", ".join(job.name for job in failures)
        _say(
            console,
            f"{len(failures)} of {len(runs)} runs failed ({names}); mend that, and go on with: "
            f"metarl {options.name} --resume {out}",
        )
    return (1 if failures else 0), done


def show_together(out: Path, entries: Sequence[ExperimentGroup], console: Console) -> None:
    """The table of runs that differ in their seed."""
    show(console, entries)


def _jobs(out: Path, runs: Sequence[Run], options: argparse.Namespace) -> list[Job]:
    """What is left to do."""
    jobs = []
    for run in runs:
        if _unfinished(run):
            method = load_method(run.config)
            name = str(run.path.relative_to(out))
            # trusted: it was planned here, or its config was looked at when it was opened
            arguments = ["--resume", str(run.path), "--trust-code"]
            if options.wandb:
                arguments += ["--wandb", options.wandb]
            metric = method.problem.metric.name
            jobs.append(Job(name, run.path, method.num_iterations, metric, tuple(arguments)))
    return jobs


def _unfinished(run: Run) -> bool:
    try:
        return not is_complete(run, load_method(run.config))
    except UserError:
        return True  # it is damaged: its own process says so, and the others go on


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
