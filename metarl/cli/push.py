"""`metarl push`."""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from metarl.cli.arguments import add_data, add_run, add_trust, describe
from metarl.progress import working
from metarl.runs.hub import check_repository_id, upload

DESCRIPTION = """\
Push a run to the Hugging Face hub: config, weights, evaluation and metrics, with a model card that
has the table and the curves. Others open it by its address, hf:USER/NAME, wherever a command takes
a run. Needs the extra [hub] (pip install 'metarl-maml[hub]') and a login (hf auth login)."""

EXAMPLES = """\
examples:
  metarl push runs/mine me/half-cheetah
  metarl evaluate hf:me/half-cheetah
  metarl render hf:me/half-cheetah@v1              a revision: a branch, a tag or a commit
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    describe(parser, DESCRIPTION, EXAMPLES, _push)
    add_run(parser)
    parser.add_argument(
        "name", metavar="USER/NAME", help="of the repository; made if there is none"
    )
    add_trust(parser)
    add_data(parser)
    parser.add_argument(
        "--private", action="store_true", help="if it is made, let nobody else see it"
    )


def _push(options: argparse.Namespace, console: Console) -> int:
    check_repository_id(options.name)
    # imported here: it takes two seconds, which the help should not wait for
    from metarl.report.model_card import write_model
    from metarl.runs.run import Run

    run = Run.open(options.run, trust_code=options.trust_code)
    with tempfile.TemporaryDirectory() as folder, working(console, f"pushing {run.path}"):
        write_model(run, Path(folder), options.name)
        address = upload(Path(folder), options.name, options.private)
    console.print(f"pushed: {address}", highlight=False, soft_wrap=True)
    return 0
