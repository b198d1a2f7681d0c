"""Fixtures that several test files share."""

import shutil
import sys
from pathlib import Path

import pytest


@pytest.fixture
def in_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's, as metarl finds it."""
    shutil.copy(Path(__file__).parent / "my_tasks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path
