"""Networks as stateless functions of a parameter dictionary, for one task or for many.

Every network serves one task or many. Where its parameters are stacked over tasks, (N, ...), so are
its inputs, and each task has weights of its own: one call a layer for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from metarl.config.registry import Registry
from metarl.params import Params

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NETWORKS = Registry(
    "network", {"mlp": "metarl.networks.config:MLP", "conv4": "metarl.networks.config:Conv4"}
)


class Network(Protocol):
    """A section of the config that is a function of parameters; a file each."""

    @property
    def kind(self) -> str:
        """Its name."""

    @property
    def for_images(self) -> str | None:
        """The setting, if any, because of which it serves images alone."""

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters to start from, not stacked, for inputs of a shape and O outputs."""

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...), with parameters stacked over N tasks."""

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
