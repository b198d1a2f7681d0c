"""`metarl export`."""

import argparse
from dataclasses import replace

from rich.console import Console

from metarl.errors import UserError
from metarl.models.policy import AdaptivePolicy
from metarl.progress import print_line, show_status
from metarl.report.adapted_policy import adapt_to_task
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
    run = Run.open(options.run, trust_code=options.trust_code)
    policy = AdaptivePolicy.from_run(run)
    policy.check_export(options.file)  # before the adaptation, which takes minutes
    # in an environment of the run's family; in others policies adapt from Python
    if options.task:
        with show_status(console, "adapting"):
            steps = options.steps or policy.training_steps
            agents = adapt_to_task(run, options.task, [steps]).agents
            policy = replace(policy, agent=agents[steps])
    elif options.steps:
        raise UserError("--steps belongs to --task: the task to adapt to")
    print_line(console, f"wrote {policy.export(options.file)}")
    return 0
