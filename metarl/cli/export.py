"""`metarl export`."""

import argparse

from rich.console import Console

from metarl.cli.output import print_line
from metarl.models.policy import AdaptivePolicy
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the command with parsed options; return the exit status."""
    run = Run.open(options.run, trust_code=options.trust_code)
    path = AdaptivePolicy.from_run(run).export(options.file)
    print_line(console, f"model: {path}")
    return 0
