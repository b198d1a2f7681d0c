"""The examples run with small settings."""

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY: dict[str, dict[str, Any]] = {
    "own_environment": {"iterations": 2, "meta_batch": 2},
    "own_network": {"iterations": 1, "width": 4},
    "own_data": {"iterations": 10},
    "pearl": {"iterations": 1, "tasks": 2},
    "learned_optimizer": {"iterations": 1},
    "recurrent_network": {"iterations": 1, "tasks": 3},
    "online_adaptation": {"episodes": 10, "steps": 1},
    "sweep": {"iterations": 2, "step_sizes": [0.01]},
}
OUTPUT = {
    "own_environment": "return before the step:",
    "own_network": "[",
    "own_data": "accuracy: [",
    "pearl": "return by episode: [",
    "learned_optimizer": "RMSprop",
    "recurrent_network": "accuracy (%)",
    "online_adaptation": "arrived at",
    "sweep": "mean of 2 runs",
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TINY.keys() == OUTPUT.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    arguments = ", ".join(f"{setting}={value}" for setting, value in TINY[name].items())
    code = f"import {name}; {name}.main({arguments})"
    paths = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert OUTPUT[name] in process.stdout


@pytest.mark.slow
def test_a_recurrent_network_adapts(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("recurrent_network")
    example.main(iterations=30, tasks=40, out=str(tmp_path / "run"))
    before, *_, after = map(float, re.findall(r"\d+\.\d*", capsys.readouterr().out)[-3:])
    assert before < 30.0
    assert after > 45.0  # 30 iterations of 150


def test_importing_an_example_has_no_side_effects() -> None:
    for name in TINY:
        assert callable(runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"])
