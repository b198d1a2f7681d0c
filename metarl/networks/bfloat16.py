"""A network whose matrix products and convolutions are computed in bfloat16."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.networks import Network
from metarl.params import Params


@dataclass(frozen=True)
class Bfloat16:
    """See `metarl.networks.Network`. Parameters, gradients, outputs and losses are float32."""

    network: Network

    @property
    def kind(self) -> str:
        return self.network.kind

    @property
    def for_images(self) -> str | None:
        return self.network.for_images

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        return self.network.init(generator, shape, outputs)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        with _autocast(inputs):
            return self.network(params, inputs).float()

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        with _autocast(inputs):
            return self.network.features(params, inputs).float()

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        return self.network.head(params)

    def new_head(self, params: Params, outputs: int) -> Params:
        return self.network.new_head(params, outputs)


def _autocast(inputs: Tensor) -> torch.autocast:
    # no cache: copies of a leaf in it would outlive the graph that second derivatives need
    return torch.autocast(inputs.device.type, dtype=torch.bfloat16, cache_enabled=False)
