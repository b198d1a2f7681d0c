"""Validation of configs, and their error messages."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import metarl
from metarl.config.files import shipped_configs, trained_runs
from metarl.config.schema import json_schema
from metarl.envs.family import FAMILIES
from metarl.envs.point_navigation import PointNavigation
from metarl.envs.robot import Robot
from metarl.errors import UserError
from metarl.experiment import (
    differences,
    dump_config,
    load_config,
    validate_config,
)
from metarl.launch.train import as_config
from metarl.method import load_method
from metarl.report import evaluations
from metarl.rl.losses import log_likelihood
from metarl.runs.run import Run

MINIMAL = {"family": {"name": "point-navigation"}}


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_valid_and_unchanged_by_a_round_trip(
    name: str, tmp_path: Path
) -> None:
    config = load_config(name)
    (tmp_path / "copy.yaml").write_text(dump_config(config))
    assert load_config(str(tmp_path / "copy.yaml")) == config


def test_a_config_extends_another_by_name_or_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: half_cheetah_direction\n"
        "family: {settings: {horizon: 50}}\n"
        "inner: {trajectories: 7}\n"
        "outer: {algorithm: adam, learning_rate: 1e-2}\n"
    )
    with pytest.warns(DeprecationWarning, match="use episodes_per_task"):
        config = load_config(str(tmp_path / "mine.yaml"), ["seed=3"])
    base = load_config("half_cheetah_direction")
    assert config.family.settings == {"dynamics": "paper", "horizon": 50}
    assert config.inner == base.inner.model_copy(update={"episodes_per_task": 7})
    assert (config.outer.algorithm, config.outer.learning_rate) == ("adam", 0.01)
    assert config.outer.meta_batch == base.outer.meta_batch  # both outer steps have it
    assert config.policy == base.policy
    assert config.seed == 3

    (tmp_path / "adam.yaml").write_text("extends: point_navigation\nouter: adam\n")
    for adam in (
        load_config(str(tmp_path / "adam.yaml")),
        load_config("point_navigation", ["outer=adam"]),
    ):  # the section keeps what both outer steps have
        assert adam.outer == load_config("point_navigation", ["outer.algorithm=adam"]).outer
        assert adam.outer.iterations == load_config("point_navigation").outer.iterations

    (tmp_path / "base.yaml").write_text("family: {name: ant-goal}\nmethod: {name: maml}\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.yaml").write_text("extends: ../base.yaml\nmethod: cavia\n")
    config = load_config(str(tmp_path / "folder" / "mine.yaml"))
    assert (config.family.name, config.method.name) == ("ant-goal", "cavia")

    (tmp_path / "chain.yaml").write_text("extends: folder/mine.yaml\nseed: 7\n")
    chain = load_config(str(tmp_path / "chain.yaml"))
    assert chain == config.model_copy(update={"seed": 7})
    (tmp_path / "ant.yaml").write_text("extends: ant_direction\nouter: {iterations: 3}\n")
    shipped, ant = load_config("ant_direction"), load_config(str(tmp_path / "ant.yaml"))
    assert ant.outer == shipped.outer.model_copy(update={"iterations": 3})
    assert (ant.family, ant.inner) == (shipped.family, shipped.inner)

    (tmp_path / "walker.yaml").write_text(
        "extends: half_cheetah_direction\nfamily: {name: walker-rand-params}\n"
    )
    config = load_config(str(tmp_path / "walker.yaml"))
    assert config.family.settings == {}  # those of the half-cheetah are not a walker's
    assert config.outer == base.outer


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("quikstart", r"there is no config file 'quikstart' \(did you mean 'quickstart'"),
        ("mine.yaml", "mine.yaml: extends: mine.yaml is this config, or extends it itself"),
        ("other.yaml", "other.yaml: extends: mine.yaml is this config, or extends it itself"),
        ("[1]", r"extends: must be the name or the path of a config, not \[1\]"),
    ],
)
def test_a_config_that_cannot_be_extended_is_an_error(tmp_path: Path, base, message) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: {base}\n")
    (tmp_path / "other.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "mine.yaml"))


def test_there_is_a_config_for_each_experiment_of_the_paper() -> None:
    expected = {"quickstart", "point_navigation", "half_cheetah_velocity", "half_cheetah_direction"}
    assert {*expected, "ant_velocity", "ant_direction", "ant_goal"} <= shipped_configs().keys()


def test_the_evaluation_halves_the_step_size_after_the_first_step() -> None:
    config = validate_config({**MINIMAL, "inner": {"step_size": 0.4}})
    assert config.evaluation_step_sizes == (0.4, 0.2, 0.2)


def test_settings_can_be_changed_from_the_command_line() -> None:
    config = load_config(
        "point_navigation_small",
        ["inner.step_size=2e-1", "outer.iterations=7", "family.settings.half_width=1", "seed=3"],
    )
    assert config.inner.step_size == 0.2
    assert config.outer.iterations == 7
    assert config.family.load().half_width == 1
    assert config.seed == 3


def test_a_section_extends_one_that_is_given_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**MINIMAL, "outer": "adam"}))
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nouter: {learning_rate: 0.1}\n")
    outer = load_config(str(tmp_path / "mine.yaml")).outer
    assert (outer.algorithm, outer.learning_rate) == ("adam", 0.1)


def test_a_mapping_on_the_command_line_changes_the_settings_in_it() -> None:
    base = load_config("point_navigation")
    config = load_config("point_navigation", ["inner={step_size: 0.2}", "outer={iterations: 3}"])
    assert config.inner == base.inner.model_copy(update={"step_size": 0.2})
    assert config.outer == base.outer.model_copy(update={"iterations": 3})
    adam = load_config("point_navigation", ["outer={algorithm: adam, learning_rate: 0.1}"])
    assert (adam.outer.learning_rate, adam.outer.meta_batch) == (0.1, base.outer.meta_batch)
    named = load_config("point_navigation", ["outer=adam", "outer={learning_rate: 0.1}"])
    assert named == adam
    assert load_config("point_navigation", ["outer.iterations=3", "outer={}"]) == load_config(
        "point_navigation", ["outer.iterations=3"]
    )
    # of two settings one can be set
    assert base.evaluation.step_sizes
    assert load_config("point_navigation", ["evaluation={steps: 2}"]).evaluation.step_sizes is None
    # another method, and the settings of a class, have nothing in common with the previous ones
    assert load_config("semicircle_rl2").method.episodes == 5
    assert load_config("semicircle_rl2", ["method={name: rl2, clip: 0.1}"]).method.episodes == 2
    plain = load_config("half_cheetah_direction", ["family.settings={horizon: 50}"])
    assert plain.family.settings == {"horizon": 50}


def test_sections_and_kinds_are_set_before_their_settings() -> None:
    for kind in ("outer=adam", "outer={algorithm: adam}", "outer.algorithm=adam"):
        with pytest.raises(UserError, match="max_kl"):
            load_config("point_navigation", ["outer.max_kl=0.1", kind])
        config = load_config("point_navigation", ["outer.learning_rate=0.1", kind])
        assert config.outer.learning_rate == 0.1
    rl2 = load_config("point_navigation", ["method.episodes=5", "method=rl2", "outer=adam"])
    assert rl2.method.episodes == 5
    # of several the last one has an effect
    assert load_config("point_navigation", ["seed=3", "seed=4"]).seed == 4


@pytest.mark.parametrize("method", ["rl2", "promp"])
def test_a_method_with_another_outer_step_does_not_inherit_settings_of_the_default_one(
    method: str, tmp_path: Path
) -> None:
    base, extending = tmp_path / "base.yaml", tmp_path / "extending.yaml"
    base.write_text("family: point-navigation\nouter: {max_kl: 0.02, meta_batch: 7}\n")
    extending.write_text(f"extends: base.yaml\nmethod: {method}\n")
    for config in (load_config(str(base), [f"method={method}"]), load_config(str(extending))):
        assert (config.outer.algorithm, config.outer.meta_batch) == ("adam", 7)
    assert load_config(str(base), ["method=e_maml"]).outer.max_kl == 0.02
    # a setting of the file itself, or of the command line, is not dropped silently
    both = tmp_path / "both.yaml"
    both.write_text(base.read_text() + f"method: {method}\n")
    for path, overrides in ((both, []), (base, [f"method={method}", "outer.max_kl=0.1"])):
        with pytest.raises(UserError, match=r"max_kl: is a setting of outer\.algorithm=trpo"):
            load_config(str(path), overrides)


def test_a_mapping_may_extend_a_config() -> None:
    values = {"extends": "point_navigation", "outer": {"iterations": 3}}
    assert as_config(values) == load_config("point_navigation", ["outer.iterations=3"])
    with pytest.raises(UserError, match="the config: extends: there is no config file 'nope'"):
        as_config({"extends": "nope"})


def test_settings_of_a_constructor_are_plain_values() -> None:
    settings = {"horizon": np.int64(20), "half_width": np.float32(0.5)}
    config = metarl.Config(family={"name": "point-navigation", "settings": settings})
    assert config == validate_config(yaml.safe_load(dump_config(config)))
    assert config.family.load().horizon == 20
    with pytest.raises(UserError, match=r"family\.settings: must be numbers, .* not horizon=<obj"):
        metarl.Config(family={"name": "point-navigation", "settings": {"horizon": object()}})


def test_a_function_may_be_an_estimator_if_it_can_be_imported() -> None:
    config = metarl.Config(family="point-navigation", inner={"estimator": log_likelihood})
    assert config.inner.estimator == "metarl.rl.losses:log_likelihood"
    with pytest.raises(UserError, match="<lambda> is not: define it at the top level"):
        metarl.Config(family="point-navigation", inner={"estimator": lambda *_: 0.0})
    with pytest.raises(UserError, match=r"estimator: must name .* 'json' has no function 'no'"):
        metarl.Config(family="point-navigation", inner={"estimator": "json:no"})


def test_an_instance_where_a_class_is_expected_is_an_error() -> None:
    with pytest.raises(UserError, match=r"family\.name: must be the class PointNav"):
        metarl.Config(family=PointNavigation())
    network = {"network": torch.nn.Linear(2, 2)}
    with pytest.raises(UserError, match=r"policy\.network: must be the class Linear or a name"):
        metarl.Config(family="point-navigation", policy=network)


def test_another_family_keeps_no_settings() -> None:
    base = "half_cheetah_direction"  # with `dynamics: paper`
    for family in ("family=ant-direction", "family.name=ant-direction"):
        assert load_config(base, [family]).family.settings == {}
        horizon = [family, "family.settings.horizon=50"]
        for overrides in (horizon, horizon[::-1]):
            assert load_config(base, overrides).family.settings == {"horizon": 50}
    same = load_config(base, ["family=half-cheetah-direction"])
    assert same.family.settings == {"dynamics": "paper"}


def test_the_settings_of_the_outer_step_depend_on_its_algorithm() -> None:
    config = validate_config({**MINIMAL, "outer": {"algorithm": "adam", "learning_rate": "1e-2"}})
    assert config.outer.learning_rate == 0.01
    with pytest.raises(UserError, match="learning_rate"):
        validate_config({**MINIMAL, "outer": {"algorithm": "adam", "max_kl": 0.01}})


def test_annealed_step_sizes_decay_to_zero() -> None:
    config = validate_config({**MINIMAL, "outer": {"anneal": True, "iterations": 10}})
    sizes = [config.outer.annealed(0.01, iteration) for iteration in range(11)]
    assert sizes[0] == 0.01
    assert sizes[5] == pytest.approx(0.005)
    assert sizes[10] == pytest.approx(0.0, abs=1e-12)
    assert sizes == sorted(sizes, reverse=True)
    assert validate_config(MINIMAL).outer.annealed(0.01, 50) == 0.01


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ({**MINIMAL, "sed": 1}, ["sed: there is no such setting (did you mean 'seed'?)"]),
        (
            {**MINIMAL, "inner": {"step_sise": 1}},
            ["inner.step_sise: there is no such setting (did you mean 'step_size'?)"],
        ),
        (
            {**MINIMAL, "outer": {"algorithm": "trpo", "max_lk": 1}},
            ["outer.max_lk: there is no such setting (did you mean 'max_kl'?)"],
        ),
        ({**MINIMAL, "outer": {"algorithm": {"a": 1}}}, ["outer.algorithm: must be a name, not"]),
        ({**MINIMAL, "inner": {"steps": -1}}, ["inner.steps: must be greater than or equal to 1"]),
        ({**MINIMAL, "inner": {"steps": "two"}}, ["inner.steps: must be a valid integer"]),
        ({**MINIMAL, "inner": {"steps": 3.5}}, ["inner.steps: must be a whole number, not 3.5"]),
        (
            {**MINIMAL, "policy": {"hidden_sizes": 64}},
            ["policy.hidden_sizes: must be a list, such as [64, 64], not 64"],
        ),
        ({**MINIMAL, "inner": {"step_size": float("nan")}}, ["inner.step_size: must be"]),
        (
            {**MINIMAL, "outer": {"algorithm": "lbfgs"}},
            ["outer.algorithm: must be 'trpo' or 'adam' or"],
        ),
        ({"family": "ant-gaol"}, ["did you mean 'ant-goal'"]),
        ({"family": 3}, ["family.name: must be a valid string, not 3"]),
        ({"family": None}, ["family: must be a mapping of its settings, not None"]),
        ({**MINIMAL, "outer": 3}, ["outer: must be a name or a mapping of its settings, not 3"]),
        ({}, ["has no task distribution: set `family`"]),
        ({"family": {"name": "ant-gaol"}}, ["did you mean 'ant-goal'"]),
        (
            {"family": {"name": "ant-gaol"}, "sed": 1, "policy": {"activation": "gelu"}},
            ["3 errors", "ant-goal", "did you mean 'seed'", "policy.activation: must be 'relu'"],
        ),
        (
            {"family": {"name": "ant-goal", "settings": {"half_widht": 1}}},
            ["has no setting 'half_widht' (did you mean 'half_width'?)"],
        ),
    ],
)
def test_all_errors_of_a_config_are_reported_at_once(values, sentences) -> None:
    with pytest.raises(UserError) as caught:
        validate_config(values)
    for sentence in sentences:
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("family: [", "is not valid YAML"), ("just words", "must be a mapping"), ("", "mapping")],
)
def test_a_file_that_is_not_a_config_is_reported(tmp_path, text, sentence) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_config(str(tmp_path / "bad.yaml"))


def nested(levels: int) -> str:
    return "a: " + "[" * levels + "]" * levels


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * 100_001, "has 100,001 bytes"),
        (nested(30), "nested deeper than 20 levels"),
        ("[" * 90_000, "nested deeper than 20 levels"),
        (BOMB, "more than 10000 values"),
        ("a: &a [*a]", "stands for what it is in"),
        ("a: " + "9" * 5000, "must have 64 bits at most"),
        ("a: 9223372036854775808", "must have 64 bits at most"),
        ("a: !!int abc", "tags such as"),
        ("a: !!python/object/apply:os.system [true]", "tags such as"),
        ("a: 2024-99-99", "month must be in 1..12"),
        ("seed: 1\nseed: 2", "'seed' is given twice"),
        ("a: \0", "is not valid YAML"),
        (b"a: \xff", "cannot read the config"),
        (b"\xef\xbb\xbf[]", "must be a mapping"),
    ],
)
def test_a_file_beyond_the_limits_of_yaml_is_reported(
    tmp_path: Path, text: str | bytes, sentence: str
) -> None:
    (tmp_path / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence):
        load_config(str(tmp_path / "bad.yaml"))


def test_aliases_merged_sections_and_large_integers_follow_yaml(tmp_path: Path) -> None:
    file = tmp_path / "fine.yaml"
    file.write_text(
        "family: {name: point-navigation}\n"
        "evaluation: &same {seed: 9223372036854775807}\n"
        "baseline: {validation_tasks: 3}\n"
        "inner: {<<: {step_size: 3}, step_size: 2}\n"
    )
    config = load_config(str(file))
    assert config.evaluation.seed == 2**63 - 1
    assert config.inner.step_size == 2.0


def test_a_config_must_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a regular file"):
            load_config(str(path))


def test_numbers_are_decimal() -> None:
    config = load_config("quickstart", ["seed=010", "outer.iterations=+12", "inner.step_size=.5"])
    assert (config.seed, config.outer.iterations, config.inner.step_size) == (10, 12, 0.5)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("outer.iterations=1:30", "outer.iterations: must be a valid integer, not '1:30'"),
        ("outer.iterations=0x10", "outer.iterations: must be a valid integer, not '0x10'"),
        ("outer.iterations=true", "outer.iterations: must be a number, not true"),
        ("inner.step_size=true", "inner.step_size: must be a number, not true"),
        ("policy.hidden_sizes=[true]", "policy.hidden_sizes.0: must be a number, not true"),
        ("outer.max_kl=no", "outer.max_kl: must be a number, not false"),
    ],
)
def test_what_python_or_yaml_takes_for_another_number_is_refused(override, sentence) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config("point_navigation", [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("inner.step_size", "must have the form"),
        ("seed.x=1", "'seed' is a setting, not a section"),
        ("inner.step_size=[", "is not valid YAML"),
    ],
)
def test_a_malformed_override_is_reported(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_config("quickstart", ["seed=1", override])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("inner.trajectories=3", "inner.episodes_per_task=3"),
        ("inner.lam=0.5", "inner.gae_lambda=0.5"),
        ("evaluation.trajectories=3", "evaluation.episodes_per_task=3"),
        ("evaluation.count=steps", "evaluation.batch_unit=steps"),
        ("baseline.lam=0.5", "baseline.gae_lambda=0.5"),
        ("baseline.minibatch=7", "baseline.batch_size=7"),
        ("baseline.chosen_after=0", "baseline.selection_step=0"),
        ("method.lam=0.5", "method.gae_lambda=0.5"),
    ],
)
def test_names_of_settings_in_version_0_1_are_accepted(tmp_path: Path, old, new) -> None:
    name, _, value = old.partition("=")
    section, setting = name.split(".")
    shipped = "point_navigation_rl2" if section == "method" else "point_navigation"
    with pytest.warns(DeprecationWarning, match=f"use {new.partition('=')[0].split('.')[1]}"):
        config = load_config(shipped, [old])
    assert config == load_config(shipped, [new])

    values = load_config(shipped).model_dump(mode="json")
    del values[section][new.partition("=")[0].split(".")[1]]
    values[section][setting] = value
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(values))
    with pytest.warns(DeprecationWarning, match="was renamed"):
        assert load_config(str(tmp_path / "old.yaml")) == config
    with pytest.warns(DeprecationWarning, match="was renamed"):
        assert metarl.Config(**values) == config
    # the override has the last word, by either name
    overridden = load_config(str(tmp_path / "old.yaml"), [new])
    assert overridden == config
    values[section][new.partition("=")[0].split(".")[1]] = value
    with pytest.raises(UserError, match=rf"{section}\.{setting}: was renamed to .*; set only"):
        validate_config(values)


def test_the_command_line_shows_that_a_setting_was_renamed() -> None:
    command = [sys.executable, "-m", "metarl", "train", "quickstart"]
    command += ["--set=inner.lam=0.9", "--set=inner.steps=0"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert "DeprecationWarning: the setting lam was renamed: use gae_lambda" in output
    assert "inner.steps: must be greater than or equal to 1" in output


def test_a_recorded_config_with_old_names_loads_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in trained_runs():
            run = Run.open(Path(name), ("evaluation.tasks=3",))
            assert run.checkpoint().state.iteration
            evaluations.load_or_evaluate(run)
    assert "trajectories" in (trained_runs()["half_cheetah_direction"] / "config.yaml").read_text()


def test_the_error_for_a_missing_config_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load_config("quikstart")


def test_differences_list_settings_except_the_ignored_ones() -> None:
    old = validate_config(MINIMAL)
    new = validate_config({**MINIMAL, "seed": 2, "outer": {"algorithm": "trpo", "iterations": 9}})
    assert differences(old, new, ["outer.iterations"]) == ["seed: 1 → 2"]


def test_an_override_of_the_outer_algorithm_drops_the_settings_of_the_previous_one() -> None:
    config = load_config("point_navigation", ["outer.algorithm=adam", "outer.learning_rate=1e-2"])
    assert config.outer.learning_rate == 1e-2
    assert config.outer.meta_batch == 20  # what both have stays
    # and nothing that the command line gave, wherever it stands there
    for order in (1, -1):
        with pytest.raises(
            UserError, match=r"outer\.max_kl: is a setting of outer\.algorithm=trpo"
        ):
            load_config("point_navigation", ["outer.algorithm=adam", "outer.max_kl=0.1"][::order])


def test_an_override_of_the_policy_network_drops_the_settings_of_the_previous_one(
    in_users_folder: Path,
) -> None:
    shutil.copy(Path(__file__).parent / "my_networks.py", in_users_folder)
    custom_network = "policy.network=my_networks:Net"
    (in_users_folder / "layers.yaml").write_text(
        "{family: {name: point-navigation}, policy: {hidden_sizes: [9], min_std: 0.1}}"
    )
    config = load_config(
        "layers.yaml", [custom_network, "policy.settings.width=7", "policy.init_std=0.5"]
    )
    assert (config.policy.settings, config.policy.min_std) == ({"width": 7}, 0.1)
    (in_users_folder / "mine.yaml").write_text(dump_config(config))
    assert load_config("mine.yaml", ["policy.network=mlp"]).policy.settings == {}
    assert load_config("mine.yaml", [custom_network]).policy.settings == {"width": 7}
    with pytest.raises(
        UserError, match=r"policy\.hidden_sizes: belongs to the multilayer perceptron"
    ):
        load_config("layers.yaml", ["policy.hidden_sizes=[7]", custom_network])


def test_the_kind_of_a_network_can_be_set_as_its_name() -> None:
    by_name = load_config("omniglot_5way_1shot", ["network.name=mlp", "network.hidden_sizes=[3]"])
    assert by_name == load_config(
        "omniglot_5way_1shot", ["network.kind=mlp", "network.hidden_sizes=[3]"]
    )
    values = {"data": {"name": "sinusoid"}, "network": {"name": "mlp", "kind": "mlp"}}
    with pytest.raises(UserError, match=r"network\.name: is an alias of `kind`"):
        validate_config(values)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1, "family": {"name": 3}},
        {**MINIMAL, "outer": {"algorithm": "adam"}, "method": {"name": "rl2", "episodes": 0}},
        {**MINIMAL, "outer": {"algorithm": "trpo"}, "method": "promp"},
        {**MINIMAL, "inner": {"stps": 2}},
        {"data": "sinusoid", "network": "conv4"},
        {"data": {"name": "sinusoid", "amplitud": 3}, "network": "mlp"},
    ],
)
def test_errors_of_a_config_in_python_have_the_same_messages(values) -> None:
    with pytest.raises(UserError) as plain:
        metarl.train(values, "runs/never")
    with pytest.raises(UserError) as constructed:
        (metarl.Config if "family" in values else metarl.SupervisedConfig)(**values)
    assert str(plain.value) == str(constructed.value)
    assert str(plain.value).startswith("the config has")


def test_a_missing_family_in_python_is_an_error_when_it_is_used() -> None:
    config = metarl.Config(family={"name": "ant-gaol"})  # and one may be given otherwise
    with pytest.raises(UserError, match=r"there is no task family 'ant-gaol' \(did you mean"):
        metarl.train(config, "runs/never")


def test_custom_networks_are_accepted_and_invalid_classes_refused() -> None:
    config = load_config("omniglot_5way_1shot", ["network.kind=torch.nn:Linear"])
    assert config.network.model_dump() == {"kind": "torch.nn:Linear", "settings": {}}
    with pytest.raises(UserError, match="'fractions:Fraction' is not a class of tasks"):
        load_method(load_config("omniglot_5way_1shot", ["data.name=fractions:Fraction"]))


def test_the_error_for_an_unsupported_outer_step_names_the_supported_ones() -> None:
    with pytest.raises(UserError, match=r"outer\.algorithm: must be 'adam' or .* for method rl2"):
        load_config("point_navigation", ["method=rl2"])
    with pytest.raises(UserError, match=r"outer\.algorithm: must be 'adam' or .* for method promp"):
        load_config("point_navigation", ["method=promp"])
    with pytest.raises(UserError, match=r"method\.name: 'fractions:Fraction' is not a method"):
        load_config("point_navigation", ["method=fractions:Fraction"])


OLD_METHOD = """
from metarl.rl.maml import MAML


class Methods:
    Settings, role, label, outer_steps = MAML.Settings, MAML.role, MAML.label, MAML.outer_steps
    __init__, initial_state, step = MAML.__init__, MAML.initial_state, MAML.step


class Old(Methods):
    axis = "gradient steps"
    updates, budget = MAML.num_iterations, MAML.max_samples
    anneals, distributes = MAML.uses_lr_schedule, MAML.supports_distributed

    def adaptation_curve(self, params, step_sizes=None):
        return "adapted"
"""


def test_a_custom_method_may_have_the_member_names_of_version_0_1(in_users_folder: Path) -> None:
    (in_users_folder / "old_methods.py").write_text(OLD_METHOD)
    config = load_config("point_navigation_small", ["method=old_methods:Old"])
    with pytest.warns(DeprecationWarning, match="adaptation_curve is deprecated"):
        method = load_method(config)
    assert method.evaluate({}) == "adapted"
    with pytest.raises(UserError, match="it lacks evaluate or adaptation_curve"):
        load_config("point_navigation_small", ["method=old_methods:Methods"])


@pytest.mark.parametrize("config", ["point_navigation_small", "sinusoid"])
@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ([], "MAML"),
        (["inner.first_order=true"], "MAML, first order"),
        (["inner.adapt=head"], "ANIL"),
        (["inner.learned_step_sizes=meta_sgd"], "Meta-SGD"),
        (["inner.learned_step_sizes=lslr", "inner.adapt=head"], "ANIL, LSLR"),
        (["inner.adapt=head", "inner.first_order=true"], "ANIL, first order"),
    ],
)
def test_variants_of_maml_have_their_names_of_the_literature(
    config: str, settings: list[str], label: str
) -> None:
    assert load_method(load_config(config, settings)).label == label


def test_the_label_of_maml_names_a_network_without_convolution() -> None:
    def label(config: str, *settings: str) -> str:
        return load_method(load_config(config, settings)).label

    assert label("omniglot_5way_1shot") == "MAML"
    assert label("omniglot_5way_1shot_mlp") == "MAML, no convolution"
    first_order = label("omniglot_5way_1shot_mlp", "inner.first_order=true")
    assert first_order == "MAML, first order, no convolution"


def test_an_error_in_an_override_is_not_attributed_to_the_file(complaint) -> None:
    message = complaint("train", "quickstart", "--set", "inner.stepsize=1")
    assert "quickstart.yaml with inner.stepsize=1 has an error" in message
    message = complaint("evaluate", "sinusoid", "--set", "evaluation.tasks=0")
    assert "config.yaml with evaluation.tasks=0 has an error" in message


def test_an_integer_that_a_file_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match="seed: must be less than 9223372036854775808"):
        metarl.Config.model_validate({**MINIMAL, "seed": 2**63})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: point_navigation\ninner: {1: 2}", "inner.1: there is no such setting"),
        ("extends: point_navigation\nfamily: {1: 2}", "family.1: there is no such setting"),
        ("extends: " + 300 * "x", "extends: there is no config file"),
    ],
)
def test_odd_names_in_a_config_that_extends_another_are_reported(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "odd.yaml"))


DEFAULTS = Path(__file__).parent / "defaults.json"


def defaults() -> dict[str, Any]:
    """The default of every setting, and of every argument of a family."""
    definitions = json_schema([metarl.Config, metarl.SupervisedConfig])["$defs"]
    settings = {
        f"{section}.{name}": setting["default"]
        for section, definition in definitions.items()
        for name, setting in definition.get("properties", {}).items()
        if "default" in setting and not setting.get("deprecated")
    }
    for name in FAMILIES:
        for argument in inspect.signature(FAMILIES.load(name)).parameters.values():
            settings[f"{name}.{argument.name}"] = argument.default
    for name in ("frame_skip", "control_cost", "stage", "fixed_fields"):
        settings[f"Robot.{name}"] = getattr(Robot, name)
    return json.loads(json.dumps(settings, default=str))


def test_defaults_are_those_of_published_results() -> None:
    """Only with the same defaults does a config stand for the same training.

    `python tests/test_config.py` records new ones, and those that are meant to change.
    """
    recorded, current = json.loads(DEFAULTS.read_text()), defaults()
    assert {name: current.get(name) for name in recorded} == recorded


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(defaults(), indent=1) + "\n")


@pytest.mark.parametrize("config", ["point_navigation", "sinusoid"])
def test_fine_tuning_selects_by_a_step_that_the_evaluation_has(config: str) -> None:
    late = ["method=pretrained", "baseline.selection_step=5", "evaluation.steps=3"]
    with pytest.raises(UserError, match=r"selection_step: 5 is after the last of the 3 steps"):
        load_config(config, late)
    load_config(config, ["baseline.selection_step=5", "evaluation.steps=3"])  # for other methods
    load_config(config, [*late[:2], "evaluation.steps=5"])


def test_the_name_of_a_family_may_stand_for_its_section(tmp_path: Path) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("family: point-navigation\n")
    child.write_text("extends: base.yaml\nfamily: {settings: {horizon: 30}}\n")
    assert load_config(str(base)).family.name == "point-navigation"
    assert load_config(str(child)).family.settings == {"horizon": 30}
    other = load_config(str(base), ["family=ant-goal", "family.settings.horizon=30"])
    assert (other.family.name, other.family.settings) == ("ant-goal", {"horizon": 30})
    assert (
        metarl.Config(family="ant-goal").family == metarl.Config(family={"name": "ant-goal"}).family
    )
    assert metarl.Config(family=PointNavigation).family.name.endswith(":PointNavigation")
