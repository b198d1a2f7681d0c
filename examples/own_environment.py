"""Meta-train on your own environment: cart-poles of different lengths.

python examples/own_environment.py 100
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

import metarl
from metarl.method import TrainingState


class CartPole(CartPoleEnv):
    """Gymnasium's cart-pole, with the pole length set by `reset(options={"task": [length]})`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self.length = float((options or {}).get("task", [0.5])[0])
        self.polemass_length = self.masspole * self.length
        observation, info = super().reset(seed=seed)
        return observation, info


class Poles:
    """A task family whose tasks are the lengths of poles."""

    horizon, task_size = 50, 1

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> NDArray[np.float64]:
        """Half the lengths in metres, which gymnasium calls the length, (num_tasks, 1)."""
        return rng.uniform(0.25, 1.5, (num_tasks, 1))

    def describe(self, task: NDArray[np.float64]) -> str:
        """A description of a task."""
        return f"balance a pole of {2 * task[0]:.2f} m"

    def make(self, render_mode: str | None = None) -> Env[Any, Any]:
        """A single environment."""
        return TimeLimit(CartPole(render_mode=render_mode), self.horizon)

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """A vector environment."""
        return metarl.vectorise(self.make, num_envs)


def print_progress(state: TrainingState, metrics: dict[str, float]) -> None:
    """Print the return after one step."""
    print(state.iteration, "return after a step:", round(metrics["return/after_1_steps"], 1))


def main(iterations: int = 20, meta_batch: int = 10, out: str = "runs/poles") -> None:
    """Check the family, train on it, and adapt to a pole of 1.2 m."""
    metarl.check_family(Poles())
    config = metarl.Config(
        family={"name": Poles},
        policy={"hidden_sizes": [32, 32]},
        outer={"algorithm": "trpo", "iterations": iterations, "meta_batch": meta_batch},
        evaluation={"tasks": 10, "episodes_per_task": 5},
    )
    run = metarl.train(config, Path(out), callbacks=[print_progress])
    adapted = metarl.load(run).adapt(Poles().make(), task=[1.2])
    print("return before the step:", adapted.returns[0])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
