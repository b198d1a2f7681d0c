"""Learn an optimiser for random quadratics, and compare it with Adam, RMSprop and SGD.

The first experiment of Andrychowicz et al. (2016), section 3.1: f(θ) = |Wθ − y|² with a random
10 × 10 matrix W and a random y. The step sizes of the other optimisers are the best of a grid.

python examples/learned_optimizer.py
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

import metarl

Floats = NDArray[np.float64]
SIZE, STEPS = 10, 100
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "RMSprop": torch.optim.RMSprop,
    "SGD": torch.optim.SGD,
}


class Quadratics:
    """Linear regression on ten examples: the rows of W and the entries of y."""

    kind = "regression"

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int, split: str) -> Floats:
        """W and y, (N, 110)."""
        return rng.normal(size=(num_tasks, SIZE * (SIZE + 1)))

    def sample(
        self, rng: np.random.Generator, tasks: Floats, num_examples: int
    ) -> tuple[Floats, Floats]:
        """The ten examples of each task, twice: f is measured on the data that it is fitted to."""
        w, y = np.split(tasks.reshape(-1, SIZE, SIZE + 1), [SIZE], axis=2)
        return np.tile(w, (1, 2, 1))[:, :num_examples], np.tile(y, (1, 2, 1))[:, :num_examples]

    def describe(self, task: Floats) -> str:
        """A description of a task."""
        return "quadratic"


class Vector(torch.nn.Linear):
    """Wθ for a vector θ."""

    def __init__(self, inputs: int = SIZE, outputs: int = 1) -> None:
        super().__init__(inputs, outputs, bias=False)


def curve_of(
    optimizer: Callable[..., torch.optim.Optimizer], tasks: Floats, start: torch.Tensor
) -> Floats:
    """The mean of f / 10 over tasks after 0, 1, 2, ... steps with the best step size of a grid."""
    w, y = np.split(torch.from_numpy(tasks.reshape(-1, SIZE, SIZE + 1)), [SIZE], axis=2)
    curves = []
    for step_size in np.geomspace(1e-3, 1.0, 13):
        theta = start.double().repeat(len(tasks), 1)[..., None].requires_grad_()
        steps, losses = optimizer([theta], lr=float(step_size)), []
        for _ in range(STEPS + 1):
            loss = (w @ theta - y).square().mean((1, 2))
            losses.append(float(loss.mean().detach()))
            steps.zero_grad()
            loss.sum().backward()
            steps.step()
        curves.append(np.array(losses))
    return min(curves, key=lambda curve: np.nan_to_num(curve, nan=np.inf).mean())


def main(iterations: int = 1000, out: str = "runs/learned_optimizer") -> None:
    """Train, evaluate on new quadratics, print a table and write a plot."""
    config = metarl.SupervisedConfig(
        method={"name": "learned_optimizer"},
        data={"name": Quadratics},
        network={"kind": Vector},
        inner={"steps": STEPS, "shots": SIZE, "queries": SIZE},
        outer={"iterations": iterations, "meta_batch": 64, "learning_rate": 5e-3, "anneal": True},
        evaluation={"tasks": 100, "steps": STEPS},
    )
    run = metarl.train(config, out)
    result = metarl.load_network(run).evaluate()
    curves = {"learned": result.scores.mean(0)}
    start = Vector().weight.detach()[0]  # sampled like θ_0 of the learned optimiser
    for name, optimizer in OPTIMIZERS.items():
        curves[name] = curve_of(optimizer, result.tasks, start)
    columns = (0, 5, 10, 20, 50, 100)
    print("optimiser", *(f"step {step:>3}" for step in columns), sep="  ")
    for name, curve in curves.items():
        print(f"{name:9}", *(f"{curve[step]:8.4f}" for step in columns), sep="  ")
        plt.semilogy(curve, label=name)
    plt.xlabel("steps")
    plt.ylabel("f(θ) / 10, mean over 100 quadratics")
    plt.legend()
    plt.savefig(Path(out) / "quadratics.png", dpi=128)
    plt.close()


if __name__ == "__main__":
    main()
