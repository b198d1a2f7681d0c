"""A run is a directory: what was asked for, how far it got, and what was seen on the way.

    config.yaml               the whole experiment, defaults included
    state.json                iteration, versions, and which weights belong to it
    weights-000100.safetensors   meta-parameters, and the outer optimiser's state
    metrics.jsonl             one line a meta-iteration
    events.out.tfevents...    the same for TensorBoard
    evaluation.json, evaluation.csv, adaptation.png   the adaptation curve at the end
    training.log              what its process said, where several were trained side by side

A run that is killed at any moment can be resumed (`metarl.runs.checkpoint`); one that has no
`state.json` yet is at its beginning.

One process trains a run at a time; any number may read it meanwhile. What is read is not trusted: a
run may come from somebody else, and may be damaged.
"""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.dataframe import to_dataframe
from metarl.errors import UserError
from metarl.experiment import (
    CONFIG,
    TRUST_VARIABLE,
    AnyConfig,
    describe_source,
    diff_recorded,
    differences,
    dump_config,
    read_values,
    resolve_run_dir,
    set_values,
    validate_config,
)
from metarl.io import stale_temp_files, translate_os_errors, write_atomically
from metarl.method import TrainingState, load_method
from metarl.runs import hub
from metarl.runs.checkpoint import (
    STATE,
    WEIGHTS,
    Checkpoint,
    Description,
    read_checkpoint,
    weights_name,
    write_checkpoint,
)
from metarl.runs.metrics import NAME as METRICS
from metarl.runs.metrics import read_metrics

if TYPE_CHECKING:
    from pandas import DataFrame

# settings that may change on resuming: what was already computed does not depend on them
RESUMABLE = (
    "outer.iterations",
    "evaluation.",
    "baseline.step_sizes",
    "baseline.validation_tasks",
    "baseline.selection_step",
    "device",
    "data.path",  # what is there is told by its checksum
    "checkpoint_every",
    "report_every",
)
LOCK = ".lock"


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
        self._checkpoint: Checkpoint | None = None

    @classmethod
    def create(cls, path: Path, config: AnyConfig) -> "Run":
        """Start a run in a directory that is empty or does not exist yet.

        Its first checkpoint makes it one. What a run left that was killed before counts as empty.

        Args:
            path: the directory.
            config: the experiment as its problem has it, with what had to be measured.

        Raises:
            UserError: if something is there already, or the directory cannot be written.
        """
        try:
            if (path / CONFIG).exists():
                state = "already holds a run"
                if not (path / STATE).exists():
                    state += ", which was stopped before its first checkpoint"
                raise UserError(
                    f"{path} {state}; continue that one with --resume {path}, or name another "
                    "directory with --out"
                )
            if path.is_dir() and {*path.iterdir()} - {*_unborn(path)}:
                raise UserError(f"{path} is not empty; name another directory with --out")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path, overrides: tuple[str, ...] = (), trust_code: bool = False) -> "Run":
        """A run that exists, with settings changed that may change.

        Args:
            path: its directory, the name of one that comes with the package, or `hf:USER/NAME`.
            overrides: settings such as `evaluation.seed=2`.
            trust_code: import what its config names that is not of this package; so does the
                environment variable METARL_TRUST_CODE=1. Runs are exchanged between people, and
                what is imported is executed.

        Raises:
            UserError: if there is none, its files are damaged, it names code that is not trusted,
                or a setting may not change.
        """
        results = path
        if str(path).startswith(hub.PREFIX):
            address = str(path)
            path, results = hub.fetch(address), Path("runs") / address.replace(":", "/")
        name, path = path, resolve_run_dir(path)
        if path != name:
            results = Path("runs") / "trained" / name
        file = path / CONFIG
        values = read_values(file)
        if not (trust_code or os.environ.get(TRUST_VARIABLE) == "1"):
            _refuse_code(path, values)
        try:
            config = validate_config(values, str(file), recorded=True)
        except UserError as error:
            raise UserError(
                f"the run in {path} was made with other settings than this version of metarl "
                f"knows; train it anew, or use the version that made it (state.json names it). "
                f"{error}"
            ) from error
        run = cls(path, config, results)
        if overrides:
            set_values(values, overrides)
            source = describe_source(file, overrides)
            run.reconfigure(validate_config(values, source, recorded=True))
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that trains this run.

        The lock is the process's: it dies with it, though children that it forked may live on.

        Raises:
            UserError: if another process trains it, or its directory cannot be written.
        """
        try:
            lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {platform.node()}")
                lock.flush()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise _unwritable(self.path, error) from error
                lock.seek(0)
                raise UserError(
                    f"the run in {self.path} is being trained by "
                    f"{lock.read(200) or 'another process'}; wait until that ends, or stop it"
                ) from error
            yield

    def remove_leftovers(self) -> None:
        """Remove what a process was writing when it was killed; for the one that holds the lock."""
        with translate_os_errors(self.path):
            for file in stale_temp_files(self.path):
                file.unlink(missing_ok=True)

    def reconfigure(self, config: AnyConfig) -> None:
        """Continue with this config instead.

        Raises:
            UserError: if it differs in what already computed iterations depend on.
        """
        config = load_method(config).problem.config  # with what is measured, as the run's own is
        if changed := differences(self.config, config, self._free()):
            raise UserError(
                f"the run in {self.path} was started with other settings "
                f"({'; '.join(changed)}); resume it without changing them, or start a new run"
            )
        self.config = config

    def _free(self) -> list[str]:
        """The settings that may change."""
        # where steps shrink towards the last iteration, which that is matters from the first
        fixed = "outer.iterations" if load_method(self.config).uses_lr_schedule else None
        return [name for name in RESUMABLE if name != fixed]

    def save_config(self) -> None:
        """Write the config that the run continues with."""
        with translate_os_errors(self.path):
            write_atomically(self.path / CONFIG, dump_config(self.config))

    def save(self, state: TrainingState, data_hashes: Mapping[str, str] | None = None) -> None:
        """Write a checkpoint, and then forget the one before it.

        Args:
            state: what to save.
            data_hashes: of the data that it was trained on.

        Raises:
            StorageError: if it cannot be written. The checkpoint before it is still there then.
        """
        self._checkpoint = None
        write_checkpoint(self.path, state, self.config, data_hashes or {})

    def has_checkpoint(self) -> bool:
        """Whether it was saved yet: a run that was killed before is at its beginning.

        Raises:
            UserError: if it was, and its state.json is lost.
        """
        if (self.path / STATE).exists():
            return True
        traces = [*self.path.glob(METRICS), *self.path.glob(WEIGHTS)]
        if trained := [file.name for file in traces if file.name != weights_name(0)]:
            raise UserError(
                f"the run in {self.path} has lost its state.json: {trained[0]} shows that it was "
                "trained; restore it from a copy, or train anew in another directory"
            )
        return False

    def load(self) -> TrainingState:
        """The state of `checkpoint`."""
        return self.checkpoint().state

    def checkpoint(self) -> Checkpoint:
        """The latest checkpoint, as it was when it was first asked for, or saved last.

        All that is measured of a run is then of the same weights, though it is being trained.

        Raises:
            UserError: if there is none yet, it is damaged, or config.yaml was edited since.
        """
        if self._checkpoint is None:
            self._checkpoint = read_checkpoint(self.path)
            self._refuse_edits(self._checkpoint.description)
        return self._checkpoint

    def _refuse_edits(self, description: Description) -> None:
        if description.config is None:
            return
        if changed := diff_recorded(description.config, self.config, self._free()):
            raise UserError(
                f"{self.path / CONFIG} is not what the run was trained with "
                f"({'; '.join(changed)}); restore these settings, or start a new run: what may "
                "change is changed with --set, such as --set outer.iterations=500"
            )

    def data_hashes(self) -> dict[str, str]:
        """Checksums of the data that the checkpoint was trained on."""
        return self.checkpoint().description.provenance

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
        """The checksum of the checkpoint's weights."""
        return self.checkpoint().description.sha256

    def commit(self) -> str | None:
        """The commit of this package that trained the checkpoint, where it was known."""
        return self.checkpoint().description.commit

    def metrics(self) -> list[dict[str, float]]:
        """What was logged in training, a dictionary for each iteration; empty if nothing was.

        Raises:
            UserError: if it is damaged.
        """
        return read_metrics(self.path)

    def to_frame(self) -> "DataFrame":
        """What was logged in training as a pandas frame, a row for each iteration.

        Raises:
            UserError: if it is damaged, or pandas is not installed.
        """
        return to_dataframe(self.metrics())


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {path} ({error.strerror}); name another directory")


def _unborn(path: Path) -> Iterator[Path]:
    """What a run leaves that is killed before it has a config."""
    yield path / LOCK
    if not (path / STATE).exists():
        yield path / weights_name(0)
    yield from stale_temp_files(path)


def _refuse_code(path: Path, values: Mapping[str, Any]) -> None:
    """Raise UserError if a config names code that is not of this package: `module:Class`."""
    for name, value in _texts(values):
        if ":" in value:
            raise UserError(
                f"the run in {path} names code that is not of this package ({name}: {value!r}), "
                "which would be imported and executed; if you trust it, add --trust-code, or set "
                f"{TRUST_VARIABLE}=1"
            )


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text among plain values, with the name of its setting."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)
    elif isinstance(value, str):
        yield name, value
