"""A sweep from Python: two step sizes with two seeds each, trained in parallel and ranked.

The same as `metarl sweep sinusoid --set inner.step_size=0.001,0.01 --seeds 2`.

python examples/sweep.py
"""

from collections.abc import Sequence

import metarl


def main(
    step_sizes: Sequence[float] = (0.001, 0.01), iterations: int = 500, out: str = "runs/sweep"
) -> None:
    """Train every combination, and continue runs that exist already."""
    config = metarl.SupervisedConfig(
        data="sinusoid",
        network={"kind": "mlp"},
        inner={"step_size": step_sizes[0]},
        outer={"iterations": iterations},
        evaluation={"tasks": 100},
    )
    grid = {"inner.step_size": list(step_sizes)}
    print(metarl.sweep(config, grid, out, seeds=2, resume=True, progress=True))


if __name__ == "__main__":
    main()
