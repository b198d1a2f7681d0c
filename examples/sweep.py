"""A small sweep from Python: two step sizes, two seeds each, and a table of how well each adapts.

One run after the other, into directories as `metarl sweep sinusoid --set inner.step_size=0.001,0.01
--seeds 2` makes them, which trains as many at once as there are processors.

python examples/sweep.py
"""

from collections.abc import Sequence
from pathlib import Path

import metarl

SEEDS = (1, 2)


def trained(step_size: float, seed: int, iterations: int, out: Path) -> metarl.Run:
    """One run of the sweep; what is there already is not trained again."""
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
    """Train every combination; runs that differ in their seed alone are summed up together."""
    runs = [
        trained(step_size, seed, iterations, Path(out))
        for step_size in step_sizes
        for seed in SEEDS
    ]
    print(metarl.compare(*runs))


if __name__ == "__main__":
    main()
