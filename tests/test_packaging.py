"""The distributions: their contents and size, and that the wheel works outside the checkout."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PICTURES = (".png", ".gif")
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the sdist and the wheel built from it, and the output of the build."""
    folder = tmp_path_factory.mktemp("dist")
    # one build at a time: setuptools writes into the checkout, which parallel tests share
    with (tmp_path_factory.getbasetemp().parent / "build.lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        process = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return folder, process.stdout


@pytest.fixture(scope="module")
def wheel(distributions: tuple[Path, str]) -> Path:
    return next(distributions[0].glob("*.whl"))


@pytest.fixture(scope="module")
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python interpreter with the wheel, and the libraries of this environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    return folder / "bin" / "python"


@pytest.mark.slow
def test_building_gives_no_warning(distributions: tuple[Path, str]) -> None:
    lines = [line for line in distributions[1].splitlines() if "warn" in line.lower()]
    assert [line for line in lines if "byte-compiling is disabled" not in line] == []


@pytest.mark.slow
def test_distributions_are_small(distributions: tuple[Path, str], wheel: Path) -> None:
    source = next(distributions[0].glob("*.tar.gz"))
    assert source.stat().st_size < 6 * MEGABYTE
    assert wheel.stat().st_size < 3 * MEGABYTE


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a_checkout_is_small() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in tracked.stdout.decode().split("\0") if name]
    on_disk = sum(-(-file.lstat().st_size // 4096) * 4096 for file in files if file.exists())
    assert on_disk < 16 * MEGABYTE


@pytest.mark.slow
def test_the_tests_run_from_the_source_distribution(
    distributions: tuple[Path, str], installed_python: Path, tmp_path: Path
) -> None:
    with tarfile.open(next(distributions[0].glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in tracked.stdout.split():  # empty outside a checkout
        if name.endswith(PICTURES):
            continue
        if name.startswith(("tests/", "docs/", "configs/")) or name.endswith(".md"):
            assert (source / name).exists(), name
    few = ["tests/test_inner_loop.py", "tests/test_adam.py", "tests/test_readme.py"]
    # -I: do not import metarl from the working directory, where metarl.envs is a link
    command = [str(installed_python), "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider", *few]
    command += ["-k", "not trains and not learns and not parsed and not streams"]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_the_wheel_contains_the_linked_folders_as_subpackages_only(wheel: Path) -> None:
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
        "metarl/report/report.html",
        "metarl/report/results_page.md",
        "metarl/report/published.yaml",
    ):
        assert expected in names


@pytest.mark.slow
def test_the_installed_wheel_trains_from_outside_the_checkout(
    installed_python: Path, tmp_path: Path
) -> None:
    command = [
        str(installed_python),
        "-I",
        "-m",
        "metarl",
        "train",
        "point_navigation_small",
        "--out",
        "run",
    ]
    tiny = [
        "outer.iterations=1",
        "outer.meta_batch=2",
        "inner.episodes_per_task=3",
        "evaluation.tasks=2",
    ]
    for setting in tiny:
        command += ["--set", setting]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "run" / "adaptation.png").exists()
    where = subprocess.run(
        [str(installed_python), "-I", "-c", "import metarl.envs; print(metarl.envs.__file__)"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert str(installed_python.parent.parent) in where.stdout


@pytest.mark.slow
def test_the_description_has_no_images_and_no_broken_links_on_pypi(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    headers, _, text = archive.read(metadata).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers
    assert "a policy that adapts to a new task" in " ".join(text.split())
    assert "![" not in text
    links = re.findall(r"\]\((.*?)\)", text)
    assert links
    assert all(link.startswith("https://") for link in links)


def make_dry_run(*targets: str) -> str:
    command = ["make", "--dry-run", "--always-make", *targets]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_training_installs_no_tools_of_developers() -> None:
    commands = make_dry_run("install", "runs/quickstart/evaluation.json")
    assert "metarl train quickstart" in commands.replace(".venv/bin/", "")
    assert '".[dev]"' not in commands
    tools = make_dry_run("quick")
    assert '".[dev]"' in tools
    # its own dependencies would replace MuJoCo by an old version
    assert "--no-deps --constraint constraints.txt metaworld" in tools
    assert "metaworld" not in commands


def test_all_installations_name_the_pinned_torch_and_its_cpu_index() -> None:
    index = "https://download.pytorch.org/whl/cpu"
    for page in ("README.md", "docs/index.md"):
        lines = re.findall(r"^ +(pip install .*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert [line.split(" #")[0] for line in lines[:2]] == [
            f"pip install --no-deps -c constraints.txt torch --index-url {index}",
            "pip install -c constraints.txt .",
        ]
    commands = make_dry_run("install")
    assert f"--no-deps --constraint constraints.txt torch --index-url {index}" in commands
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


STUB = """#!/bin/sh
echo "$@" >> calls
case "$*" in render*) exit $RENDERS;; esac
for word in "$@"; do last=$word; done
case "$*" in compare*|render*) exit;; esac
mkdir -p "$last" && touch "$last/config.yaml" "$last/evaluation.json"
"""


@pytest.mark.parametrize("renders", [0, 2])
def test_make_train_runs_each_part_once_and_does_not_need_a_video(
    tmp_path: Path, renders: int
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    program = tmp_path / "venv" / "bin" / "metarl"
    program.parent.mkdir(parents=True)
    program.write_text(STUB)
    program.chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()

    def make_train() -> list[str]:
        (tmp_path / "calls").write_text("")
        environment = {**os.environ, "RENDERS": str(renders)}
        environment.pop("MAKEFLAGS", None)
        command = ["make", "train", "VENV=venv"]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert ("cannot render" in result.stdout) == (renders > 0)
        assert "MAML after 1 step is far above" in result.stdout
        return [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]

    assert make_train() == ["train", *["baseline"] * 3, "compare", "render", "render"]
    assert make_train() == ["compare", "render", "render"]  # completed runs are kept
    (tmp_path / "runs" / "quickstart-oracle" / "evaluation.json").unlink()
    assert make_train() == ["baseline", "compare", "render", "render"]
