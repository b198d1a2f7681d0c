"""A small sweep from Python: two step sizes with two seeds each, and a table of the results.

Runs are trained sequentially, into the same directories as `metarl sweep sinusoid --set
inner.step_size=0.001,0.01 --seeds 2`, which trains in parallel.

python examples/sweep.py
"""

from collections.abc import Sequence

import metarl

SEEDS = (1, 2)


def train(step_size: float, seed: int, iterations: int, out: Path) -> metarl.Run:
    """Train one run of the sweep; a completed run is not trained again."""
    config = metarl.SupervisedConfig(
        data="sinusoid",
        network={"kind": "mlp"},
        inner={"step_size": step_size},
        outer={"iterations": iterations},
        evaluation={"tasks": 100},
        seed=seed,
    )
    return metarl.train(config, out / f"inner.step_size={step_size}" / f"seed-{seed}", resume=True)


def main(
    step_sizes: Sequence[float] = (0.001, 0.01), iterations: int = 500, out: str = "runs/sweep"
) -> None:
    """Train every combination, and aggregate the runs that differ only in their seed."""
    runs = [
        train(step_size, seed, iterations, Path(out)) for step_size in step_sizes for seed in SEEDS
    ]
    print(metarl.compare(*runs))


if __name__ == "__main__":
    main()
