"""The network of an experiment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.networks.conv4 import conv4, conv4_features, init_conv4
from metarl.networks.mlp import init_mlp, mlp, mlp_features
from metarl.params import Params
from metarl.supervised.config import Conv4Config, MLPConfig


@dataclass(frozen=True)
class Model:
    """A network whose parameters are stacked over tasks when it is called.

    Attributes:
        config: which network.
        shape: of an input, (S,) or (C, H, W).
        outputs: O.
    """

    config: MLPConfig | Conv4Config
    shape: tuple[int, ...]
    outputs: int

    def init(self, generator: torch.Generator) -> Params:
        """Parameters to start from, not stacked."""
        config = self.config
        if isinstance(config, MLPConfig):
            sizes = (math.prod(self.shape), *config.hidden_sizes, self.outputs)
            return init_mlp(generator, sizes, config.norm)
        channels, height, width = self.shape
        shape = (channels, height, width)
        return init_conv4(generator, shape, self.outputs, config.filters, config.pool)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...)."""
        if isinstance(self.config, MLPConfig):
            return mlp(params, inputs.flatten(2), torch.relu)
        return conv4(params, inputs, self.config.pool)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        if isinstance(self.config, MLPConfig):
            return mlp_features(params, inputs.flatten(2), torch.relu)
        return conv4_features(params, inputs, self.config.pool)
