"""What a result was made with: the commit of this package, the machine, the libraries."""

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
    """The commit of this package, where it runs from a checkout, marked where it was changed."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parent.parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        result = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or a checkout that it doesn't trust
    return result.stdout.strip()


@cache
def machine() -> str:
    """The processor's name where the system tells it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of the libraries that are installed: supervised learning needs no MuJoCo."""
    found = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
