"""Several runs in one directory, trained in parallel: seeds of one experiment, or a sweep.

    OUT/seed-1                          seeds
    OUT/inner.step_size=0.1/seed-1      a sweep

The directory has the whole state: every run in it belongs to the sweep.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.config.files import CONFIG
from metarl.errors import UserError
from metarl.experiment import AnyConfig, all_settings
from metarl.launch.grid import as_grid, variants
from metarl.launch.initial_weights import initial_state, prepare
from metarl.launch.scheduler import LOG, Job, run_jobs
from metarl.launch.signals import stop_on_signals
from metarl.launch.train import ConfigLike, as_config, check
from metarl.launch.weights_and_biases import require_wandb
from metarl.method import load_method
from metarl.progress import Progress, print_line
from metarl.report.evaluations import is_complete
from metarl.report.groups import evaluation_differences, seed_independent_fields
from metarl.runs.run import Run
from metarl.threads import is_main_process, processors, under_torchrun

PRUNED = "pruned"  # in a run directory


@dataclass(frozen=True)
class LaunchOptions:
    """Options of a launch of several runs.

    `overrides` such as `outer.iterations=500` change runs that are continued without a config.
    `should_prune` is called with the directory of a run that has new metrics; a run for which it
    returns True stops, and is not continued.
    """

    resume: bool = False  # whether the directory may have runs; unfinished ones are continued
    overrides: Sequence[str] = ()
    trust_code: bool = False  # see `Run.open`
    wandb: str | None = None  # a project of Weights & Biases to log to
    console: Console | None = None  # shows progress; silent by default
    verb: str = "train"  # the command that continues them, for messages
    is_search: bool = False  # which is continued with all of its arguments
    should_prune: Callable[[Path], bool] = lambda run: False


@dataclass(frozen=True)
class Trained:
    """The outcome of training several runs."""

    runs: Sequence[Run]  # those that are complete, as are all seeds of their combination
    failures: Mapping[str, str]  # error messages by name of the run
    interrupted: bool = False  # by a signal


def train_seeds(
    config: ConfigLike | None, seeds: Sequence[int], out: Path, options: LaunchOptions | None = None
) -> Trained:
    """Train with several seeds, see `metarl.train_seeds`; without a config, continue runs."""
    planned = {}
    if config is not None:
        base = as_config(config)
        planned = {Path(f"seed-{n}"): base.model_copy(update={"seed": n}) for n in seeds}
    return train_runs(planned, out, options or LaunchOptions())


def sweep(
    config: ConfigLike | None,
    grid: Mapping[str, Any],
    out: Path,
    seeds: Sequence[int] = (1,),
    options: LaunchOptions | None = None,
) -> Trained:
    """Train every combination of values, see `metarl.sweep`; without a config, continue runs."""
    planned = {}
    if config is not None:
        planned = {
            variant.path: as_config(config, variant.overrides)
            for variant in variants(as_grid(grid), seeds)
        }
    return train_runs(planned, out, options or LaunchOptions(verb="sweep"))


def train_runs(planned: Mapping[Path, AnyConfig], out: Path, options: LaunchOptions) -> Trained:
    """Train runs in parallel, and continue those that are not complete.

    `planned` has configs by directory, relative to `out`; without, the runs that are there train.

    Raises:
        UserError: if a config, the data or the directory is invalid; before any run starts.
    """
    if under_torchrun():
        if not is_main_process():
            raise SystemExit(2)  # the first process reports the error
        raise UserError("several runs share the processors without torchrun; start them without it")
    if options.wandb:
        require_wandb()
    console = options.console or Console(quiet=True, force_terminal=False)
    check_directory(out, options)
    runs = _open_runs(out, _validated(planned), options)
    unfinished = [run for run in runs if not (_is_finished(run) or is_pruned(run.path))]
    jobs = [_job(out, run, options) for run in unfinished]
    print_line(console, f"{len(runs)} runs in {out}, {len(runs) - len(jobs)} of them finished")
    if jobs:
        concurrency = f"training {min(processors(), len(jobs))} at a time, with one thread each"
        print_line(console, f"{concurrency}; {LOG} in each run")
    failures: dict[str, str] = {}

    def on_failure(job: Job, message: str) -> None:
        failures[job.name] = message
        print_line(console, f"{job.name} failed: {message} (full output: {job.log})")

    def should_prune(job: Job) -> bool:
        if not options.should_prune(job.run):
            return False
        (job.run / PRUNED).touch()  # a file, so that a resumed search leaves the run as it is
        print_line(console, f"{job.name}: pruned")
        return True

    resume = f"metarl {options.verb} --resume {out}{runs[0].trust_option if runs else ''}"
    if options.is_search:
        resume = f"the same command with --resume {out} in place of --out"
    with stop_on_signals() as stop:
        with Progress(console) as progress:
            run_jobs(jobs, lambda: stop.requested, on_failure, progress, should_prune)
        if stop.requested:
            print_line(console, f"stopped; continue with: {resume}")
            return Trained([], failures, interrupted=True)
    # opened again: other processes have trained them
    complete = [run for run in (Run(run.path, run.config) for run in runs) if _is_finished(run)]
    # a mean over some of its seeds would rank a combination by those that did not fail
    partial = {run.path.parent for run in runs} - {out}
    partial &= {run.path.parent for run in runs if run.path not in {r.path for r in complete}}
    complete = [run for run in complete if run.path.parent not in partial]
    if partial:
        names = "; ".join(sorted(combination.name for combination in partial))
        print_line(
            console, f"not in the table, because not all of their seeds are complete: {names}"
        )
    if failures:
        print_line(
            console,
            f"{len(failures)} of {len(runs)} runs failed ({', '.join(failures)}); fix the cause, "
            f"and continue with: {resume}",
        )
    return Trained(complete, failures)


def _validated(planned: Mapping[Path, AnyConfig]) -> dict[Path, AnyConfig]:
    """The configs with their measured values; checked before a directory is created."""
    for config in planned.values():
        for name, value in all_settings(config).items():
            if isinstance(value, str) and value.startswith("__main__:"):
                raise UserError(
                    f"{name}={value}: several runs train in processes of their own, which cannot "
                    "import what a script or a notebook defines; move it into a module"
                )
    resolved = {place: prepare(config) for place, config in planned.items()}
    _check_distinct(resolved)
    methods = {place: load_method(config) for place, config in resolved.items()}
    for method in methods.values():
        check(method)
        if method.problem.config.init_from:
            initial_state(method)  # raises if the weights do not fit
        # otherwise `compare` would refuse them, after hours of training
        if changed := evaluation_differences(next(iter(methods.values())), method):
            fix = " ".join(f"--set evaluation.{name}=…" for name in changed)
            raise UserError(
                f"these runs would be evaluated with different settings "
                f"({'; '.join(changed.values())}), and could not be compared; add {fix}"
            )
    return resolved


def _check_distinct(planned: Mapping[Path, AnyConfig]) -> None:
    """Refuse runs that would be the same, after whose training `compare` would refuse them."""
    places: dict[str, Path] = {}
    for place, config in planned.items():
        ignored = seed_independent_fields(config)
        settings = {n: v for n, v in all_settings(config).items() if not n.startswith(ignored)}
        key = json.dumps([config.seed, settings], sort_keys=True)
        if key in places:
            raise UserError(
                f"{places[key]} and {place} are the same run: the settings in which they differ "
                "are equal, or have no effect on its method; omit one of them"
            )
        places[key] = place


def check_directory(out: Path, options: LaunchOptions) -> None:
    """Check that a directory may hold the runs of a launch.

    Raises:
        UserError: if it is a run itself, or has runs although `resume` is not set.
    """
    present = find_runs(out)
    if (out / CONFIG).exists():
        fix = "choose another directory with --out"
        if options.resume:
            fix = f"continue it with metarl train --resume {out}"
        raise UserError(f"{out} holds a single run; {fix}")
    if present and not options.resume:
        raise UserError(
            f"{out} already holds {len(present)} runs; continue them with --resume {out}, or "
            "choose another directory with --out"
        )


def _open_runs(out: Path, planned: Mapping[Path, AnyConfig], options: LaunchOptions) -> list[Run]:
    """Open the planned runs in a directory and create missing ones; or open all that are there.

    Raises:
        UserError: if none exist, or their settings differ.
    """
    present = find_runs(out)
    if not (present or planned):
        raise UserError(f"there is no run in {out}; name a config and seeds")
    varied = {_varied(place) for place in [*(path.relative_to(out) for path in present), *planned]}
    if planned and len(varied) > 1:
        names = sorted({name for names in varied for name in names})
        raise UserError(
            f"the runs in {out} and those to add vary different settings ({', '.join(names)}); "
            "give two values or more of each, those that are there included"
        )
    overrides = () if planned else tuple(options.overrides)
    runs = {
        path: Run.open(path, overrides, options.trust_code)
        for path in present
        if not planned or path.relative_to(out) in planned
    }
    # all settings are checked before the first directory is created
    for place, config in planned.items():
        if (path := out / place) in runs:
            runs[path].reconfigure(config)
    for run in runs.values() if planned or overrides else ():
        run.check_validations()
    for place, config in planned.items():
        if (path := out / place) not in runs:
            runs[path] = Run.create(path, config)
    for run in runs.values():  # read by the processes, which get no settings of their own
        run.save_config()
    order = [out / place for place in planned] or list(runs)
    return [runs[path] for path in order]


def _varied(place: Path) -> tuple[str, ...]:
    """The settings that a directory of a sweep names, such as `inner.step_size=0.1`."""
    return tuple(re.findall(r"(?:^|,)([a-z_0-9.]+)=", str(place.parent)))


def find_runs(out: Path) -> list[Path]:
    """The run directories of a sweep, in natural order."""
    # seeds are one level down, those of a sweep two: not `**`, which would search their files too
    paths = {file.parent for depth in ("*", "*/*") for file in out.glob(f"{depth}/{CONFIG}")}
    return sorted(paths, key=lambda path: [_natural_key(part) for part in path.parts])


def is_pruned(run: Path) -> bool:
    """Whether a search stopped a run before its last iteration."""
    return (run / PRUNED).exists()


def _natural_key(text: str) -> list[tuple[float, str]]:
    """A sort key that orders numbers in names by value."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)  # numbers are at odd positions
    return [(float(part), "") if number % 2 else (0.0, part) for number, part in enumerate(parts)]


def _job(out: Path, run: Run, options: LaunchOptions) -> Job:
    method = load_method(run.config)
    # trusted: the config was planned here, or checked when the run was opened
    arguments = ["--resume", str(run.path), "--trust-code"]
    if options.wandb:
        arguments += ["--wandb", options.wandb]
    metric = method.problem.metric.name
    name = str(run.path.relative_to(out))
    return Job(name, run.path, method.num_iterations, metric, tuple(arguments))


def _is_finished(run: Run) -> bool:
    try:
        return is_complete(run, load_method(run.config))
    except UserError:
        return False  # it is damaged: its own process reports that, and the others train on
