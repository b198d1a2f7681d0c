"""Custom code of runs by other people is not executed without permission."""

import shutil
from pathlib import Path

import pytest
import yaml

from metarl.cli import main
from metarl.errors import UserError
from metarl.runs.run import TRUST_VARIABLE, Run

CONFIG = {
    "family": {"name": "my_tasks:LineFamily"},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 3},
    "outer": {"algorithm": "trpo", "iterations": 2, "meta_batch": 2},
    "evaluation": {"tasks": 3, "episodes_per_task": 2},
}
COMMANDS = [
    ["evaluate", "run"],
    ["compare", "run", "--out", "comparison"],
    ["render", "run"],
    ["report", "run"],
    ["export", "run", "model.zip"],
    ["train", "--resume", "run", "--set=outer.iterations=3"],
]


@pytest.fixture
def run(in_users_folder: Path) -> Path:
    """A run on a custom family; its module records its import."""
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["train", "mine.yaml", "--out", "run"]) == 0  # a config that is named is trusted
    return in_users_folder / "run"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_custom_code_of_a_run_is_imported_only_with_permission(
    run: Path, complaint, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    shutil.move("my_tasks.py", "kept")
    Path("my_tasks.py").write_text("open('imported', 'w')\n" + Path("kept").read_text())
    monkeypatch.delitem(__import__("sys").modules, "my_tasks")
    error = complaint(*command)
    assert "names code that is not of this package (family.name: 'my_tasks:LineFamily')" in error
    assert "add --trust-code (in Python trust_code=True), or set METARL_TRUST_CODE=1" in error
    assert not Path("imported").exists()
    if command[0] != "render":  # which this family cannot
        with monkeypatch.context() as patch:
            patch.setenv(TRUST_VARIABLE, "0")
            assert "--trust-code" in complaint(*command)
        if command[0] != "report":
            assert main([*command, "--trust-code"]) == 0
            assert Path("imported").exists()


def test_an_environment_variable_gives_the_permission(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    assert main(["evaluate", "run"]) == 0


@pytest.mark.parametrize(
    "values",
    [
        {**CONFIG, "family": {"name": "os:system", "settings": {"command": "touch imported"}}},
        {"family": {"name": "ant-goal"}, "method": "my_tasks:LineFamily"},
        {"data": {"name": "sinusoid"}, "network": {"kind": ["my_tasks:LineFamily"]}},
        {"family": {"name": "ant-goal", "settings": {"of": [{"any": "my_tasks:LineFamily"}]}}},
    ],
)
def test_custom_code_is_detected_in_every_setting(in_users_folder: Path, values) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="names code that is not of this package"):
        Run.open(Path("run"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("os:system", "has no class 'system'"),
        ("subprocess:Popen", "is not a task family: it lacks"),
        ("builtins:exec", "has no class 'exec'"),
        ("my_tasks:Line", "is not a task family: it lacks"),
        ("os:", "has no class ''"),
        (":x", "cannot import ''"),
        ("..:x", "cannot import"),
    ],
)
def test_a_class_without_the_members_of_a_family_is_refused_before_it_is_called(
    in_users_folder: Path, name: str, sentence: str
) -> None:
    settings = {"command": "touch called", "args": ["touch", "called"]}
    Path("run").mkdir()
    values = {"family": {"name": name, "settings": settings}}
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=sentence):
        Run.open(Path("run"), trust_code=True)
    assert not Path("called").exists()


def test_the_command_that_continues_a_run_has_the_permission(run: Path) -> None:
    assert Run.open(run, trust_code=True).trust_option == " --trust-code"
