"""Stages of training, in which some settings differ from those of the config."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import metarl
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import Method, TrainingState, load_method, train
from metarl.rl.config import Config
from metarl.runs.run import Run

FINAL = {
    "family": {"name": "point-navigation", "settings": {"horizon": 5, "half_width": 5.0}},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 3, "gae_lambda": 1.0},
    "outer": {"iterations": 4, "meta_batch": 4, "max_kl": 0.02},
    "evaluation": {"tasks": 2, "episodes_per_task": 2, "steps": 1},
}
FIRST = {"outer.meta_batch": 2, "inner.gae_lambda": 0.5, "inner.episodes_per_task": 2}
STAGES = [{"until": 1, "set": FIRST}, {"until": 3, "set": {"outer.meta_batch": 3}}]


def config_of(**settings) -> Config:
    return Config(**{**FINAL, **settings})  # type: ignore[arg-type]


def assert_equal_states(state: TrainingState, expected: TrainingState) -> None:
    assert (state.iteration, state.samples) == (expected.iteration, expected.samples)
    assert all(torch.equal(leaf, expected.params[name]) for name, leaf in state.params.items())


def test_stages_equal_trainings_with_their_settings_one_after_another() -> None:
    inner = {"episodes_per_task": 2, "gae_lambda": 0.5}
    parts = [
        config_of(inner=inner, outer=FINAL["outer"] | {"meta_batch": 2}),
        config_of(outer=FINAL["outer"] | {"meta_batch": 3}),
        config_of(),
    ]
    state = load_method(parts[0]).initial_state()
    for number in (0, 1, 1, 2):
        state, _ = load_method(parts[number]).step(state)
    *_, (staged, _) = train(load_method(config_of(stages=STAGES)))
    assert_equal_states(staged, state)


def test_the_entropy_weight_of_a_recurrent_policy_follows_the_stages() -> None:
    outer = {"algorithm": "adam", "iterations": 2, "meta_batch": 2, "learning_rate": 0.01}

    def recurrent(weight: float, **settings: Any) -> Method:
        method = {"name": "rl2", "hidden_size": 4, "entropy_weight": weight}
        inner = {"episodes_per_task": 2}
        return load_method(config_of(method=method, outer=outer, inner=inner, **settings))

    state, _ = recurrent(0.5).step(recurrent(0.5).initial_state())
    state, _ = recurrent(0.0).step(state)
    stages = [{"until": 1, "set": {"method.entropy_weight": 0.5}}]
    *_, (staged, _) = train(recurrent(0.0, stages=stages))
    assert_equal_states(staged, state)
    *_, (constant, _) = train(recurrent(0.0))
    assert not torch.equal(constant.params["log_std"], state.params["log_std"])


def test_a_resumed_training_continues_in_its_stage() -> None:
    config = config_of(stages=STAGES)
    states = [state for state, _ in train(load_method(config))]
    for interrupted in states[:-1]:
        *_, (resumed, _) = train(load_method(config), interrupted)
        assert_equal_states(resumed, states[-1])


def test_the_budget_is_that_of_all_stages() -> None:
    method = load_method(config_of(stages=STAGES))
    *_, (state, _) = train(method)
    assert state.samples == method.max_samples == 2 * 5 * (2 * 2 + 2 * 3 * 3 + 4 * 3)


def test_the_adaptation_of_an_evaluation_has_the_final_settings() -> None:
    config = config_of(stages=STAGES)
    assert config.at(0).inner.gae_lambda == 0.5
    assert config.at(3) is config
    assert load_method(config).problem.config.inner.gae_lambda == 1.0


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"until": 4, "set": FIRST}], "must increase, and stay below outer.iterations=4: 4"),
        ([STAGES[1], STAGES[0]], "must increase, and stay below outer.iterations=4: 3, 1"),
        ([{"until": 1, "set": {"policy.hidden_sizes": [8]}}], "cannot set policy.hidden_sizes"),
        ([{"until": 1, "set": {"outer.max_kl": -1.0}}], "outer.max_kl: Input should be greater"),
        ([{"until": 1, "set": {"outer.learning_rate": 0.1}}], "trpo has no outer.learning_rate"),
        ([{"until": 1, "set": {"method.entropy_weight": 1.0}}], "maml has no method.entropy"),
        ([{"until": 1, "set": {}}], "stages.0.set: must have at least 1 item"),
    ],
)
def test_invalid_stages_are_refused(stages: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(stages=stages)


def test_a_setting_without_effect_on_the_method_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages: inner\.gae_lambda is not supported by .* rl2"):
        config_of(method="rl2", outer={"algorithm": "adam", "iterations": 2}, stages=STAGES[:1])


def test_a_baseline_drops_the_stages_of_a_config(tmp_path: Path) -> None:
    file = tmp_path / "staged.yaml"
    file.write_text(yaml.safe_dump(FINAL | {"stages": STAGES}))
    staged = load_method(load_config(str(file)))
    assert staged.problem.config.stages
    for kind in ("pretrained", "oracle"):
        baseline = load_method(load_config(str(file), [f"method={kind}"]))
        assert baseline.problem.config.stages == ()
        # 2 * 2 + 2 * 3 * 3 + 4 * 3 episodes are 3 iterations of 4 * 3, rounded
        assert baseline.problem.config.outer.iterations == 3
        assert baseline.num_iterations == 2 * 3
        few = load_config(str(file), [f"method={kind}", "outer.iterations=1"])
        assert few.outer.iterations == 1
    assert load_config(str(file), ["method=random"]).stages == ()  # type: ignore[union-attr]


def test_a_stage_of_a_meta_learner_does_not_prevent_a_baseline(tmp_path: Path) -> None:
    file = tmp_path / "staged.yaml"
    stages = [{"until": 1, "set": {"outer.max_kl": 0.1, "inner.gae_lambda": 0.9}}]
    file.write_text(yaml.safe_dump(FINAL | {"stages": stages}))
    for kind in ("pretrained", "oracle", "random"):
        assert load_config(str(file), [f"method={kind}"]).stages == ()  # type: ignore[union-attr]
    assert load_config("gridworld_varibad", ["method=random"]).stages == ()  # type: ignore[union-attr]


def test_a_run_records_its_stages(tmp_path: Path) -> None:
    config = config_of(stages=STAGES)
    metarl.train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.config == config
    assert [line["environment_steps"] for line in run.metrics()] == [40.0, 90.0, 90.0, 120.0]
