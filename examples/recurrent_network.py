"""MAML with a recurrent network: classification of series, five sine waves, one example each.

"Any model trained by gradient descent" (Finn et al. 2017, section 1). torch's own recurrent layers
have no second derivatives under vmap, so the unit is written with linear layers.

python examples/recurrent_network.py
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import metarl

Floats = NDArray[np.float64]
WAYS, LENGTH, NOISE = 5, 12, 0.3
SPLITS = {"train": (0, 800), "validation": (800, 900), "test": (900, 1000)}  # class numbers


class Series:
    """A class is a sine wave; its examples are noisy series of 12 numbers."""

    kind = "classification"
    classes = 1000

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.amplitude = rng.uniform(0.5, 2.0, self.classes)
        self.frequency = rng.uniform(0.5, 2.0, self.classes)
        self.phase = rng.uniform(0.0, 2.0 * np.pi, self.classes)

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int, split: str) -> Floats:
        """Class numbers (N, 5)."""
        low, high = SPLITS[split]
        chosen = [low + rng.choice(high - low, WAYS, replace=False) for _ in range(num_tasks)]
        return np.stack(chosen).astype(np.float64)

    def sample(self, rng: np.random.Generator, tasks: Floats, num_examples: int) -> Floats:
        """Series (N, 5, K, 12, 1)."""
        wave = tasks.astype(int)[..., None, None]
        time = np.linspace(0.0, 1.0, LENGTH)
        series = np.sin(2.0 * np.pi * self.frequency[wave] * time + self.phase[wave])
        noise = rng.normal(size=(*tasks.shape, num_examples, LENGTH))
        noisy: Floats = (self.amplitude[wave] * series + NOISE * noise)[..., None]
        return noisy

    def describe(self, task: Floats) -> str:
        """A description of a task."""
        return f"waves {', '.join(f'{number:.0f}' for number in task)}"


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014), and a linear layer from its last state."""

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.Linear(1 + width, 2 * width)
        self.candidate = nn.Linear(1 + width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Series (M, H, 1) to logits (M, outputs)."""
        state = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            reset, update = self.gates(torch.cat([step, state], -1)).sigmoid().chunk(2, -1)
            candidate = self.candidate(torch.cat([step, reset * state], -1)).tanh()
            state = update * state + (1.0 - update) * candidate
        logits: Tensor = self.head(state)
        return logits


def main(iterations: int = 150, tasks: int = 100, out: str = "runs/recurrent_network") -> None:
    """Train on 800 waves, and classify series of 100 others."""
    config = metarl.SupervisedConfig(
        data={"name": Series},
        network={"kind": GRU},
        inner={"step_size": 0.4, "steps": 2, "shots": 1, "queries": 5},
        outer={"iterations": iterations, "meta_batch": 16, "learning_rate": 3e-3},
        evaluation={"tasks": tasks, "steps": 2},
    )
    network = metarl.load_network(metarl.train(config, out))
    print("accuracy (%) after 0, 1, 2 steps:", network.evaluate().summary.estimate)


if __name__ == "__main__":
    main()
