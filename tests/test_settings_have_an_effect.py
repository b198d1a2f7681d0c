"""Every setting has an effect on a method, or is refused."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from metarl.config.sections import SHARED, Section
from metarl.errors import UserError
from metarl.experiment import load_config, override_config, validate_config
from metarl.rl.methods import METHODS as RL
from metarl.supervised.methods import METHODS as SUPERVISED

POLICY = {
    "family": {"name": "point-navigation", "settings": {"horizon": 6}},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 4, "steps": 2},
    "outer": {"meta_batch": 2, "iterations": 2},
    "evaluation": {"tasks": 2, "episodes_per_task": 2},
    "baseline": {"validation_tasks": 2, "batch_size": 40, "step_sizes": [0.1, 0.2]},
}
SINE = {
    "data": {"name": "sinusoid"},
    "network": {"kind": "mlp", "hidden_sizes": [4]},
    "inner": {"shots": 3, "queries": 3, "steps": 2},
    "outer": {"meta_batch": 2, "iterations": 2},
    "evaluation": {"tasks": 2},
    "baseline": {"validation_tasks": 2, "step_sizes": [0.1, 0.2]},
}
# settings of a run, or with an effect on some families and processors only
EXEMPT = ("seed", "device", "checkpoint_every", "report_every", "record_every", "init_from")
VALUES = (
    "false",
    "true",
    "3",
    "0.25",
    "[0.3]",
    "adam",
    "head",
    "lslr",
    "log_likelihood",
    "steps",
    "tanh",
    "[5]",
    "linear",
    "time",
    "sgd",
    "[{until: 1, set: {outer.meta_batch: 1}}]",
)


def settings(config: Any) -> Iterator[tuple[str, str]]:
    for section in type(config).model_fields:
        value = getattr(config, section)
        if section in ("method", "family", "data", "network", *EXEMPT):
            continue
        names = type(value).model_fields if isinstance(value, Section) else [""]
        yield from ((section, name) for name in names if name != "settings")


METHODS = [("rl", name) for name in RL] + [("supervised", name) for name in SUPERVISED]
IMAGES = {"prototypical", "matching", "siamese", "mann", "nearest_neighbour"}


def refused(config: Any, name: str) -> bool:
    unused = config.unused_settings()
    return any(name == n or (n.endswith(".") and name.startswith(n)) for n in unused)


@pytest.mark.parametrize(("domain", "method"), METHODS)
def test_a_setting_that_is_declared_unused_exists_and_is_refused(domain: str, method: str) -> None:
    name = "omniglot_5way_1shot" if method in IMAGES else "sinusoid"
    config = load_config("point_navigation" if domain == "rl" else name, unused_outer(method))
    every = {f"{section}.{setting}".rstrip(".") for section, setting in settings(config)}
    every |= {f"method.{setting}" for setting in type(config.method).model_fields}
    unused = config.unused_settings()
    for declared in unused:
        assert any(n == declared or n.startswith(declared) for n in every | {"device"}), declared
    shared = (*SHARED, *(n for n in every if n.startswith("baseline.")))
    for setting in sorted(n for n in every - {*shared} if refused(config, n)):
        messages = [
            attempt(domain, name, [*unused_outer(method), f"{setting}={value}"]) for value in VALUES
        ]
        expected = f"{setting}: (.* is not supported by method {method}, |needs inner.steps)"
        assert any(re.search(expected, message) for message in messages), setting


def attempt(domain: str, name: str, overrides: list[str]) -> str:
    """The error message of a config with these overrides."""
    try:
        if domain == "rl":
            override_config(POLICY, overrides)
        else:
            load_config(name, overrides)
    except UserError as error:
        return str(error)
    return ""


def unused_outer(method: str) -> list[str]:
    needs_adam = method in RL and "trpo" not in RL.load(method).outer_steps
    return [f"method={method}", *["outer.algorithm=adam"] * needs_adam]


def test_settings_of_a_file_that_another_method_does_not_use_are_dropped() -> None:
    config = load_config("half_cheetah_direction", ["method=random"])
    assert config.outer == type(config.outer)()
    assert config.evaluation.episodes_per_task == 20
    with pytest.raises(UserError, match=r"outer\.max_kl: 0\.2 is not supported by method random"):
        load_config("half_cheetah_direction", ["method=random", "outer.max_kl=0.2"])
    values = {**SINE, "method": "random"}
    with pytest.raises(UserError, match=r"inner\.steps: 2 is not supported"):
        validate_config(values)
    with pytest.raises(UserError, match=r"inner\.steps: 2 is not supported"):
        override_config(values, ["seed=2"])


def test_a_comparison_shares_the_settings_of_baselines_and_the_size_of_the_training() -> None:
    assert validate_config(SINE).baseline.validation_tasks == 2
    shared = ["baseline.selection_step=2", "outer.iterations=3"]
    for method in ("maml", "random"):
        load_config("sinusoid", [f"method={method}", *shared])


def test_learned_step_sizes_take_a_number_of_steps() -> None:
    learned = "inner.learned_step_sizes=lslr"
    config = load_config("point_navigation", [learned, "evaluation.steps=2"])
    assert config.evaluation_step_sizes == (0.5, 0.25)
    message = "learned its step sizes.*evaluation.steps=1"
    with pytest.raises(UserError, match=message):
        load_config("point_navigation", [learned, "evaluation.step_sizes=[0.1]"])
    four_steps = load_config("point_navigation_small", ["evaluation.steps=4"])
    assert four_steps.evaluation_step_sizes[2:] == (config.inner.step_size / 2,) * 2
    with pytest.raises(UserError, match="set only one of them"):
        load_config("point_navigation_small", ["evaluation.steps=4", "evaluation.step_sizes=[0.1]"])


def test_the_settings_of_a_method_may_follow_its_name() -> None:
    for config in ({**SINE, "method": "maml"}, {**SINE, "method": {"name": "maml"}}):
        for overrides in (["method.loss=huber"], ["method=pretrained", "method.loss=huber"]):
            dropped = {k: v for k, v in config.items() if k != "inner"}
            assert override_config(dropped, overrides).method.loss == "huber"


def test_the_size_of_a_prior_needs_a_prior() -> None:
    prior = ["inner.baseline=linear_prior", "inner.prior_samples=50"]
    assert load_config("point_navigation", prior).inner.prior_samples == 50
    with pytest.raises(UserError, match=r"inner\.prior_samples: is a setting of baseline=linear"):
        load_config("point_navigation", prior[1:])


def test_the_message_names_the_methods_that_have_and_use_a_setting() -> None:
    settings = ["method=hypernetwork", "outer.algorithm=adam", "method.skip_connection=true"]
    with pytest.raises(UserError, match=r"\(methods that use it: rl2\)"):
        load_config("point_navigation", settings)
