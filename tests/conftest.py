"""Fixtures that several test files share."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metarl.cli import main

LONGEST = ("test_soak", "test_distributed")  # what begins last would be waited for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the tests, in place of that of the system."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(autouse=True)
def isolated_environment(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Environment variables that a command sets (`--data`) are reset after every test.

    It also checks that no test leaves folders of logs of stable-baselines3 or torchrun.
    """
    before = dict(os.environ)
    os.environ["TMPDIR"] = str(temporary)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    os.environ.clear()
    os.environ.update(before)
    left = [path for logs in ("SB3-*", "torchelastic_*") for path in temporary.glob(logs)]
    assert not left


@pytest.fixture
def in_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that contains a user's module."""
    shutil.copy(Path(__file__).parent / "my_tasks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail, and returns its standard error."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        assert status == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())

    return run
