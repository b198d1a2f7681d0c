"""A network with context parameters beside its inputs; see `metarl.context`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.context import concat_context, with_context, without_context
from metarl.networks import Network
from metarl.params import Params


@dataclass(frozen=True)
class WithContext:
    """See `metarl.networks.Network`; inputs are numbers in a row.

    Attributes:
        network: whose inputs they are.
        size: how many.
    """

    network: Network
    size: int

    @property
    def kind(self) -> str:
        """The network's."""
        return self.network.kind

    @property
    def for_images(self) -> str | None:
        """The network's."""
        return self.network.for_images

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters for inputs of a shape (S,) and O outputs, and `context` (C,) of zeros."""
        (width,) = shape
        params = self.network.init(generator, (width + self.size,), outputs)
        return with_context(params, self.size)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, S)."""
        return self.network(without_context(params), concat_context(params, inputs))

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        return self.network.features(without_context(params), concat_context(params, inputs))

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""
        return self.network.head(without_context(params))

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
        return with_context(self.network.new_head(without_context(params), outputs), self.size)
