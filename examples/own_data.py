"""Few-shot learning on your own data: generated tasks, and a data set of images.

python examples/own_data.py
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metarl

Floats = NDArray[np.float64]


class Parabolas:
    """y = a x² + b x."""

    kind = "regression"

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int, split: str) -> Floats:
        """Coefficients (N, 2); all splits have the same distribution."""
        return rng.normal(size=(num_tasks, 2))

    def sample(
        self, rng: np.random.Generator, tasks: Floats, num_examples: int
    ) -> tuple[Floats, Floats]:
        """Inputs (N, K, 1) and targets (N, K, 1)."""
        x = rng.uniform(-1.0, 1.0, (len(tasks), num_examples, 1))
        return x, tasks[:, None, :1] * x**2 + tasks[:, None, 1:] * x

    def describe(self, task: Floats) -> str:
        """A description of a task."""
        return f"{task[0]:.2f} x² + {task[1]:.2f} x"


class Patches:
    """Twenty noisy patterns with the interface of torchvision's data sets: (image, label)."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int, /) -> tuple[Any, int]:
        """An image (H, W) in [0, 1] and its label."""
        label = index % 20
        pattern = np.random.default_rng(label).random((16, 16))
        return 0.7 * pattern + 0.3 * np.random.default_rng(1000 + index).random((16, 16)), label


def main(iterations: int = 200, out: str = "runs/own_data") -> None:
    """Meta-train on both data sets, and adapt to examples."""
    curves = metarl.SupervisedConfig(
        data={"name": Parabolas},
        network={"kind": "mlp"},
        inner={"step_size": 0.05, "shots": 5},
        outer={"iterations": iterations},
        evaluation={"tasks": 50},
    )
    network = metarl.load_network(metarl.train(curves, Path(out) / "parabolas"))
    x = np.linspace(-1.0, 1.0, 5)
    print("at 0.5, of x²:", network.adapt(x, x**2).predict([0.5]))

    images = metarl.SupervisedConfig(
        data=metarl.Dataset.of(Patches(), ways=3, size=16, channels=1),
        network={"kind": "conv4", "filters": 8},
        inner={"step_size": 0.5, "shots": 1, "queries": 2},
        outer={"iterations": max(1, iterations // 10), "meta_batch": 4},
        evaluation={"tasks": 20},
    )
    run = metarl.train(images, Path(out) / "patches")
    print("accuracy:", metarl.load_network(run).evaluate().summary.estimate)


if __name__ == "__main__":
    main()
