"""Platforms: locks without POSIX, graphics backends that are missing."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from metarl import io
from metarl.errors import UserError


class FakeLocks(SimpleNamespace):
    """Stands in for msvcrt: a file is locked once, by inode and position."""

    LK_NBLCK = 2

    def __init__(self):
        super().__init__(locked=set())

    def locking(self, descriptor, mode, num_bytes):
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        if place in self.locked:
            raise OSError(errno.EACCES, "Permission denied")
        self.locked.add(place)


def test_a_file_is_locked_beyond_its_content_where_there_are_no_posix_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = FakeLocks()
    monkeypatch.setattr(io, "fcntl", None)
    monkeypatch.setattr(io, "msvcrt", locks)
    with (tmp_path / "lock").open("a+") as first, (tmp_path / "lock").open("a+") as second:
        io.lock_file(first)
        first.write("process 1")
        first.flush()
        with pytest.raises(OSError, match="denied"):
            io.lock_file(second)
        assert second.seek(0) == 0
        assert second.read() == "process 1"
    assert {position for _, position in locks.locked} == {io.LOCKED_BYTE}


def test_a_python_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "fcntl", None)
    monkeypatch.setattr(io, "msvcrt", None)
    with (tmp_path / "lock").open("a+") as file, pytest.raises(UserError, match="neither fcntl"):
        io.lock_file(file)


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
def test_policies_are_loaded_and_trained_without_the_modules_that_windows_lacks(
    tmp_path: Path,
) -> None:
    result = run_python(f"""
        import signal, subprocess, sys, torch, gymnasium, stable_baselines3
        sys.modules["fcntl"] = sys.modules["resource"] = None
        del signal.SIGHUP
        sys.modules["msvcrt"] = type(sys)("msvcrt")
        sys.modules["msvcrt"].LK_NBLCK, sys.modules["msvcrt"].locking = 2, lambda *_: None
        import metarl
        print(metarl.load("point_navigation").act([0.0, 0.0]).shape)
        tiny = {{"family": {{"name": "point-navigation", "settings": {{"horizon": 5}}}},
                "inner": {{"episodes_per_task": 2}}, "outer": {{"iterations": 1, "meta_batch": 2}},
                "evaluation": {{"tasks": 2, "episodes_per_task": 2}}}}
        metarl.train(tiny, {str(tmp_path / "run")!r})
    """)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("(2,)")


@pytest.mark.parametrize("backend", ["osmessa", "directx"])
def test_a_misspelt_graphics_backend_is_a_sentence_where_mujoco_is_needed(backend: str) -> None:
    result = run_python(
        """
        import metarl.envs
        from metarl.errors import UserError
        metarl.envs.load_family("point-navigation").make().reset()
        try:
            metarl.envs.load_family("ant-goal")
        except UserError as error:
            print(error)
        """,
        MUJOCO_GL=backend,
    )
    assert result.returncode == 0, result.stderr
    assert f"'ant-goal' needs MuJoCo, which cannot be imported with MUJOCO_GL={backend}" in (
        result.stdout
    )


def test_triton_is_loaded_before_a_graphics_backend(tmp_path: Path) -> None:
    """With torch for CUDA, a process crashes that loads Mesa's LLVM before triton's."""
    (tmp_path / "triton.py").write_text("print('triton')")
    code = """
from metarl.envs import half_cheetah_direction
env = half_cheetah_direction().make("rgb_array")
env.reset(seed=0)
print("rendering")
env.render()
"""
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.split()[:2] == ["rendering", "triton"], run.stderr
