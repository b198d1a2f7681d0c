"""A run directory: config, checkpoint, metrics and evaluations of one training.

    config.yaml               the whole experiment, defaults included
    state.json                iteration, versions, and the name of the weights file
    weights-000100.safetensors   meta-parameters, and the state of the outer optimiser
    metrics.jsonl             one line per report (`report_every`)
    events.out.tfevents...    the same for TensorBoard
    evaluation.json, evaluation.csv, adaptation.png, rewards.png   the adaptation curve
    videos/000100.gif         the policy during training, if the config sets `record_every`
    training.log              the output of its process, if several runs are trained in parallel

A run that is killed at any moment can be resumed (`metarl.runs.checkpoint`); without `state.json`
it starts from the beginning. One process trains a run at a time, while any number may read it.
Files are validated when they are read: they may be damaged, or come from somebody else.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.config.files import CONFIG, TRUST_VARIABLE, read_values, resolve_run_dir
from metarl.dataframe import to_dataframe
from metarl.errors import UserError
from metarl.experiment import (
    AnyConfig,
    all_settings,
    describe_source,
    diff_recorded,
    differences,
    dump_config,
    set_values,
    validate_config,
)
from metarl.io import lock_file, stale_temp_files, translate_os_errors, write_atomically
from metarl.method import (
    TrainingState,
    best_state,
    has_best_state,
    is_trained,
    load_method,
    resolve,
)
from metarl.runs import hub
from metarl.runs.checkpoint import (
    STATE,
    WEIGHTS,
    Checkpoint,
    Description,
    read_checkpoint,
    read_description,
    weights_name,
    write_checkpoint,
)
from metarl.runs.metrics import METRICS, read_metrics

if TYPE_CHECKING:
    from pandas import DataFrame

# settings that may change when a run is resumed: earlier iterations don't depend on them
RESUMABLE = (
    "outer.iterations",
    "evaluation.",
    "baseline.step_sizes",
    "baseline.validation_tasks",
    "baseline.selection_step",
    "device",
    "data.path",  # the checksum of the data must agree
    "checkpoint_every",
    "report_every",
    "record_every",
)
# settings that the tensors of the weights depend on
SHAPING = ("method", "family", "data", "policy", "network", "inner.learned_step_sizes")
DOMAINS = {"rl": "reinforcement learning", "supervised": "few-shot learning"}
LOCK = ".lock"
PATHS = ("init_from.", "data.path")  # settings that name files, not code


class Run:
    """The directory of a training: config, weights, metrics and evaluations.

    `metarl.train` returns one, and `Run.open` opens an existing one. `metarl.load(run)` loads its
    policy, `metarl.evaluate(run)` evaluates it, and `run.to_frame()` is its training log.

    Attributes:
        path: the directory.
        config: the settings of the experiment, a `Config` or a `SupervisedConfig`.
        results: the output directory of evaluations, videos and plots: `path`, except for runs of
            the package and of the hub, which are read-only.
    """

    uses_best = False

    def __init__(self, path: Path, config: AnyConfig, results: Path | None = None) -> None:
        self.path = path
        self.config = config
        self.results = results or path
        self._checkpoint: Checkpoint | None = None

    def __repr__(self) -> str:
        return f"<run in {self.path}>"

    def at(self, checkpoint: str) -> Run:
        """The run with the parameters of a checkpoint: "last", or "best" with `early_stopping`.

        Raises:
            UserError: if there is no such checkpoint.
        """
        if checkpoint not in ("last", "best"):
            raise UserError(f"checkpoint must be last or best, not {checkpoint!r}")
        run = copy(self)
        run.uses_best = checkpoint == "best"
        if run.uses_best:
            run.load()
        return run

    @classmethod
    def create(cls, path: Path, config: AnyConfig) -> Run:
        """Create the directory of a new run; the first checkpoint completes it.

        Args:
            path: a directory that does not exist, is empty, or has only files of a run that was
                killed before its first checkpoint.
            config: the settings, as `metarl.method.resolve` returns them.

        Raises:
            UserError: if the directory has other files, or cannot be written.
        """
        try:
            if (path / CONFIG).exists():
                problem = "already holds a run"
                if not (path / STATE).exists():
                    problem += ", which was stopped before its first checkpoint"
                raise UserError(
                    f"{path} {problem}; continue that one with --resume {path}, delete it, or "
                    "choose another directory with --out"
                )
            if path.is_dir() and {*path.iterdir()} - {*_files_before_config(path)}:
                raise UserError(f"{path} is not empty; choose another directory with --out")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, config)

    @classmethod
    def open(cls, path: Path, overrides: tuple[str, ...] = (), trust_code: bool = False) -> Run:
        """Open an existing run, optionally with other settings.

        Args:
            path: its directory, the name of a trained run of the package (`metarl list`), or
                `hf:USER/NAME` on the Hugging Face hub.
            overrides: settings such as `evaluation.seed=2`.
            trust_code: whether to import custom code that the config names, which executes it. The
                environment variable METARL_TRUST_CODE=1 has the same effect.

        Raises:
            UserError: if there is no such run, it is damaged, it names code that is not trusted, or
                a changed setting must stay the same.
        """
        # evaluations of a run that cannot be written to go to a folder of its own in `runs`
        address, path = path, locate(path)
        results = path
        if str(address).startswith(hub.PREFIX):
            results = Path("runs") / str(address).replace(":", "/")
        elif path != address:
            results = Path("runs") / "trained" / address
        file = path / CONFIG
        values = read_values(file)
        # before the validation, which imports the classes that the config names
        trusted = trust_code or os.environ.get(TRUST_VARIABLE) == "1"
        if not trusted and (code := _custom_code(values)):
            name, value = code
            raise UserError(
                f"the run in {path} names code that is not of this package ({name}: {value!r}), "
                "which would be imported and executed; if you trust it, add --trust-code (in "
                f"Python trust_code=True), or set {TRUST_VARIABLE}=1"
            )
        try:
            config = validate_config(values, str(file), recorded=True)
        except UserError as error:
            raise UserError(
                f"the run in {path} was made with other settings than this version of metarl "
                f"knows, or by another installation; correct what follows, or use the version that "
                f"made it (see state.json). {error}"
            ) from error
        run = cls(path, config, results)
        if overrides:
            set_values(values, overrides)
            source = describe_source(file, overrides)
            run.reconfigure(validate_config(values, source, recorded=True, overrides=overrides))
        return run

    @classmethod
    def reopen(cls, path: Path, config: AnyConfig) -> Run:
        """Open a run to continue its training with a config.

        Raises:
            UserError: as `open` and `reconfigure`.
        """
        own = {value for _, value in _strings(config.model_dump(mode="json"))}
        recorded = [value for _, value in _strings(read_values(path / CONFIG)) if ":" in value]
        # code that the config names as well needs no further trust
        run = cls.open(path, trust_code=own.issuperset(recorded))
        run.reconfigure(config)
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for training by this process.

        The lock ends with the process, even if its forked children live on.

        Raises:
            UserError: if another process trains the run, or its directory cannot be written.
        """
        try:
            lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        with lock:
            try:
                lock_file(lock)
                lock.truncate(0)  # of the process before; written for the message below
                lock.write(f"process {os.getpid()} on {platform.node()}")
                lock.flush()
            except OSError as error:
                # POSIX allows both for a lock that another process holds
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise _unwritable(self.path, error) from error
                lock.seek(0)
                raise UserError(
                    f"the run in {self.path} is being trained by "
                    f"{lock.read(200) or 'another process'}; wait until that ends, or stop it"
                ) from error
            yield

    def check_idle(self) -> None:
        """Raise UserError if another process trains the run, so that its files change."""
        if (self.path / LOCK).exists():
            with self.locked():
                pass

    def remove_temp_files(self) -> None:
        """Remove temporary files of a killed process; call it only with the lock."""
        with translate_os_errors(self.path):
            for file in stale_temp_files(self.path):
                file.unlink(missing_ok=True)

    def reconfigure(self, config: AnyConfig) -> None:
        """Change the config, before training is resumed.

        Raises:
            UserError: if it changes settings that earlier iterations depend on.
        """
        if config.domain != self.config.domain:
            raise UserError(
                f"the run in {self.path} is of {DOMAINS[self.config.domain]}, the config of "
                f"{DOMAINS[config.domain]}; train it in another directory, with --out"
            )
        config = resolve(config)
        start = self.config.init_from
        if start and config.init_from and config.init_from.run == start.run:
            # recorded when training began
            config = config.model_copy(update={"init_from": start})
        ignored = [*self._resumable(), *self.config.unused_settings()]
        # both resolved: a value that was measured is compared with the measured one
        if config.method.name != self.config.method.name:
            raise UserError(
                f"the run in {self.path} is of method {self.config.method.name}, not "
                f"{config.method.name}; train in another directory, with --out"
            )
        if changed := differences(resolve(self.config), config, ignored):
            values = all_settings(config)
            overrides = [f"{name}={json.dumps(values.get(name))}" for name in _names(changed)]
            raise UserError(
                f"the run in {self.path} was started with other settings "
                f"({'; '.join(changed)}); resume it without changing them, or "
                f"{self._new_run(changed, overrides)}"
            )
        trained = self.description().iteration if self.has_checkpoint() else 0
        if load_method(config).num_iterations < trained:
            raise UserError(
                f"outer.iterations={config.outer.iterations}: the run in {self.path} has had "
                f"{trained} iterations already; set more, or train a new run"
            )
        self.config = config

    def changed_evaluation(self) -> list[str]:
        """The settings of the evaluation that changed since the checkpoint, as `name: old → new`.

        Empty for a checkpoint of an earlier version, which has no settings.
        """
        changed = diff_recorded(self.description().config or {}, self.config, ())
        return [text for text in changed if text.startswith("evaluation.")]

    def check_validations(self) -> None:
        """Check that validations of an unfinished training have the settings of earlier ones.

        Raises:
            UserError: if settings of the evaluation, which validations share, have changed.
        """
        if not self.has_checkpoint() or not (changed := self.changed_evaluation()):
            return
        state = self.load()
        if has_best_state(state) and not is_trained(load_method(self.config), state):
            raise UserError(
                f"the training in {self.path} has been validated with other settings "
                f"({'; '.join(changed)}); keep them until it ends, and then evaluate with new "
                f"settings: metarl evaluate {self.path} --set evaluation.…"
            )

    def _resumable(self) -> list[str]:
        """The settings that may change: `outer.iterations` only without a schedule."""
        fixed = "outer.iterations" if load_method(self.config).uses_lr_schedule else None
        return [name for name in RESUMABLE if name != fixed]

    def save_config(self) -> None:
        """Write `config` to the directory."""
        with translate_os_errors(self.path):
            write_atomically(self.path / CONFIG, dump_config(self.config))

    def save(self, state: TrainingState, data_hashes: Mapping[str, str] | None = None) -> None:
        """Write a checkpoint, with checksums of the training data; then remove the previous one.

        Raises:
            StorageError: if it cannot be written. The previous checkpoint is then still valid.
        """
        self._checkpoint = None
        write_checkpoint(self.path, state, self.config, data_hashes or {})

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint; a run that was killed before the first one has none.

        Raises:
            UserError: if the run was trained, and its state.json is missing.
        """
        if (self.path / STATE).exists():
            return True
        # weights of iteration 0 may be those of a run that was killed before its first state.json
        traces = [*self.path.glob(METRICS), *self.path.glob(WEIGHTS)]
        if trained := [file.name for file in traces if file.name != weights_name(0)]:
            raise UserError(
                f"the run in {self.path} has lost its state.json: {trained[0]} shows that it was "
                "trained; restore it from a copy, or train again in another directory"
            )
        return False

    def load(self) -> TrainingState:
        """The training state of the checkpoint."""
        state = self.checkpoint().state
        return best_state(state) if self.uses_best else state

    def checkpoint(self) -> Checkpoint:
        """The latest checkpoint, cached until the next `save`.

        Evaluations of a run that is being trained thus refer to one set of weights.

        Raises:
            UserError: if there is none, it is damaged, or config.yaml was edited.
        """
        if self._checkpoint is None:
            self._checkpoint = read_checkpoint(self.path)
            self._check_unedited(self._checkpoint.description)
        return self._checkpoint

    def description(self) -> Description:
        """The content of state.json, which also runs published without weights have.

        Raises:
            UserError: if there is no checkpoint, or it is damaged.
        """
        # of a published run, `checkpoint` would raise for want of weights
        if self._checkpoint is None and read_description(self.path).weights is None:
            return read_description(self.path)
        return self.checkpoint().description

    def _check_unedited(self, description: Description) -> None:
        if description.config is None:  # of an earlier version
            return
        if changed := diff_recorded(description.config, self.config, self._resumable()):
            raise UserError(
                f"{self.path / CONFIG} is not what the run was trained with "
                f"({'; '.join(changed)}); restore these settings, or {self._new_run(changed)}"
            )

    def _new_run(self, changed: Sequence[str], overrides: Sequence[str] = ()) -> str:
        """The advice, with its command, to train a run with changed settings."""
        # other networks and spaces, and learned step sizes, have other tensors
        fits = not any(name.startswith(SHAPING) for name in _names(changed))
        no_start = "--set init_from=null " * bool(self.config.init_from)
        start = f"--from {self.path} " if fits else no_start
        settings = "".join(f"--set {shlex.quote(override)} " for override in overrides)
        return (
            f"train a new run{' from its weights' * fits}: metarl train {self.path / CONFIG} "
            f"{start}{settings}--out NEW_DIRECTORY"
        )

    @property
    def trust_option(self) -> str:
        """The option with which commands open the run: empty unless it names custom code."""
        return " --trust-code" * bool(_custom_code(self.config.model_dump(mode="json")))

    def data_hashes(self) -> dict[str, str]:
        """Checksums of the training data."""
        return self.description().provenance

    def check_data_hashes(self, data_hashes: Mapping[str, str]) -> None:
        """Compare available data with the training data of the run.

        Raises:
            UserError: if they differ.
        """
        for name, expected in self.data_hashes().items():
            if data_hashes.get(name) != expected:
                raise UserError(
                    f"the run in {self.path} was trained on other data: its {name} is "
                    f"{expected[:12]}…, that of the available data is "
                    f"{data_hashes.get(name, '')[:12]}…; `metarl data check` shows what you have"
                )

    def weights_sha256(self) -> str:
        """The SHA-256 checksum of the weights file."""
        return self.description().sha256

    def commit(self) -> str | None:
        """The commit of metarl that wrote the checkpoint, if known."""
        return self.description().commit

    def metrics(self) -> list[dict[str, float]]:
        """The training metrics, one dictionary per report; empty if there are none.

        Raises:
            UserError: if they are damaged.
        """
        return read_metrics(self.path)

    def to_frame(self) -> DataFrame:
        """The training metrics as a pandas frame, one row per report.

        Raises:
            UserError: if they are damaged, or pandas is not installed.
        """
        return to_dataframe(self.metrics())


def locate(address: Path) -> Path:
    """The directory of a run, given by itself, by a name of this package, or as `hf:USER/NAME`.

    Raises:
        UserError: if there is no such run.
    """
    from_hub = str(address).startswith(hub.PREFIX)
    return resolve_run_dir(hub.fetch(str(address)) if from_hub else address)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {path} ({error.strerror}); choose another directory")


def _names(changed: Sequence[str]) -> list[str]:
    """The settings of `differences`."""
    return [text.partition(":")[0] for text in changed]


def _files_before_config(path: Path) -> Iterator[Path]:
    """Files that a run may have written before its config."""
    yield path / LOCK
    if not (path / STATE).exists():
        yield path / weights_name(0)
    yield from stale_temp_files(path)


def _custom_code(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """A setting that is an import string, `module:Class`, and its value; None without any."""
    return next(
        (
            (name, value)
            for name, value in _strings(values)
            if ":" in value and not name.startswith(PATHS)
        ),
        None,
    )


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every string among plain values, with the name of its setting."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _strings(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, name)
    elif isinstance(value, str):
        yield name, value
