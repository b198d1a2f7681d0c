"""What a config can say of the networks of this package.

As parts of a config they are imported before torch, which takes a second: what a network computes
stands in a file of its own, and is imported when it is made or called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from metarl.config.sections import PositiveInt, Section
from metarl.params import Params

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Layered(Section):
    """A network whose layers are numbered, `weight0`, `bias0`, ..., the last of them linear."""

    def head(self, params: Mapping[str, Tensor]) -> list[str]:
        """The names of the last layer's parameters."""
        from metarl.networks.layers import head

        return head(params)

    def new_head(self, params: Params, outputs: int) -> Params:
        """The same parameters, with a last layer of zeros and another number of outputs."""
        from metarl.networks.layers import new_head

        return new_head(params, outputs)


class MLP(Layered):
    """A multilayer perceptron of ReLUs, with batch normalisation or without.

    Without hidden layers it is linear, and its features are the inputs themselves.
    """

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: tuple[PositiveInt, ...] = (40, 40)
    norm: bool = False

    @property
    def for_images(self) -> str | None:
        """The normalisation: examples of a regression are too few and too alike."""
        return "norm" if self.norm else None

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters for inputs of a shape and O outputs, as `init_mlp` makes them."""
        from metarl.networks.mlp import init_mlp

        return init_mlp(generator, (math.prod(shape), *self.hidden_sizes, outputs), self.norm)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, M, O) for inputs (N, M, ...)."""
        from metarl.networks.mlp import mlp

        return mlp(params, inputs.flatten(2), _relu)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        from metarl.networks.mlp import mlp_features

        return mlp_features(params, inputs.flatten(2), _relu)


class Conv4(Layered):
    """Four convolutional blocks, which halve the image by pooling or by a stride."""

    kind: Literal["conv4"] = "conv4"
    filters: PositiveInt = 64
    pool: bool = False

    for_images: ClassVar[str | None] = "kind"

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Parameters for images of a shape (C, H, W) and O outputs, as `init_conv4` makes them."""
        from metarl.networks.conv4 import init_conv4

        channels, height, width = shape
        return init_conv4(generator, (channels, height, width), outputs, self.filters, self.pool)

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Logits (N, M, O) for images (N, M, C, H, W)."""
        from metarl.networks.conv4 import conv4

        return conv4(params, inputs, self.pool)

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """What the last layer sees, (N, M, F)."""
        from metarl.networks.conv4 import conv4_features

        return conv4_features(params, inputs, self.pool)


def _relu(inputs: Tensor) -> Tensor:
    return inputs.relu()
