"""A small convolutional network for policies that see images."""

import torch
from torch import Tensor, nn

from metarl.networks.layers import ACTIVATIONS

SMALL = 8  # pixels a side, above which images are halved


class CNN(nn.Module):
    """Convolutions that halve an image until it is small, and then hidden layers.

    Args:
        inputs: (C, H, W).
        outputs: O.
        filters: of the first convolution, and twice as many of the others.
        hidden_sizes: widths of the hidden layers.
        activation: `relu` or `tanh`, between all layers.
        output_scale: factor on the last layer's weights.
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
        while max(height, width) > SMALL or len(convolutions) < 2:
            convolutions.append(nn.Conv2d(channels, 2 * filters, 3, stride=2, padding=1))
            channels, height, width = 2 * filters, (height + 1) // 2, (width + 1) // 2
        self.convolutions = nn.ModuleList(convolutions)
        sizes = (channels * height * width, *hidden_sizes)
        self.hidden = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.last = nn.Linear(sizes[-1], outputs)
        with torch.no_grad():
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
