"""The state of a training in a run's directory: weights, and `state.json`, which points to them.

Every file is written beside its place and then moved there. Weights are named by their iteration:
the two cannot disagree, whenever the process that writes them is killed. What is read is not
trusted: it may come from somebody else, and may be damaged.
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

from metarl.config.sections import first_error
from metarl.errors import UserError
from metarl.experiment import CONFIG, AnyConfig, dump_config
from metarl.io import read_bytes, translate_os_errors, write_atomically
from metarl.method import TrainingState
from metarl.runs.provenance import machine, package_commit, versions
from metarl.threads import processors

STATE, WEIGHTS = "state.json", "weights-*.safetensors"
LARGEST_STATE, LARGEST_WEIGHTS = 10**7, 2**32  # bytes
Count = Annotated[int, Field(ge=0, lt=2**53, strict=True)]


class Description(BaseModel):
    """What `state.json` says, as far as anybody asks.

    Attributes:
        iteration: how many iterations are done.
        samples: how many samples were learned from.
        pending: metrics since they were last reported, see `metarl.method.TrainingState`.
        weights: the file beside it.
        sha256: its checksum.
        order: its tensors as they were made: safetensors keep names sorted.
        provenance: checksums of the data that were learned from.
        commit: of this package, where it was known.
        machine: what trained it, where that was recorded.
        config: that of the training; None in runs of earlier versions.
    """

    iteration: Count
    samples: Count
    pending: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    weights: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    order: list[Annotated[str, Field(pattern=r"^(theta|optimizer)\..")]]
    provenance: dict[str, str] = {}
    commit: str | None = None
    machine: str | None = None
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A state of a run, and what is known of it; all of the same moment.

    Attributes:
        state: to go on from, or to be measured.
        description: with the checksum of its weights, which was verified.
    """

    state: TrainingState
    description: Description


def weights_name(iteration: int) -> str:
    """The file of an iteration's weights."""
    return f"weights-{iteration:06d}.safetensors"


def write_checkpoint(
    folder: Path, state: TrainingState, config: AnyConfig, data_hashes: Mapping[str, str]
) -> None:
    """Write a checkpoint, and then forget the one before it.

    Args:
        folder: of the run.
        state: what to save.
        config: of the training.
        data_hashes: checksums of the data that were learned from.

    Raises:
        StorageError: if it cannot be written. The checkpoint before it is still there then.
    """
    tensors = {f"theta.{name}": value for name, value in state.params.items()}
    tensors |= {f"optimizer.{name}": value for name, value in state.opt_state.items()}
    weights = save_tensors({name: value.contiguous() for name, value in tensors.items()})
    file = folder / weights_name(state.iteration)
    description = {
        "iteration": state.iteration,
        "samples": state.samples,
        "pending": state.metric_accumulator,
        "weights": file.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        # safetensors keep names sorted; parameters are used in the order of their making
        "order": list(tensors),
        "provenance": dict(data_hashes),
        "commit": package_commit(),
        "machine": f"{machine()}, {processors()} threads",
        "versions": versions(),
        "python": platform.python_version(),
        "config": config.model_dump(mode="json"),
    }
    with translate_os_errors(folder):
        write_atomically(file, weights)
        write_atomically(folder / CONFIG, dump_config(config))
        write_atomically(folder / STATE, json.dumps(description, indent=2) + "\n")
        for old in folder.glob(WEIGHTS):
            if old != file:
                old.unlink()


def read_checkpoint(folder: Path) -> Checkpoint:
    """The latest checkpoint, of a run that may be trained meanwhile.

    Raises:
        UserError: if there is none yet, or it is damaged.
    """
    description = _describe(folder)
    while True:
        try:
            return Checkpoint(_state(folder, description), description)
        except (OSError, ValueError, SafetensorError) as error:
            # of a run that is being trained, there may be newer weights by now
            latest = _describe(folder)
            if latest == description:
                raise _damaged(folder, error) from error
            description = latest


def _describe(folder: Path) -> Description:
    file = folder / STATE
    if not file.exists():
        raise UserError(f"the run in {folder} has no checkpoint yet (no state.json)")
    try:
        return Description.model_validate_json(read_bytes(file, LARGEST_STATE))
    except ValidationError as error:
        raise _damaged(folder, ValueError(first_error(error, STATE))) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error


def _state(folder: Path, description: Description) -> TrainingState:
    if description.weights != weights_name(description.iteration):
        raise ValueError(f"{description.weights} is not of iteration {description.iteration}")
    weights = read_bytes(folder / description.weights, LARGEST_WEIGHTS)
    if hashlib.sha256(weights).hexdigest() != description.sha256:
        raise ValueError("its checksum is not the one in state.json")
    tensors = load_tensors(weights)
    if sorted(tensors) != sorted(description.order):
        raise ValueError("its tensors are not those that state.json names")
    parts: dict[str, dict[str, torch.Tensor]] = {"theta": {}, "optimizer": {}}
    for name in description.order:
        part, _, leaf = name.partition(".")
        parts[part][leaf] = tensors[name]
    return TrainingState(
        description.iteration,
        parts["theta"],
        parts["optimizer"],
        description.samples,
        description.pending,
    )


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint in {folder} is damaged, or of another version of metarl "
        f"({type(error).__name__}: {error}); restore it from a copy, or train anew"
    )
