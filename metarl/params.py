"""Parameters are plain dictionaries of tensors; these are the few things one does with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it is needed, which takes a second: whatever a config names knows these
Params = dict[str, "Tensor"]
CACHE_LINE = 64  # bytes; torch's allocator begins there


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """All parameters as one vector (P,), in the dictionary's order."""
    import torch

    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Params:
    """The inverse of `flatten`: a vector (P,) with the names and shapes of `like`."""
    import torch

    pieces = torch.split(vector, [value.numel() for value in like.values()])
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def aligned(params: Mapping[str, Tensor]) -> Params:
    """The same, each leaf contiguous and at the beginning of a cache line.

    How small products are rounded depends on where in memory their factors lie. Leaves that are cut
    out of one vector, as by `unflatten`, or out of a file, lie anywhere.
    """
    import torch

    return {
        name: leaf
        if leaf.is_contiguous() and leaf.data_ptr() % CACHE_LINE == 0
        else leaf.clone(memory_format=torch.contiguous_format)
        for name, leaf in params.items()
    }


def repeat(params: Mapping[str, Tensor], num_tasks: int) -> Params:
    """One copy for each task, without copying memory: every leaf (...) becomes (N, ...)."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def take(params: Mapping[str, Tensor], task: int) -> Params:
    """The parameters of one task out of stacked ones: every leaf (N, ...) becomes (...)."""
    return {name: value[task] for name, value in params.items()}


def concatenate(chunks: Iterable[Mapping[str, Tensor]]) -> Params:
    """Stacked parameters of several groups of tasks, joined along the task axis."""
    import torch

    chunks = list(chunks)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
