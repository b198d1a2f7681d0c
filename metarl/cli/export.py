"""`metarl export`."""

import argparse
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_run, add_trust, describe
from metarl.models.policy import AdaptivePolicy
from metarl.runs.run import Run

DESCRIPTION = """\
Write a run's policy as a model of stable-baselines3, before any adaptation: `PPO.load` reads it,
`evaluate_policy` runs it, and `learn` fine-tunes it."""

EXAMPLES = """\
examples:
  metarl export runs/mine meta_policy.zip
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _export)
    add_run(parser)
    add_trust(parser)
    parser.add_argument("model", type=Path, metavar="ZIP", help="the file to write; it must be new")


def _export(options: argparse.Namespace, console: Console) -> int:
    run = Run.open(options.run, trust_code=options.trust_code)
    path = AdaptivePolicy.from_run(run).export(options.model)
    console.print(f"model: {path}", highlight=False, soft_wrap=True)
    return 0
