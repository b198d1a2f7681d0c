"""Heavy packages are imported only by the commands that need them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.cli.parser import make_parser

HEAVY = {"torch", "scipy", "matplotlib", "mujoco", "gymnasium", "stable_baselines3", "tensorboard"}
HEAVY |= {"imageio", "jinja2", "safetensors"}
WATCH = """
import atexit, json, sys
from metarl.cli import main
atexit.register(lambda: print(json.dumps(sorted(set(HEAVY) & sys.modules.keys()))))
main(sys.argv[1:])
"""
TINY = ("--set=outer.iterations=1", "--set=outer.meta_batch=2", "--set=inner.episodes_per_task=2")


def imported(*arguments: str, cwd: Path | None = None) -> set[str]:
    """The heavy packages that a command imports in a subprocess."""
    script = WATCH.replace("HEAVY", repr(HEAVY))
    command = [sys.executable, "-c", script, *arguments]
    output = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False).stdout
    return set(json.loads(output.splitlines()[-1]))


SEVERAL = """
import json, sys
from metarl.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit:
        pass
    print("\\n" + json.dumps(sorted(set(HEAVY) & sys.modules.keys())))
"""


def imported_until(*commands: str) -> dict[str, set[str]]:
    """The heavy packages that are imported after each of these commands, run in sequence."""
    script = SEVERAL.replace("HEAVY", repr(HEAVY))
    arguments = json.dumps([command.split() for command in commands])
    process = [sys.executable, "-c", script, arguments]
    output = subprocess.run(process, capture_output=True, text=True, check=True).stdout
    packages = [set(json.loads(line)) for line in output.splitlines() if line[:1] == "["]
    return dict(zip(commands, packages, strict=True))


def test_the_help_and_the_list_import_no_heavy_package() -> None:
    helps = [f"{command} --help" for command in make_parser().commands]
    imports = imported_until("--help", "--version", "list", *helps, "train --itertions 3")
    assert not any(imports.values()), imports


def test_the_package_itself_imports_no_heavy_package() -> None:
    script = f"import json, sys, metarl; print(json.dumps(sorted({HEAVY!r} & sys.modules.keys())))"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_a_training_imports_neither_imageio_nor_stable_baselines3(tmp_path: Path) -> None:
    packages = imported("train", "point_navigation_small", *TINY, cwd=tmp_path)
    assert {"torch", "tensorboard"} <= packages
    assert not packages & {"stable_baselines3", "imageio", "jinja2"}


WITHOUT = """
import importlib.metadata, sys
from importlib.machinery import PathFinder

class Lacking(PathFinder):  # as if neither was installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in ("mujoco", "stable_baselines3"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def version(name, known=importlib.metadata.version):
    if name in ("mujoco", "stable-baselines3"):
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Lacking)
importlib.metadata.version = version
from metarl.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_supervised_learning_needs_neither_mujoco_nor_stable_baselines3(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", WITHOUT, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return f"{done.returncode} {done.stderr}"

    two = ["--set=outer.iterations=2", "--set=evaluation.tasks=3"]
    assert run("train", "sinusoid", *two, "--out", "run").startswith("0 ")
    assert run("baseline", "sinusoid", "--kind", "pretrained", *two, "--out", "other")[0] == "0"
    assert run("compare", "run", "other").startswith("0 ")
    versions = json.loads((tmp_path / "run" / "state.json").read_text())["versions"]
    assert "mujoco" not in versions
    assert "needs mujoco, which is not installed" in run("train", "ant_velocity")
