"""The file of an adapted policy or network: tensors, and the checksum of the run's weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from metarl.errors import UserError
from metarl.io import report_os_errors, write_atomically
from metarl.runs.run import Run


def save_adapted(
    file: str | Path, run: Run, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> Path:
    """Write tensors by name, and further values as JSON, to a safetensors file."""
    path = Path(file)
    # safetensors refuse views and tensors that share memory
    copies = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    metadata = {name: json.dumps(value) for name, value in values.items()}
    content = save(copies, {**metadata, "weights_sha256": run.weights_sha256()})
    with report_os_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


def load_adapted(
    file: str | Path, run: Run, kind: str, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[Any]]:
    """Read what `save_adapted` wrote: the tensors, and the values with these names.

    Args:
        file: the file.
        run: the run from which it was adapted.
        kind: "policy" or "network", for messages.
        names: the values to read.

    Raises:
        UserError: if the file cannot be read, or was adapted from other weights.
    """
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        values = [json.loads(metadata[name]) for name in names]
    except KeyError as error:
        raise UserError(f"{file} was not written by the `save` of an adapted {kind}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{file} is not a saved {kind} ({error})") from error
    if metadata.get("weights_sha256") != run.weights_sha256():
        raise UserError(f"{file} was adapted from other weights than those of {run.path}")
    return tensors, values
