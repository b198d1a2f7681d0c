"""Hardware limits: the rates that no program can exceed on this machine."""

from collections.abc import Callable

import torch

from metarl.bench.timing import median_seconds
from metarl.parallel import map_chunks
from metarl.threads import processors


def hardware_limits(repeats: int) -> dict[str, float]:
    """Measure the limits of all processors together.

    Returns:
        `product`: GFLOP/s in products of large float32 matrices. `memory`: GB/s, read and written,
        in copies of arrays that are larger than the caches.
    """
    count, size, large = processors(), 1024, 2**25
    factors = [torch.randn(size, size) for _ in range(count)]
    sources = [torch.zeros(large) for _ in range(count)]
    targets = [torch.zeros(large) for _ in range(count)]

    def seconds(function: Callable[[int], object]) -> float:
        def on_all_processors() -> None:
            map_chunks(lambda chunk: function(chunk.start), count, 1)

        return median_seconds(on_all_processors, repeats)

    def multiply(number: int) -> None:
        for _ in range(10):
            torch.mm(factors[number], factors[number])

    # 10 products of 2 n³ operations; 2^25 floats of 4 bytes, read and written
    product = seconds(multiply)
    copy = seconds(lambda number: targets[number].copy_(sources[number]))
    return {"product": count * 20e-9 * size**3 / product, "memory": count * 8e-9 * large / copy}
