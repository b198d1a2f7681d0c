"""A network with context parameters as additional inputs; see `metarl.context`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.context import concat_context, with_context, without_context
from metarl.errors import UserError
from metarl.networks import Network
from metarl.params import Params


@dataclass(frozen=True)
class WithContext:
    """See `metarl.networks.Network`; inputs must be vectors."""

    network: Network  # receives inputs and context, concatenated
    size: int  # C, the number of context parameters

    @property
    def kind(self) -> str:
        return self.network.kind

    @property
    def for_images(self) -> str | None:
        return self.network.for_images

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        if len(shape) != 1:
            raise UserError(
                f"context parameters are concatenated to inputs (M, S), but those of the data have "
                f"the shape {shape}; flatten them, or use another method than cavia"
            )
        (width,) = shape
        params = self.network.init(generator, (width + self.size,), outputs)
        return with_context(params, self.size)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return self.network(without_context(params), concat_context(params, inputs))

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        return self.network.features(without_context(params), concat_context(params, inputs))

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        return self.network.head(without_context(params))

    def new_head(self, params: Params, outputs: int) -> Params:
        # a new context of zeros, with which an adaptation begins (Zintgraf et al. 2019)
        return with_context(self.network.new_head(without_context(params), outputs), self.size)
