"""Checkpoints: the weights of a run, and `state.json`, which names them.

Files are replaced atomically, and weights are named by their iteration, so that the two agree
whenever the writing process is killed. Files are validated when they are read: they may be damaged,
or come from somebody else.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from metarl.config.files import CONFIG
from metarl.config.sections import first_error
from metarl.errors import UserError
from metarl.experiment import AnyConfig, dump_config
from metarl.io import read_bytes, translate_os_errors, write_atomically
from metarl.method import TrainingState
from metarl.runs.provenance import machine, package_commit, versions
from metarl.threads import processors

STATE, WEIGHTS = "state.json", "weights-*.safetensors"
MAX_STATE_BYTES, MAX_WEIGHTS_BYTES = 10**7, 2**32
# prefixes of tensor names in the weights file, and the fields of TrainingState that they stand for
PARTS = {"theta": "params", "optimizer": "opt_state", "extra": "extra"}
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class Description(BaseModel):
    """The fields of `state.json` that are read; see also `metarl.method.TrainingState`."""

    iteration: Count
    samples: Count
    metric_accumulator: dict[str, float] = Field(default={}, alias="pending")
    weights: str | None  # the name of the file; None for a run published without weights
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # of the weights
    # the names of the tensors in the order of the state; safetensors sort them
    order: list[Annotated[str, Field(pattern=rf"^({'|'.join(PARTS)})\..")]] = []
    provenance: dict[str, str] = {}  # checksums of the training data
    commit: str | None = None  # of this package, if known
    machine: str | None = None  # that trained the run, if recorded
    config: dict[str, Any] | None = None  # of the training; None for runs of earlier versions


@dataclass(frozen=True)
class Checkpoint:
    """A training state with the content of state.json; its checksum was verified."""

    state: TrainingState
    description: Description


def weights_name(iteration: int) -> str:
    """The name of the weights file of an iteration."""
    return f"weights-{iteration:06d}.safetensors"


def write_checkpoint(
    folder: Path, state: TrainingState, config: AnyConfig, data_hashes: Mapping[str, str]
) -> None:
    """Write a checkpoint into a run directory, then remove the previous one.

    Raises:
        StorageError: if it cannot be written. The previous checkpoint is then still valid.
    """
    tensors = {
        f"{prefix}.{name}": value
        for prefix, part in PARTS.items()
        for name, value in getattr(state, part).items()
    }
    # copies, since safetensors refuse tensors that share memory
    copies = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    weights = save_tensors(copies)
    file = folder / weights_name(state.iteration)
    description = {
        "iteration": state.iteration,
        "samples": state.samples,
        "pending": state.metric_accumulator,
        "weights": file.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        # safetensors sort names, but flattened parameters depend on their order
        "order": list(tensors),
        "provenance": dict(data_hashes),
        "commit": package_commit(),
        "machine": f"{machine()}, {processors()} threads",
        "versions": versions(),
        "python": platform.python_version(),
        "config": config.model_dump(mode="json"),
    }
    # state.json is last: until it names the new weights, the previous checkpoint is valid
    with translate_os_errors(folder):
        write_atomically(file, weights)
        write_atomically(folder / CONFIG, dump_config(config))
        write_atomically(folder / STATE, json.dumps(description, indent=2) + "\n")
        for old in folder.glob(WEIGHTS):
            if old != file:
                old.unlink()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the latest checkpoint, also while another process trains the run.

    Raises:
        UserError: if there is none, it is damaged, or the run was published without weights.
    """
    description = read_description(folder)
    while True:
        if description.weights is None:
            raise UserError(
                f"the run in {folder} was published without its weights, so that it cannot be "
                "evaluated again, rendered or resumed; train it again: metarl train "
                f"{folder / CONFIG} --out NEW_DIRECTORY"
            )
        try:
            return Checkpoint(_read_state(folder, description), description)
        except (OSError, ValueError, SafetensorError) as error:
            # a training process may have replaced the weights since state.json was read
            latest = read_description(folder)
            if latest == description:  # nobody has: the files are damaged
                raise _damaged(folder, error) from error
            description = latest


def read_description(folder: Path) -> Description:
    """Read `state.json`.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    file = folder / STATE
    if not file.exists():
        raise UserError(f"the run in {folder} has no checkpoint yet (no state.json)")
    try:
        return Description.model_validate_json(read_bytes(file, MAX_STATE_BYTES))
    except ValidationError as error:
        raise _damaged(folder, ValueError(first_error(error, STATE))) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error


def _read_state(folder: Path, description: Description) -> TrainingState:
    # a name from a file of unknown origin must not lead out of the directory
    if description.weights != weights_name(description.iteration):
        raise ValueError(f"{description.weights} is not of iteration {description.iteration}")
    weights = read_bytes(folder / description.weights, MAX_WEIGHTS_BYTES)
    # safetensors check the header only: a damaged number would be read as another one
    if hashlib.sha256(weights).hexdigest() != description.sha256:
        raise ValueError("its checksum is not the one in state.json")
    tensors = load_tensors(weights)
    if sorted(tensors) != sorted(description.order):
        raise ValueError("its tensors are not those that state.json names")
    parts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in PARTS.values()}
    for name in description.order:
        prefix, _, leaf = name.partition(".")
        parts[PARTS[prefix]][leaf] = tensors[name]
    return TrainingState(
        description.iteration,
        samples=description.samples,
        metric_accumulator=description.metric_accumulator,
        **parts,
    )


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint in {folder} is damaged, or of another version of metarl "
        f"({type(error).__name__}: {error}); restore it from a copy, or train again"
    )
