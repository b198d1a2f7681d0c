"""`metarl evaluate`."""

import argparse

from rich.console import Console

from metarl.cli.output import curve_table, evaluate_and_print
from metarl.errors import UserError
from metarl.method import load_method
from metarl.report.evaluations import BEST, PAPER, with_paper_schedule
from metarl.report.groups import are_seeds, check_unique
from metarl.runs.run import Run

# prefixes of the settings that an evaluation reads
EVALUATED = ("evaluation.", "baseline.", "device=", "data.path=")
# settings that --schedule paper sets; `count` is the old name of `batch_unit`
SCHEDULE = tuple(f"evaluation.{name}=" for name in ("step_sizes", "batch_unit", "count"))


def run(options: argparse.Namespace, console: Console) -> int:
    use_paper = options.schedule == PAPER
    if options.checkpoint == BEST and (options.name or use_paper):
        raise UserError(
            "--checkpoint best has an evaluation of its own, called best; leave --name and "
            "--schedule out"
        )
    if options.name in (BEST, PAPER):
        option = "--checkpoint best" if options.name == BEST else "--schedule paper"
        raise UserError(f"--name {options.name} is the name of {option}; choose another")
    for override in options.set:
        if not override.startswith(EVALUATED):
            raise UserError(
                f"--set {override}: has no effect on an evaluation; its settings are those of "
                "`evaluation.`, `baseline.`, `device` and `data.path`"
            )
        if use_paper and override.startswith(SCHEDULE):
            raise UserError(f"--set {override} contradicts --schedule paper; use one of them")
    opened = (Run.open(path, tuple(options.set), options.trust_code) for path in options.runs)
    runs = [run.at(options.checkpoint) for run in opened]
    for run in runs:
        run.load()  # damaged runs are reported before any evaluation
    check_unique(runs)
    name = options.name or (PAPER if use_paper else "")
    methods = [load_method(with_paper_schedule(run) if use_paper else run.config) for run in runs]
    for run, method in zip(runs, methods, strict=True):
        method.problem.check()
        run.check_data_hashes(method.problem.data_hashes)
    pairs = zip(runs, methods, strict=True)
    curves = [evaluate_and_print(run, method, console, name) for run, method in pairs]
    # a mean over runs means something only for seeds of one experiment, evaluated alike
    settings = [method.problem.evaluation_settings for method in methods]
    if len(runs) > 1 and are_seeds(runs) and all(other == settings[0] for other in settings):
        console.print(curve_table(f"all {len(runs)} runs", methods[0], curves))
    return 0
