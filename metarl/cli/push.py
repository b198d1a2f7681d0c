"""`metarl push`."""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_run, add_trust, set_help
from metarl.cli.output import print_line
from metarl.progress import show_status
from metarl.report.model_card import write_model
from metarl.runs.hub import check_repository_id, upload
from metarl.runs.run import Run

DESCRIPTION = """\
Upload a run to the Hugging Face hub: config, weights, evaluation and metrics, with a model card of
table and plots. Every command that takes a run also takes its address, hf:USER/NAME. Needs
the extra [hub] (pip install 'metarl-maml[hub]') and a login (hf auth login)."""

EXAMPLES = """\
examples:
  metarl push runs/mine me/half-cheetah
  metarl evaluate hf:me/half-cheetah
  metarl render hf:me/half-cheetah@v1              a revision: a branch, a tag or a commit
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    set_help(parser, DESCRIPTION, EXAMPLES, _push)
    add_run(parser)
    parser.add_argument("name", metavar="USER/NAME", help="repository id; created if missing")
    add_trust(parser)
    add_data(parser)
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def _push(options: argparse.Namespace, console: Console) -> int:
    check_repository_id(options.name)
    run = Run.open(options.run, trust_code=options.trust_code)
    with tempfile.TemporaryDirectory() as folder, show_status(console, f"pushing {run.path}"):
        write_model(run, Path(folder), options.name)
        address = upload(Path(folder), options.name, options.private)
    print_line(console, f"pushed: {address}")
    return 0
