"""Your own network, for a policy and for few-shot regression: any torch.nn.Module.

python examples/own_network.py
"""

from pathlib import Path

import torch
from torch import Tensor, nn

import metarl


class Residual(nn.Module):
    """A multilayer perceptron with a residual layer."""

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (M, inputs) to outputs (M, outputs)."""
        hidden = torch.tanh(self.first(x))
        hidden = hidden + torch.tanh(self.second(self.norm(hidden)))
        outputs: Tensor = self.last(hidden)
        return outputs


def main(iterations: int = 20, width: int = 64, out: str = "runs/own_network") -> None:
    """Train a policy and a regression network."""
    policy = metarl.Config(
        family={"name": "point-navigation"},
        policy={"network": Residual, "settings": {"width": width}},
        inner={"episodes_per_task": 10},
        outer={"algorithm": "trpo", "iterations": iterations, "meta_batch": 10},
        evaluation={"tasks": 10, "episodes_per_task": 10},
    )
    print(metarl.load(metarl.train(policy, Path(out) / "points")).evaluate().summary.estimate)
    waves = metarl.SupervisedConfig(
        data="sinusoid",
        network={"name": Residual, "settings": {"width": width}},
        outer={"iterations": 10 * iterations},
        evaluation={"tasks": 50},
    )
    run = metarl.train(waves, Path(out) / "waves")
    print(metarl.load_network(run).evaluate().summary.estimate)


if __name__ == "__main__":
    main()
