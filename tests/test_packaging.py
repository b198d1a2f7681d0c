"""The wheel: what is in it, and that it works away from the checkout."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )  # an sdist, and the wheel from it
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_siblings_as_subpackages_and_nothing_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "metarl",
        wheel.name.split("-py3")[0] + ".dist-info",
    }
    for expected in (
        "metarl/py.typed",
        "metarl/envs/assets/half_cheetah.xml",
        "metarl/envs/point_navigation.py",
        "metarl/baselines/__init__.py",
        "metarl/configs/quickstart.yaml",
        "metarl/configs/trained/point_navigation/config.yaml",
        "metarl/runs/report.html",
    ):
        assert expected in names


@pytest.mark.slow
def test_the_installed_wheel_trains_from_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    # the libraries are taken from here: what is tested is our wheel, not theirs
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    command = [str(python), "-I", "-m", "metarl", "train", "quickstart", "--out", "run"]
    tiny = [
        "outer.iterations=1",
        "outer.meta_batch=2",
        "inner.trajectories=3",
        "evaluation.tasks=2",
    ]
    for setting in tiny:
        command += ["--set", setting]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "run" / "adaptation.png").exists()
    where = subprocess.run(
        [str(python), "-I", "-c", "import metarl.envs; print(metarl.envs.__file__)"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert str(site) in where.stdout
