"""Custom networks of a user."""

import torch
from torch import Tensor, nn

from metarl.networks.normalisation import BatchNorm, LayerNorm


class Net(nn.Module):
    """Has a setting, a buffer, and named layers."""

    def __init__(self, inputs: int, outputs: int, width: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.norm = LayerNorm(width)
        self.last = nn.Linear(width, outputs)
        self.register_buffer("shift", torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x)) + self.shift))


class OutputFirst(nn.Module):
    """Registers its layers in another order than that of its forward."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.last = nn.Linear(4, outputs)
        self.first = nn.Linear(inputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.scale * self.first(x)))


class Pictures(nn.Module):
    """Convolution and batch normalisation."""

    def __init__(self, inputs: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs[0], 4, 3, stride=2), BatchNorm(4), nn.ReLU(), nn.Flatten()
        )
        size = self.layers(torch.zeros(2, *inputs)).shape[1]
        self.last = nn.Linear(size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x))


def around(layer: nn.Module) -> type[nn.Module]:
    """A network class with this layer between two linear ones."""

    class Around(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.first, self.between = nn.Linear(inputs, 4), layer
            self.last = nn.Linear(4, outputs)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.between(self.first(x))
            return self.last(hidden[0] if isinstance(hidden, tuple) else hidden)

    return Around
