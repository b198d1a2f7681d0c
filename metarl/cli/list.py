"""`metarl list`."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metarl.config.files import read_values, shipped_configs, trained_runs
from metarl.evaluation import format_score


def run(options: argparse.Namespace, console: Console) -> int:
    if not console.is_terminal:  # one line for each name, for grep
        console.width = 200
    configs = Table(title="configs, for `metarl train`", title_justify="left")
    configs.add_column("name", overflow="fold")
    configs.add_column("description", overflow="fold")
    for name, path in shipped_configs().items():
        # the first line of a config is a comment that describes it
        configs.add_row(name, path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
    console.print(configs)

    trained = Table(
        title="trained runs, for `metarl evaluate`, `render`, `compare`, `report`, `export`",
        caption="return, error or accuracy on held-out tasks after 0, 1, 2, ... gradient steps",
        title_justify="left",
    )
    for column in ("name", "description", "adaptation"):
        trained.add_column(column, overflow="fold")
    for name, path in trained_runs().items():
        trained.add_row(name, *_description_and_scores(path))
    console.print(trained)
    return 0


def _description_and_scores(path: Path) -> tuple[str, str]:
    """A description of a trained run, and its scores, without importing torch."""
    config = read_values(path / "config.yaml")
    evaluation = json.loads((path / "evaluation.json").read_text(encoding="utf-8"))
    tasks = (config.get("family") or config["data"])["name"]
    updates, seed = evaluation["iteration"], config["seed"]
    scores = " → ".join(format_score(value) for value in evaluation["mean"][:4])
    description = f"{evaluation['method']}, {tasks}, {updates} updates, seed {seed}"
    return description, scores
