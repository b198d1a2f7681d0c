"""What becomes of memory between iterations."""

import ctypes
import subprocess
import sys

import pytest

ITERATIONS = """
import resource, torch
from metarl.compute import keep_freed_memory

def iterate():
    activations = [torch.ones(5 * 2**20) for _ in range(4)]  # 20 MB each

if KEPT: keep_freed_memory()
iterate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): iterate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="is glibc's")
def test_what_is_kept_is_not_paged_in_anew_by_each_iteration() -> None:
    def page_faults(kept: bool) -> int:
        code = ITERATIONS.replace("KEPT", str(kept))
        asked = [sys.executable, "-c", code]
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)

    assert page_faults(True) < page_faults(False) / 3
