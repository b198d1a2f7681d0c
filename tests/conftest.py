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
    """What the tests have in place of the system's folder of temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(autouse=True)
def environment_of_its_own(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets for its own process (`--data`) is not there for the next test.

    And no test leaves folders of logs, as stable-baselines3 and torchrun make where they are given
    none.
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
    """A working directory with a module of the user's, as metarl finds it."""
    shutil.copy(Path(__file__).parent / "my_tasks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail, and returns what it says on the standard error."""

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
