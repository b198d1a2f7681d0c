"""Networks as pure functions of a parameter dictionary, for one task or for many.

If the parameters are stacked over N tasks, (N, ...), so are the inputs, and every task has its own
weights: each layer is one batched operation.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from metarl.config.registry import Registry
from metarl.params import Params

NETWORKS = Registry(
    "network", {"mlp": "metarl.networks.mlp:MLP", "conv4": "metarl.networks.conv4:Conv4"}
)


class Network(Protocol):
    """A network architecture; its attributes are a section of the config."""

    @property
    def kind(self) -> str:
        """Name in the registry, or import string of a custom network."""

    @property
    def for_images(self) -> str | None:
        """Name of the setting that restricts the network to images, or None."""

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Initial parameters (not stacked) for inputs of shape `shape` and O outputs."""

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...), with parameters stacked over N tasks."""

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The inputs of the last layer, (N, M, F)."""

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""

    def new_head(self, params: Params, outputs: int) -> Params:
        """Replace the last layer by zeros, with another number of outputs."""
