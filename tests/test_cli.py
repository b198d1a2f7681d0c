"""The command line: help, hints, options that stand for settings, schema and completion."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from metarl import Config
from metarl.cli import main
from metarl.cli.parser import make_parser
from metarl.config.files import read_values, shipped_configs, trained_runs
from metarl.config.schema import json_schema
from metarl.errors import UserError
from metarl.supervised.config import SupervisedConfig


@pytest.fixture(scope="module")
def schema() -> dict:
    return json_schema([Config, SupervisedConfig])


@pytest.mark.parametrize("command", [*make_parser().commands])
def test_the_help_of_every_command_has_an_example_of_it(command: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"\n  metarl {command}" in text.partition("examples:")[2]
    described, _, _ = text.partition("examples:")
    assert max(map(len, described.splitlines())) <= 100


def test_the_command_alone_shows_its_help(capsys) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "usage: metarl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evalaute", "x"], "there is no command evalaute (did you mean 'evaluate'?)"),
        (["compare", "a", "--many-step=3", "--ou=x", "--what"], "unknown option --what"),
        (["sweep", "x", "--serch", "3"], "unknown option --serch (did you mean '--search'?)"),
        (["list", "all"], "unexpected argument all; see metarl list --help"),
        (["bench", "--repeats", "0"], "must be a whole number of at least 1, not '0'"),
        (["sweep", "quickstart", "--prune"], "--prune belongs to --search N"),
        (["baseline", "x", "--kind", "oracel"], "not 'oracel' (did you mean 'oracle'?)"),
        (["evaluate", "x", "--schedule", "old"], "--schedule: must be own or paper, not 'old'"),
        (
            ["evaluate", "x", "--schedule", "paper", "--set", "evaluation.step_sizes=[0.1]"],
            "--set evaluation.step_sizes=[0.1] contradicts --schedule paper; use one of them",
        ),
        (
            ["evaluate", "x", "--schedule", "paper", "--set", "evaluation.batch_unit=episodes"],
            "--set evaluation.batch_unit=episodes contradicts --schedule paper",
        ),
        (["train", "x", "--seed", "two"], "--seed: must be a whole number, not 'two'"),
        (["render", "x", "--task", "-1e-1", "-.5", "-2E3"], "there is no run in x"),
        (["render", "x", "--task", "left"], "--task: must be a number, not 'left'"),
        (
            ["sweep", "quickstart", "--set", "inner.step_size=0.1..0.5"],
            "a range needs --search N, the number of values to try; or give values, such as "
            "inner.step_size=0.1,0.5",
        ),
        (["train", "a.yaml"], "there is no config file 'a.yaml'; give a YAML file, or a name"),
    ],
)
def test_a_mistake_on_the_command_line_is_explained(arguments, sentence, complaint) -> None:
    assert sentence in complaint(*arguments)


def test_an_unknown_config_gets_the_nearest_five_names(complaint) -> None:
    error = complaint("train", "ant_direktion")
    assert "(did you mean 'ant_direction'?)" in error
    _, _, names = error.partition("such as ")
    assert len(names.split(", ")) == 5


def test_an_evaluation_names_the_episodes_of_a_step(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ("--set", "evaluation.tasks=2", "--set", "evaluation.episodes_per_task=3")
    assert main(["evaluate", "point_navigation", *settings]) == 0
    printed = capsys.readouterr().out
    assert "each on 3 episodes, and on 40 in training" in printed


def test_a_config_in_place_of_a_run_and_the_reverse_are_explained(
    complaint, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("data: sinusoid\n")
    for name in ("quickstart", "my.yaml"):
        assert f"{name} is a config, not a run: train it with" in complaint("evaluate", name)
    Path("runs/alpha/seed-1").mkdir(parents=True)
    Path("runs/alpha/seed-1/config.yaml").touch()
    message = complaint("evaluate", "runs/alpha/seed-1/config.yaml")
    assert "is a file of the run runs/alpha/seed-1: give its directory" in message
    assert "runs/alpha has 1 runs: name them, such as" in complaint("compare", "runs/alpha")
    Path("runs/alpha/config.yaml").touch()
    assert "runs/alpha is a run, not a config: continue it" in complaint("train", "runs/alpha")
    assert "(did you mean 'runs/alpha'?)" in complaint("evaluate", "runs/alhpa")
    assert "(did you mean 'runs/alpha'?)" in complaint("render", "alphq")
    assert "(did you mean 'ant_goal'?)" in complaint("render", "ant_gaol")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("gamma=0.9", "'inner.gamma'"),
        ("max_lk=1", "'outer.max_kl'"),
        ("outer.hidden_sizes=[3]", "'policy.hidden_sizes'"),
        ("policy.lam=1", "'inner.gae_lambda' or 'baseline.gae_lambda'"),
        ("inner.tasks=3", "'evaluation.tasks'"),
        ("evalution.tasks=3", "'evaluation'"),
    ],
)
def test_a_setting_of_another_section_is_suggested(override: str, hint: str, complaint) -> None:
    assert f"(did you mean {hint}?)" in complaint("train", "quickstart", "--set", override)


def test_settings_of_the_chosen_algorithm_are_suggested() -> None:
    with pytest.raises(UserError, match=r"did you mean 'outer.max_kl'\?"):
        Config(family={"name": "ant-goal"}, max_kl=0.1)
    with pytest.raises(UserError, match=r"did you mean 'outer.learning_rate' or 'baseline"):
        Config(family={"name": "ant-goal"}, outer="adam", learning_rate=0.1)
    with pytest.raises(UserError, match=r"its own settings are in family\.settings"):
        Config(family={"name": "ant-goal", "horizon": 10})


@pytest.mark.parametrize("option", ["seed", "device", "iterations"])
def test_an_option_and_the_setting_that_it_stands_for_exclude_each_other(
    option: str, complaint
) -> None:
    setting = {"iterations": "outer.iterations"}.get(option, option)
    error = complaint("train", "quickstart", f"--{option}", "1", "--set", f"{setting}=1")
    assert f"--{option} and --set {setting}=... contradict each other" in error


@pytest.mark.parametrize("setting", ["method=maml", "method.name=maml", "method={name: maml}"])
def test_the_kind_of_a_baseline_excludes_another_method(
    setting: str, complaint, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["baseline", "quickstart", "--kind", "pretrained"]
    assert "--kind and --set method=... contradict" in complaint(*command, "--set", setting)


def test_settings_of_the_method_can_be_changed_beside_its_kind(complaint) -> None:
    command = ["baseline", "point_navigation_rl2", "--kind", "rl2", "--set", "method.episodes=0"]
    assert "method.episodes: must be greater" in complaint(*command)


def test_a_setting_of_an_option_is_validated_as_in_a_config(complaint) -> None:
    assert "device: must be 'auto'" in complaint("train", "quickstart", "--device", "tpu")
    assert "outer.iterations: must be" in complaint("sweep", "quickstart", "--iterations", "0")
    seeds = ["--seeds", "2", "--set", "seed=3"]
    assert "--seeds contradicts the setting seed" in complaint("train", "quickstart", *seeds)


def test_configs_of_the_package_are_valid_by_the_json_schema(schema) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    runs = [path / "config.yaml" for path in trained_runs().values()]
    for path in [*shipped_configs().values(), *runs]:
        assert validator.is_valid(read_values(path)), path
    family = {"name": "my_tasks:LineFamily"}
    assert validator.is_valid({"family": family, "method": {"name": "my:Method", "x": 1}})
    for short in ({"early_stopping": True}, {"init_from": "runs/mine"}, {"outer": "adam"}):
        assert validator.is_valid({"family": "ant-goal", **short}), short
    for wrong in (
        {},
        {"family": family, "inner": {"stp": 1}},
        {"family": family, "seed": -1},
        {"family": family, "outer": {"algorithm": "adam", "max_kl": 0.1}},
        {"data": "sinusoid", "policy": {}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_the_json_schema_explains_every_setting(schema) -> None:
    definitions = schema["$defs"]
    for name, definition in definitions.items():
        settings = definition.get("properties", {})
        assert [s for s, value in settings.items() if not value.get("description")] == [], name
    kl = definitions["TrustRegion"]["properties"]["damping"]["description"]
    assert "`damping`" in kl
    # also those that the section has from its base class
    for name in ("TrustRegion", "Adam"):
        assert "`meta_batch`" in definitions[name]["properties"]["meta_batch"]["description"]
    inner = definitions["metarl__rl__config__InnerConfig"]["properties"]
    assert "ANIL" in inner["adapt"]["description"]
    methods = definitions["Config"]["properties"]["method"]["anyOf"]
    assert "maml" in methods[0]["enum"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_shell_completes_commands_options_and_names(capsys, tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    script = tmp_path / "metarl"
    assert main(["completion", "bash"]) == 0
    script.write_text(
        capsys.readouterr().out
        + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_metarl; echo "${COMPREPLY[*]}"\n'
    )

    def complete(*words: str) -> set[str]:
        command = ["bash", script, "metarl", *words]
        return {*subprocess.run(command, capture_output=True, text=True).stdout.split()}

    assert complete("swe") == {"sweep"}
    assert complete("train", "ant_g") == {"ant_goal", "ant_goal_gymnasium"} & {*shipped_configs()}
    assert "--iterations" in complete("train", "--iter")


def test_completion_without_the_package_names_the_extra(complaint, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert "metarl-maml[completion]" in complaint("completion", "zsh")


@pytest.mark.parametrize("command", [["evaluate"], ["train", "--resume"], ["data", "check"]])
def test_a_name_that_is_too_long_for_a_file_is_reported(command, capsys) -> None:
    assert main([*command, "x" * 300]) == 2
    # by the version of Python
    message = "the name of a file is too long: xxx|there is no run in xxx"
    assert re.match(f"metarl: ({message})", capsys.readouterr().err)
