"""The provenance of a result: commit of this package, machine and library versions."""

import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("metarl-maml", "torch", "numpy", "gymnasium", "mujoco")


@cache
def package_commit() -> str | None:
    """The commit of a checkout, marked "dirty" after changes; None for an installed package."""
    # without tags, of which a checkout may have others than its neighbour
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent.parent
    # git would search the parent folders, and find the repository of somebody else's project
    if not (folder.parent / ".git").exists():
        return None
    try:
        result = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # git is missing, or refuses a checkout of another user
    return result.stdout.strip()


@cache
def machine() -> str:
    """The name of the processor, or else its architecture."""
    if sys.platform == "linux":  # where `platform.processor` is empty or the architecture
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of the installed libraries; supervised learning runs without MuJoCo."""
    installed = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            installed[library] = version(library)
    return installed
