"""Parameters are plain dictionaries of tensors; operations on them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metarl.errors import UserError

Params = dict[str, Tensor]
CACHE_LINE = 64  # bytes; torch's allocator aligns tensors to it


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """All parameters as one vector (P,), in the dictionary's order."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Params:
    """The inverse of `flatten`: a vector (P,) with the names and shapes of `like`."""
    pieces = torch.split(vector, [value.numel() for value in like.values()])
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def aligned(params: Mapping[str, Tensor]) -> Params:
    """Copy leaves that are not contiguous and aligned to a cache line.

    The rounding of small matrix products depends on the alignment of their factors. Leaves that are
    views of one vector, as returned by `unflatten`, or read from a file have any alignment.
    """
    return {
        name: leaf
        if leaf.is_contiguous() and leaf.data_ptr() % CACHE_LINE == 0
        else leaf.clone(memory_format=torch.contiguous_format)
        for name, leaf in params.items()
    }


def split_prefix(params: Mapping[str, Tensor], prefix: str) -> tuple[Params, Params]:
    """Split into parameters whose names lack a prefix, and those that have it, with it removed."""
    rest = {name: leaf for name, leaf in params.items() if not name.startswith(prefix)}
    prefixed = {
        name.removeprefix(prefix): leaf for name, leaf in params.items() if name.startswith(prefix)
    }
    return rest, prefixed


def with_prefix(params: Mapping[str, Tensor], prefix: str) -> Params:
    """The same parameters, whose names have a prefix; the inverse of `split_prefix`."""
    return {f"{prefix}{name}": leaf for name, leaf in params.items()}


def with_added(network: Params, added: Params) -> Params:
    """The parameters of a network, and those that a method adds to them.

    Raises:
        UserError: if a part of the network has the name of a part of the method's, by which the
            method finds its own.
    """
    parts = {name.split(".")[0] for name in added}
    for name in network:
        if name.split(".")[0] in parts:
            raise UserError(
                f"the network has a parameter {name!r}, but the method has parameters "
                f"{name.split('.')[0]!r} of its own; rename it in the network"
            )
    return network | added


def repeat(params: Mapping[str, Tensor], num_tasks: int) -> Params:
    """Stack copies for N tasks without copying memory: every leaf (...) becomes (N, ...)."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def concatenate(chunks: Iterable[Mapping[str, Tensor]]) -> Params:
    """Concatenate stacked parameters of several chunks of tasks along the task axis."""
    chunks = list(chunks)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
