"""What a command imports: what takes seconds is imported by those that need it, and then alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.cli import COMMANDS

HEAVY = {"torch", "scipy", "matplotlib", "mujoco", "gymnasium", "stable_baselines3", "tensorboard"}
HEAVY |= {"imageio", "jinja2", "safetensors"}
WATCH = """
import atexit, json, sys
from metarl.cli import main
atexit.register(lambda: print(json.dumps(sorted(set(HEAVY) & sys.modules.keys()))))
main(sys.argv[1:])
"""
TINY = ("--set=outer.iterations=1", "--set=outer.meta_batch=2", "--set=inner.trajectories=2")


def imported(*arguments: str, cwd: Path | None = None, first: str = "") -> set[str]:
    """Which of the heavy packages a command imports, in a process of its own."""
    script = first + WATCH.replace("HEAVY", repr(HEAVY))
    command = [sys.executable, "-c", script, *arguments]
    output = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False).stdout
    return set(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "list", "data check --help", *(f"{name} --help" for name in COMMANDS)],
)
def test_who_asks_what_there_is_waits_for_no_heavy_package(arguments: str) -> None:
    assert imported(*arguments.split()) == set()


def test_a_mistake_in_a_sweep_is_told_before_torch_is_imported() -> None:
    swept = ["--set", "inner.step_size=0.1,0.2", "--set", "inner.stps=2"]
    assert imported("sweep", "quickstart", *swept) <= {"gymnasium", "mujoco"}


@pytest.mark.parametrize(
    "setting",
    [
        "outer.iteratons=3",
        "outer.max_kl=-1",
        "inner.step_size=far",
        "method=mmal",
        "family.settings.x=3",
    ],
)
def test_a_mistake_in_a_config_is_told_before_torch_is_imported(setting: str) -> None:
    # the family says itself whether its settings are right
    assert imported("train", "quickstart", "--set", setting) <= {"gymnasium", "mujoco"}


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ("sinusoid", "outer.iteratons=3"),
        ("sinusoid", "data.amplitud=3"),
        ("omniglot_5way_1shot", "network.filters=x"),
        ("omniglot_5way_1shot_mlp", "network.hidden_sizes=0"),
    ],
)
def test_so_is_one_in_a_config_about_networks(config: str, setting: str) -> None:
    assert imported("train", config, "--set", setting) == set()


@pytest.mark.slow
def test_a_training_imports_neither_plots_nor_another_trainer(tmp_path: Path) -> None:
    # as far as its evaluation, which draws a plot
    without = "import metarl.cli.training as training\ntraining.evaluate = lambda *_: None\n"
    seen = imported("train", "quickstart", *TINY, cwd=tmp_path, first=without)
    assert {"torch", "tensorboard"} <= seen
    assert not seen & {"matplotlib", "scipy", "stable_baselines3", "imageio", "jinja2"}


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
def test_supervised_learning_does_without_mujoco_and_stable_baselines3(tmp_path: Path) -> None:
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
