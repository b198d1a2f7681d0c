"""Runs on the Hugging Face hub, with a folder in place of the hub."""

import json
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from metarl.cli import main
from metarl.config.files import trained_runs
from metarl.experiment import validate_config
from metarl.runs.run import Run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the repositories."""
    root = tmp_path / "hub"

    class HfApi:
        def create_repo(self, repo_id: str, repo_type: str, private: bool, exist_ok: bool) -> None:
            assert (repo_type, private, exist_ok) == ("model", False, True)
            if repo_id.startswith("nobody/"):
                raise ConnectionError("you are not logged in")
            (root / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, repo_id: str, folder_path: str, **how: Any) -> None:
            for old in (root / repo_id).iterdir():
                if any(fnmatch(old.name, pattern) for pattern in how["delete_patterns"]):
                    old.unlink()
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot_download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        if not (root / repo_id).exists() or revision not in (None, "main"):
            raise FileNotFoundError(f"there is no {repo_id}, or no {revision}")
        cached = tmp_path / "cache" / repo_id
        shutil.rmtree(cached, ignore_errors=True)
        cached.mkdir(parents=True)
        for file in (root / repo_id).iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, cached)
        return str(cached)

    package = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.slow
def test_a_pushed_run_is_opened_by_its_address(hub: Path, capsys) -> None:
    assert main(["push", "point_navigation", "me/points"]) == 0
    assert "pushed: hf:me/points" in capsys.readouterr().out
    pushed, original = Run.open(Path("hf:me/points@main")), Run.open(Path("point_navigation"))
    assert pushed.weights_sha256() == original.weights_sha256()
    assert pushed.config == original.config
    assert main(["compare", "hf:me/points", "--out", "out"]) == 0  # evaluated already
    # what is written goes into the working directory, not into the hub's cache
    assert main(["render", "hf:me/points", "--steps", "1"]) == 0
    assert list(Path("runs/hf/me/points").glob("*.gif"))


def test_the_model_card_has_the_table_the_curve_the_command_and_the_config(hub: Path) -> None:
    assert main(["push", "point_navigation", "me/points"]) == 0
    card = (hub / "me" / "points" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "metarl"
    evaluation = json.loads((trained_runs()["point_navigation"] / "evaluation.json").read_text())
    before, half = evaluation["mean"][0], evaluation["interval_95"][0]
    assert f"| MAML | {before:.2f} [{before - half:.2f}, {before + half:.2f}] |" in text
    assert "](adaptation.png)" in text
    assert (hub / "me" / "points" / "adaptation.png").exists()
    assert "metarl evaluate hf:me/points" in text
    config = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert validate_config(config) == Run.open(Path("point_navigation")).config


def test_pushing_again_removes_older_weights(hub: Path) -> None:
    assert main(["push", "point_navigation", "me/points"]) == 0
    (hub / "me" / "points" / "weights-000001.safetensors").write_text("older")
    assert main(["push", "point_navigation", "me/points"]) == 0
    assert [file.name for file in (hub / "me" / "points").glob("weights-*")] == [
        "weights-000150.safetensors"
    ]


def test_evaluations_by_other_names_are_pushed_too(hub: Path) -> None:
    command = ["evaluate", "point_navigation", "--name", "few", "--set", "evaluation.tasks=2"]
    shutil.copytree(trained_runs()["point_navigation"], "copy")
    assert main([*command[:1], "copy", *command[2:]]) == 0
    assert main(["push", "copy", "me/points"]) == 0
    assert (hub / "me" / "points" / "evaluation-few.json").exists()


def test_custom_code_of_a_downloaded_run_is_not_imported(hub: Path, complaint) -> None:
    shutil.copytree(trained_runs()["point_navigation"], hub / "me" / "points")
    config = hub / "me" / "points" / "config.yaml"
    config.write_text(config.read_text().replace("point-navigation", "evil:Family"))
    assert "--trust-code" in complaint("evaluate", "hf:me/points")


def test_errors_are_reported(hub: Path, complaint, monkeypatch) -> None:
    assert "must be USER/NAME" in complaint("push", "point_navigation", "points")
    assert "must be USER/NAME" in complaint("evaluate", "hf:points")
    assert "there is no me/none" in complaint("evaluate", "hf:me/none")
    assert "you are not logged in" in complaint("push", "point_navigation", "nobody/points")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("metarl.cli.push.write_model", lambda *_: pytest.fail("it evaluated"))
    for command in (["push", "point_navigation", "me/points"], ["evaluate", "hf:me/points"]):
        assert "pip install 'metarl-maml[hub]'" in complaint(*command)
