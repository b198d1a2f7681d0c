"""A small convolutional network for policies with image observations."""

import torch
from torch import Tensor, nn

from metarl.networks.layers import ACTIVATIONS

MAX_SIDE = 8  # pixels; larger feature maps are halved again


class CNN(nn.Module):
    """Strided convolutions until the feature map (C, H, W) is small, followed by hidden layers.

    The first convolution has `filters`, the others twice as many. The activation, `relu` or `tanh`,
    follows every layer but the last, whose initial weights are multiplied by `output_scale`.
    """

    def __init__(
        self,
        inputs: tuple[int, int, int],
        outputs: int,
        filters: int = 16,
        hidden_sizes: tuple[int, ...] = (100, 100),
        activation: str = "relu",
        output_scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels, height, width = inputs
        self.activation = ACTIVATIONS[activation]
        convolutions = [nn.Conv2d(channels, filters, 3, padding=1)]
        channels = filters
        # the side after a stride of 2 with padding 1 is ⌈side / 2⌉
        while max(height, width) > MAX_SIDE or len(convolutions) < 2:
            convolutions.append(nn.Conv2d(channels, 2 * filters, 3, stride=2, padding=1))
            channels, height, width = 2 * filters, (height + 1) // 2, (width + 1) // 2
        self.convolutions = nn.ModuleList(convolutions)
        sizes = (channels * height * width, *hidden_sizes)
        self.hidden = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.last = nn.Linear(sizes[-1], outputs)
        with torch.no_grad():  # a small scale starts with nearly the same distribution everywhere
            self.last.weight *= output_scale
            self.last.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (M, O) for images (M, C, H, W)."""
        hidden = images
        for layer in self.convolutions:
            hidden = self.activation(layer(hidden))
        hidden = hidden.flatten(1)
        for layer in self.hidden:
            hidden = self.activation(layer(hidden))
        outputs: Tensor = self.last(hidden)
        return outputs
