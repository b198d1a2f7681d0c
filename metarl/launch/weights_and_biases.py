"""Logging of training metrics to Weights & Biases; needs the extra [wandb]."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from metarl.errors import UserError
from metarl.io import translate_os_errors, write_atomically
from metarl.runs.run import Run

ID_FILE = "wandb-id"  # in a run directory, so that a resumed run continues the same run there


def require_wandb() -> None:
    """Raise UserError if wandb is not installed."""
    if find_spec("wandb") is None:
        raise UserError(
            "--wandb needs the package wandb: pip install 'metarl-maml[wandb]', or omit it "
            "(TensorBoard has the same curves)"
        )


class WandbLog:
    """Logs metrics, and the config of a run, to a project at Weights & Biases.

    Raises:
        UserError: if wandb cannot start, for example without an account.
        StorageError: if the run directory cannot be written.
    """

    def __init__(self, project: str, run: Run) -> None:
        require_wandb()
        wandb: Any = import_module("wandb")
        file = run.path / ID_FILE
        with translate_os_errors(run.path):
            run_id = file.read_text().strip() if file.exists() else uuid4().hex[:12]
        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                resume="allow",
                name=str(run.path),
                config=run.config.model_dump(mode="json"),
                # don't capture the terminal output
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                f"Weights & Biases cannot start ({' '.join(str(error).split())}); log in with "
                "`wandb login`, or set WANDB_MODE=offline and run `wandb sync` later"
            ) from error
        with translate_os_errors(run.path):
            write_atomically(file, run_id + "\n")
        # plotted against `iteration`: wandb's own steps cannot go back when a killed run is resumed
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"iteration": iteration, **metrics})

    def write_video(self, iteration: int, path: Path) -> None:
        video = import_module("wandb").Video(str(path), format="gif")
        self._run.log({"iteration": iteration, "policy": video})

    def close(self) -> None:
        self._run.finish()
