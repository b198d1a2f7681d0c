"""`metarl export`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_run, add_trust, set_help
from metarl.cli.output import print_line
from metarl.models.policy import AdaptivePolicy
from metarl.runs.run import Run

DESCRIPTION = """\
Export a run's policy before adaptation as a stable-baselines3 model: `PPO.load` loads it,
`evaluate_policy` evaluates it, and `learn` fine-tunes it."""

EXAMPLES = """\
examples:
  metarl export runs/mine meta_policy.zip
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _export)
    add_run(parser)
    add_trust(parser)
    parser.add_argument("model", type=Path, metavar="ZIP", help="the file to write; must not exist")


def _export(options: argparse.Namespace, console: Console) -> int:
    run = Run.open(options.run, trust_code=options.trust_code)
    path = AdaptivePolicy.from_run(run).export(options.model)
    print_line(console, f"model: {path}")
    return 0
