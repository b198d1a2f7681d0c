"""The convolutional network of few-shot learning (Vinyals et al. 2016)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.config.sections import PositiveInt
from metarl.errors import UserError
from metarl.networks.layers import (
    Layered,
    affine,
    init_norm,
    scale_and_shift,
    tasks_as_axis,
    tasks_as_channels,
    uniform,
)
from metarl.networks.normalisation import normalise, normalise_and_pool
from metarl.params import Params

BLOCKS = 4


class Conv4(Layered):
    """Four convolutional blocks of `filters` channels, each of which halves the image.

    A block is a 3x3 convolution, batch normalisation and ReLU (Finn et al. 2017, 5.2); a linear
    layer follows the last one. Batch statistics are used at test time as well (transductive). With
    `pool: true`, blocks have 2x2 max-pooling, and the linear layer is on the flattened image
    (MiniImagenet); otherwise they have a stride of 2, and it is on the mean over the image
    (Omniglot).
    """

    kind: Literal["conv4"] = "conv4"
    filters: PositiveInt = 64
    pool: bool = False

    for_images: ClassVar[str | None] = "kind"

    def init(self, generator: torch.Generator, shape: tuple[int, ...], outputs: int) -> Params:
        """Xavier-uniform parameters for images of a shape (C, H, W) and O outputs.

        They are `weight0` (filters, C, 3, 3), `scale0` (filters,), `shift0` (filters,), ...,
        `weight4` (features, O), `bias4` (O,).
        """
        params: Params = {}
        filters, (channels, height, width) = self.filters, shape
        if self.pool and min(height, width) < 2**BLOCKS:
            raise UserError(
                f"network.pool: {BLOCKS} blocks that halve an image need {2**BLOCKS} x {2**BLOCKS} "
                f"pixels, not {height} x {width}; set network.pool=false, or larger images"
            )
        for block in range(BLOCKS):
            kernel = (filters, channels, 3, 3)
            params[f"weight{block}"] = uniform(generator, kernel, 9 * channels, 9 * filters)
            params |= init_norm(block, filters)
            channels = filters
        # each block halves height and width, rounding down; without pooling the mean leaves 1 × 1
        cells = (height // 2**BLOCKS) * (width // 2**BLOCKS) if self.pool else 1
        features = filters * cells
        params[f"weight{BLOCKS}"] = uniform(generator, (features, outputs), features, outputs)
        params[f"bias{BLOCKS}"] = torch.zeros(outputs)
        return params

    def __call__(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Images (M, C, H, W) to logits (M, O); with stacked parameters, (N, M, ·) to (N, M, O).

        Further entries of `params` are ignored.
        """
        return affine(params, BLOCKS, self.features(params, inputs))

    def features(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The inputs of the linear layer: (M, features), or (N, M, features)."""
        stacked = inputs.dim() == 5
        hidden = tasks_as_channels(inputs)  # (M, N·C, H, W) if stacked
        for block in range(BLOCKS):
            kernel, (scale, shift) = params[f"weight{block}"], scale_and_shift(params, block)
            if self.pool:
                # `normalise_and_pool` needs non-negative scales: change the sign of both factors
                sign = torch.where(scale < 0.0, -1.0, 1.0)
                kernel, scale = kernel * sign[..., None, None, None], scale * sign
            # stacked tasks are groups of channels, each with its own kernels
            hidden = F.conv2d(
                hidden,
                kernel.flatten(0, 1) if stacked else kernel,
                stride=1 if self.pool else 2,
                padding=1,
                groups=len(inputs) if stacked else 1,
            )
            # max(relu(x)) = relu(max(x)): pooling first leaves a quarter of the elements to rectify
            normalised = normalise_and_pool if self.pool else normalise
            hidden = torch.relu(normalised(hidden, scale, shift))
        if stacked:
            hidden = tasks_as_axis(hidden, inputs)
        # without pooling the last map is 2 × 2 for Omniglot's 28 pixels: ⌈28 / 2⁴⌉
        return hidden.flatten(-3) if self.pool else hidden.mean((-2, -1))
