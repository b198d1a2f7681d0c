"""`metarl push`."""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from metarl.progress import print_line, show_status
from metarl.report.model_card import write_model
from metarl.runs.hub import check_repository_id, require_hub, upload
from metarl.runs.run import Run


def run(options: argparse.Namespace, console: Console) -> int:
    check_repository_id(options.name)
    require_hub()  # before the evaluation, if there is none
    run = Run.open(options.run, trust_code=options.trust_code)
    # from a copy: the hub gets neither lock, log nor TensorBoard's events of the run directory
    with tempfile.TemporaryDirectory() as folder, show_status(console, f"pushing {run.path}"):
        write_model(run, Path(folder), options.name)
        address = upload(Path(folder), options.name, options.private)
    print_line(console, f"pushed: {address}")
    return 0
