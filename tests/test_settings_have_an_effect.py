"""Every setting has an effect on a method, or is refused."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from metarl.config.sections import SHARED, Section, Source
from metarl.errors import UserError
from metarl.experiment import load_config, override_config, validate_config
from metarl.method import load_method
from metarl.rl.config import Config
from metarl.rl.methods import METHODS as RL
from metarl.supervised.config import SupervisedConfig
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
CANDIDATES: list[Any] = [
    *(True, 3, 5, 0.25, 7.5, 0.003, [0.7], [0.3, 0.2], [5], "adam", "head", "lslr", "tanh"),
    *("relu", "log_likelihood", "steps", "linear", "huber", "bf16", "torch", "sgd"),
]
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
)


def small(domain: str, method: str) -> dict[str, Any]:
    values = POLICY if domain == "rl" else SINE
    outer = {"algorithm": "adam"} if method in ("promp", "rl2") else {}
    return {**values, "method": method, "outer": {**values["outer"], **outer}}


def plain(values: dict[str, Any], method: str) -> Any:
    """The config, without the settings that this method does not use."""
    return override_config({k: v for k, v in values.items() if k != "method"}, [f"method={method}"])


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
    outer = ["outer.algorithm=adam"] if method in ("promp", "rl2") else []
    return [f"method={method}", *outer]


def outcome(config: Any) -> list[torch.Tensor]:
    """All that a short training and its evaluation compute."""
    method = load_method(config)
    state = method.initial_state()
    results: list[Any] = [method.num_iterations, method.max_samples, method.uses_lr_schedule]
    while state.iteration < min(2, method.num_iterations):
        state, metrics = method.step(state)
        results += [value for name, value in metrics.items() if not name.startswith("time/")]
    curve = method.evaluate(state.params)
    method.close()
    leaves = [*state.params.values(), *state.opt_state.values()]
    arrays = [np.asarray(curve.scores), np.asarray(curve.step_sizes), np.asarray(results, float)]
    return [*leaves, *map(torch.from_numpy, arrays)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("domain", "method"), [pair for pair in METHODS if pair[1] not in IMAGES])
def test_every_setting_changes_the_outcome_or_is_refused(domain: str, method: str) -> None:
    config = plain(small(domain, method), method)
    values, before, ignored, wrong = config.model_dump(mode="json"), outcome(config), [], []
    schema = Config if domain == "rl" else SupervisedConfig
    for section, setting in settings(config):
        name = f"{section}.{setting}".rstrip(".")
        if name in ("early_stopping", "outer.algorithm") or (name, method) in RARE:
            continue
        old = values[section][setting] if setting else values[section]
        effect = False
        for candidate in (c for c in CANDIDATES if c != old and str(c) != str(old)):
            part = {**values[section], setting: candidate} if setting else candidate
            source = Source("the config", allow_unused=True)
            try:
                changed = schema.model_validate({**values, section: part}, context=source)
                effect = not same(before, outcome(changed))
            except (UserError, FloatingPointError, NotImplementedError):
                continue
            if effect:
                break
        if effect == refused(config, name):
            (wrong if effect else ignored).append(name)
    assert not ignored, "without effect, and accepted"
    assert not wrong, "refused, with an effect"


# effects that two iterations on this family do not show
RARE = {
    *((name, m) for m in RL for name in ("policy.min_std", "inner.bootstrap", "policy.network")),
    *((("evaluation.batch_unit"), m) for m in RL),
    *(("evaluation.transductive", m) for m in SUPERVISED),
    *(("evaluation.ways", m) for m in SUPERVISED),
    *(("outer.max_backtracks", m) for m in RL),
    *(("outer.backtrack_ratio", m) for m in RL),
}


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
