"""The metrics of a training at Weights & Biases as well; the package is an extra."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from metarl.errors import UserError
from metarl.io import translate_os_errors, write_atomically

if TYPE_CHECKING:
    from metarl.runs.run import Run

ID = "wandb-id"  # in a run's directory: whatever resumes it goes on in the same run there


def require_wandb() -> None:
    """Raise UserError if the package is not installed."""
    if find_spec("wandb") is None:
        raise UserError(
            "--wandb needs the package wandb: pip install 'metarl-maml[wandb]', or leave it out "
            "(TensorBoard has the same curves)"
        )


class WandbLog:
    """Metrics of every iteration, in a run of a project.

    Args:
        project: at Weights & Biases.
        run: what is trained; its config is sent too.

    Raises:
        UserError: if the package cannot begin, as without an account.
        StorageError: if the run's directory cannot be written.
    """

    def __init__(self, project: str, run: "Run") -> None:
        require_wandb()
        wandb: Any = import_module("wandb")
        file = run.path / ID
        with translate_os_errors(run.path):
            identity = file.read_text().strip() if file.exists() else uuid4().hex[:12]
        try:
            self._run = wandb.init(
                project=project,
                id=identity,
                resume="allow",
                name=str(run.path),
                config=run.config.model_dump(mode="json"),
                # what is printed is for whoever sits here, or for the log
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, OSError) as error:
            raise UserError(
                f"Weights & Biases cannot begin ({' '.join(str(error).split())}); log in with "
                "`wandb login`, or set WANDB_MODE=offline and `wandb sync` later"
            ) from error
        with translate_os_errors(run.path):
            write_atomically(file, identity + "\n")
        # not by steps of its own: a run that was killed goes on before where it was
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration."""
        self._run.log({"iteration": iteration, **metrics})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
