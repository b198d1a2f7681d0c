"""Memory of the process between iterations."""

import ctypes
import os
import subprocess
import sys

import pytest

ITERATIONS = """
import resource, torch
from metarl.parallel import keep_freed_memory

def iterate():
    activations = [torch.ones(5 * 2**20) for _ in range(4)]  # 20 MB each

if KEEP: keep_freed_memory()
for _ in range(10): iterate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): iterate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="is glibc's")
def test_kept_memory_causes_no_page_faults() -> None:
    def page_faults(keep: bool) -> int:
        # ten iterations first: blocks that don't quite fit where others were take new memory.
        # A threshold that is set stays: left alone, glibc learns it from what is freed, and what
        # it then gives back depends on what happens to lie above it.
        command = [sys.executable, "-c", ITERATIONS.replace("KEEP", str(keep))]
        mapped = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
        return int(
            subprocess.run(command, env=mapped, capture_output=True, text=True, check=True).stdout
        )

    assert page_faults(True) < page_faults(False) / 3
