"""A run is a directory: what was asked for, how far it got, and what was seen on the way.

    config.yaml               the whole experiment, defaults included
    state.json                iteration, versions, and which weights belong to it
    weights-000100.safetensors   meta-parameters, and the outer optimiser's state
    metrics.jsonl             one line a meta-iteration
    events.out.tfevents...    the same for TensorBoard
    evaluation.json, evaluation.csv, adaptation.png   the adaptation curve at the end

Every file is written beside its place and then moved there, so that a run that is killed at any
moment can be resumed. Weights are named by their iteration and `state.json` is what points to them:
the two cannot disagree.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.utils.tensorboard.writer import SummaryWriter

from metarl.errors import UserError, did_you_mean
from metarl.files import write_atomically
from metarl.method import TrainingState, load_method
from metarl.runs.config import AnyConfig, differences, dump_config, load_config

# settings that may change on resuming: what was already computed does not depend on them
RESUMABLE = (
    "outer.iterations",
    "evaluation.",
    "baseline.step_sizes",
    "baseline.validation_tasks",
    "baseline.chosen_after",
    "device",
    "checkpoint_every",
    "report_every",
)
TORN = 2**62
LIBRARIES = ("metarl-maml", "torch", "numpy", "gymnasium", "mujoco")


@cache
def package_commit() -> str | None:
    """The commit of this package, where it runs from a checkout, marked where it was changed."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent.parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        result = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or a checkout that it doesn't trust
    return result.stdout.strip()


def trained_runs() -> dict[str, Path]:
    """The runs that come with the package, by name."""
    folder = Path(str(resources.files("metarl.configs"))) / "trained"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}


class Run:
    """A run directory. Make one with `create`, or find one with `open`.

    Attributes:
        path: the directory.
        config: the experiment.
        results: where evaluations, videos and plots go: the directory itself, but for the runs that
            come with the package, which are not to be written to.
    """

    def __init__(self, path: Path, config: AnyConfig, results: Path | None = None) -> None:
        self.path = path
        self.config = config
        self.results = results or path

    @classmethod
    def create(cls, path: Path, config: AnyConfig) -> "Run":
        """Start a run in a directory that is empty or does not exist yet.

        Raises:
            UserError: if something is there already, or the directory cannot be written.
        """
        try:
            if path.is_dir() and any(path.iterdir()):
                what = "already holds a run" if (path / "state.json").exists() else "is not empty"
                raise UserError(
                    f"{path} {what}; continue that one with --resume {path}, or name another "
                    "directory with --out"
                )
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "config.yaml", dump_config(config))
        except OSError as error:
            raise UserError(
                f"cannot write to {path} ({error.strerror}); name another directory with --out"
            ) from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path, overrides: tuple[str, ...] = ()) -> "Run":
        """A run that exists, with settings changed that may change.

        Args:
            path: its directory, or the name of one that comes with the package.
            overrides: settings such as `evaluation.seed=2`.

        Raises:
            UserError: if there is none, its files are damaged, or a setting may not change.
        """
        results = path
        shipped = trained_runs()
        if not path.exists() and str(path) in shipped:
            path, results = shipped[str(path)], Path("runs") / "trained" / path
        file = path / "config.yaml"
        if not file.is_file():
            raise UserError(
                f"there is no run in {path}: it has no config.yaml"
                f"{did_you_mean(str(path), shipped)}; give the directory of a run, or one of the "
                f"names {', '.join(shipped)}"
            )
        try:
            config = load_config(str(file))
        except UserError as error:
            raise UserError(
                f"the run in {path} was made with other settings than this version of metarl "
                f"knows; train it anew, or use the version that made it (state.json names it). "
                f"{error}"
            ) from error
        run = cls(path, config, results)
        if overrides:
            run.reconfigure(load_config(str(file), overrides))
        return run

    def reconfigure(self, config: AnyConfig) -> None:
        """Continue with this config instead.

        Raises:
            UserError: if it differs in what already computed iterations depend on.
        """
        # where steps shrink towards the last iteration, which that is matters from the first
        fixed = "outer.iterations" if load_method(self.config).anneals else None
        free = [name for name in RESUMABLE if name != fixed]
        if changed := differences(self.config, config, free):
            raise UserError(
                f"the run in {self.path} was started with other settings "
                f"({'; '.join(changed)}); resume it without changing them, or start a new run"
            )
        self.config = config

    def save_config(self) -> None:
        """Write the config that the run continues with."""
        write_atomically(self.path / "config.yaml", dump_config(self.config))

    def save(self, state: TrainingState, data_hashes: Mapping[str, str] | None = None) -> None:
        """Write a checkpoint, and then forget the one before it.

        Args:
            state: what to save.
            data_hashes: of the data that it was trained on.
        """
        tensors = {f"theta.{name}": value for name, value in state.theta.items()}
        tensors |= {f"optimizer.{name}": value for name, value in state.optimizer.items()}
        weights = save_tensors({name: value.contiguous() for name, value in tensors.items()})
        file = self.path / f"weights-{state.iteration:06d}.safetensors"
        write_atomically(file, weights)
        # safetensors keep names sorted; parameters are used in the order of their making
        description = {
            "iteration": state.iteration,
            "samples": state.samples,
            "weights": file.name,
            "sha256": hashlib.sha256(weights).hexdigest(),
            "order": list(tensors),
            "provenance": dict(data_hashes or {}),
            "commit": package_commit(),
            "versions": {library: version(library) for library in LIBRARIES},
            "python": platform.python_version(),
        }
        self.save_config()
        write_atomically(self.path / "state.json", json.dumps(description, indent=2) + "\n")
        for old in self.path.glob("weights-*.safetensors"):
            if old != file:
                old.unlink()

    def load(self) -> TrainingState:
        """The latest checkpoint.

        Raises:
            UserError: if there is none yet, or it is damaged.
        """
        file = self.path / "state.json"
        if not file.is_file():
            raise UserError(f"the run in {self.path} has no checkpoint yet (no state.json)")
        try:
            description = json.loads(file.read_text())
            weights = (self.path / description["weights"]).read_bytes()
            if hashlib.sha256(weights).hexdigest() != description["sha256"]:
                raise ValueError("its checksum is not the one in state.json")
            tensors = load_tensors(weights)
            parts: dict[str, dict[str, torch.Tensor]] = {"theta": {}, "optimizer": {}}
            for name in description["order"]:
                part, _, leaf = name.partition(".")
                parts[part][leaf] = tensors[name]
            return TrainingState(
                int(description["iteration"]),
                parts["theta"],
                parts["optimizer"],
                int(description["samples"]),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"the checkpoint in {self.path} is damaged, or of another version of metarl "
                f"({type(error).__name__}: {error}); restore it from a copy, or train anew"
            ) from error

    def data_hashes(self) -> dict[str, str]:
        """Checksums of the data that the latest checkpoint was trained on."""
        return dict(self._description()["provenance"])

    def check_data_hashes(self, data_hashes: Mapping[str, str]) -> None:
        """Compare the data at hand with those that the run was trained on.

        Raises:
            UserError: if they are others.
        """
        for name, expected in self.data_hashes().items():
            if data_hashes.get(name) != expected:
                raise UserError(
                    f"the run in {self.path} was trained on other data: its {name} is "
                    f"{expected[:12]}…, that of the data at hand "
                    f"{data_hashes.get(name, '')[:12]}…; `metarl data check` tells what you have"
                )

    def weights_sha256(self) -> str:
        """The checksum of the latest checkpoint's weights, which `load` has verified."""
        return str(self._description()["sha256"])

    def commit(self) -> str | None:
        """The commit of this package that trained the latest checkpoint, where it was known."""
        return self._description()["commit"]  # type: ignore[no-any-return]

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = json.loads((self.path / "state.json").read_text())
        return description

    def metrics(self) -> list[dict[str, float]]:
        """What was logged in training, a dictionary for each iteration; empty if nothing was."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        return [json.loads(line) for line in lines if _iteration(line) < TORN]


class MetricsLog:
    """Metrics of every iteration, as JSON lines and for TensorBoard.

    Opened at an iteration, it forgets what a run that was killed had written beyond it.
    """

    def __init__(self, run: Run, iteration: int) -> None:
        path = run.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _iteration(line) <= iteration]
            write_atomically(path, "".join(kept))
        self._file = path.open("a")
        self._writer = SummaryWriter(str(run.path), purge_step=iteration + 1 if iteration else None)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Add one iteration."""
        self._file.write(json.dumps({"iteration": iteration, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._writer.close()


def _iteration(line: str) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError):
        return TORN  # the torn last line of a run that was killed while writing it
