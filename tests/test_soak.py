"""The short form of `make soak`: a four-hundredth of it."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = str(Path(__file__).parent / "soak.py")


@pytest.mark.slow
def test_a_four_hundredth_of_the_soak_finds_no_failure() -> None:
    # two ranks are killed in test_distributed.py
    parts = ["kills", "interruptions", "disks", "configs", "commands", "files", "iterations"]
    parts += ["seeds", "networks", "images", "predictions", "models", "environments", "settings"]
    arguments = [
        sys.executable,
        SOAK,
        *parts,
        "divergence",
        "statistics",
        "--minutes=0.075",
        "--seed=1",
    ]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_the_soak_ends_with_a_table_and_lists_its_parts() -> None:
    command = [sys.executable, SOAK, "configs", "--count=3", "--seed=1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "configs: 3, 0," in result.stdout
    wrong = subprocess.run([sys.executable, SOAK, "kill"], capture_output=True, check=False)
    assert wrong.returncode == 2
