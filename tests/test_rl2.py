"""RL²: memory over episodes, PPO over trials, and that it is seen to adapt."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.baselines.rl2 import RL2, trial_objective
from metarl.cli import main
from metarl.envs import PointNavigation, TaskEnv, vectorise
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.networks.recurrent import init_recurrent, recurrent_sequence, recurrent_step
from metarl.params import flatten, unflatten
from metarl.rl.problem import PolicyProblem

TINY = [
    "family.settings.horizon=12",
    "inner.episodes_per_task=3",
    "outer.meta_batch=4",
    "outer.iterations=2",
    "method.hidden_size=6",
    "evaluation.tasks=3",
    "evaluation.episodes_per_task=2",
]


def method(*overrides: str) -> RL2:
    made = load_method(load_config("point_navigation_rl2", [*TINY, *overrides]))
    assert isinstance(made, RL2)
    return made


def rollouts(rl2: RL2, params):
    problem = rl2.problem
    try:
        return rl2._collect(params, problem.envs, problem.sample_tasks(0), problem.key(0))
    finally:
        problem.close()


def test_a_sequence_is_step_after_step() -> None:
    params = init_recurrent(torch.Generator().manual_seed(0), 3, 5)
    inputs, memory = torch.randn(7, 4, 3), torch.zeros(4, 5)
    whole = recurrent_sequence(params, memory, inputs)
    for t in range(7):
        memory = recurrent_step(params, memory, inputs[t])
        torch.testing.assert_close(whole[t], memory)


@pytest.mark.parametrize("dense", [True, False], ids=["to the horizon", "early ends"])
def test_what_ppo_sees_is_what_the_policy_saw(dense: bool) -> None:
    # goals within reach at once end some episodes early
    rl2 = method("method.episodes=3", *([] if dense else ["family.settings.half_width=0.04"]))
    params = rl2.initial_state().params
    seen = rollouts(rl2, params)
    assert dense == all(bool(stage.mask.all()) for stage in seen.trajectories)
    objective = trial_objective(rl2, params, seen)
    distribution, _ = objective.forward(params)
    log_probs = rl2.policy.log_prob(distribution, objective.actions)
    happened = objective.weights > 0
    torch.testing.assert_close(log_probs[happened], objective.log_probs[happened])
    lengths = sum(stage.lengths.flatten() for stage in seen.trajectories)
    assert torch.equal(happened.sum(0), lengths)


def test_memory_passes_from_episode_to_episode_and_not_from_trial_to_trial() -> None:
    rl2 = method()
    first, second = rollouts(rl2, rl2.initial_state().params).memories
    assert all(not leaf.any() for leaf in first)
    assert second[0].abs().sum() > 0
    assert bool((second[-1] == 1.0).all())  # the next episode is told that one has ended


def test_advantages_run_on_over_the_end_of_an_episode() -> None:
    rl2 = method("method.gae_lambda=1.0", "inner.gamma=1.0")
    params = rl2.initial_state().params
    seen = rollouts(rl2, params)
    objective = trial_objective(rl2, params, seen)
    rewards = torch.cat([stage.rewards.flatten(0, 1) for stage in seen.trajectories], dim=1)
    # with λ and γ of one, a return is the sum of all rewards to the end of the trial
    torch.testing.assert_close(objective.returns[0], rewards.sum(1))


def test_the_gradient_equals_finite_differences() -> None:
    rl2 = method("method.clip=1.0", "policy.output_scale=1.0")
    params = {name: leaf.double() for name, leaf in rl2.initial_state().params.items()}
    single = trial_objective(
        rl2,
        rl2.initial_state().params,
        rollouts(rl2, {name: leaf.float() for name, leaf in params.items()}),
    )
    names = ("inputs", "actions", "log_probs", "advantages", "returns", "weights")
    objective = replace(single, **{name: getattr(single, name).double() for name in names})
    gradient, value = objective.gradient(params)
    vector = flatten(params)
    for i in np.random.default_rng(0).integers(len(vector), size=20):
        nudge = torch.zeros_like(vector)
        nudge[i] = 1e-5
        up, down = (
            objective.gradient(unflatten(vector + sign * nudge, params))[1] for sign in (1, -1)
        )
        assert float(gradient[i]) == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-8)
    assert np.isfinite(value)


def test_minibatches_are_a_partition_of_the_trials() -> None:
    rl2 = method("method.minibatches=4")
    params = rl2.initial_state().params
    objective = trial_objective(rl2, params, rollouts(rl2, params))
    parts = objective.minibatches()
    assert len(parts) == 4
    assert sum(part.weights.shape[1] for part in parts) == objective.weights.shape[1]
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(12.0)


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one() -> None:
    whole = list(train(method("outer.iterations=3"), method().initial_state()))
    again = list(train(method("outer.iterations=3"), whole[0][0]))
    assert torch.equal(flatten(whole[-1][0].params), flatten(again[-1][0].params))


@pytest.mark.slow
def test_every_command_serves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tmp_path / "rl2", tmp_path / "maml"
    sets = [f"--set={setting}" for setting in TINY]
    assert main(["train", "point_navigation_rl2", "--out", str(run), *sets]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert np.shape(found["scores"]) == (3, 2)
    assert found["episodes"] == [0, 1]
    of_maml = [s for s in sets if "hidden_size" not in s]
    assert main(["train", "point_navigation", "--out", str(other), *of_maml]) == 0
    out = str(tmp_path / "comparison")
    assert main(["compare", str(run), str(other), "--out", out]) == 0
    assert "RL²" in (tmp_path / "comparison" / "comparison.md").read_text()
    assert main(["render", str(run), "--out", str(tmp_path / "film"), "--task", "0.3", "0.3"]) == 0
    assert list((tmp_path / "film").glob("*.mp4"))


def test_an_episode_that_the_horizon_ends_is_told_as_ended() -> None:
    class Endless(PointNavigation):
        def make_vec(self, num_envs):
            return vectorise(lambda: TaskEnv(self), num_envs)  # nobody tells of the horizon

    config = load_config("point_navigation_rl2", TINY)
    rl2 = RL2(PolicyProblem(config, family_override=Endless(horizon=5)))
    _, second = rollouts(rl2, rl2.initial_state().params).memories
    assert bool((second[-1] == 1.0).all())


def test_a_policy_with_a_memory_is_not_exported_to_one_without(tmp_path: Path, complaint) -> None:
    said = complaint("export", "point_navigation_rl2", str(tmp_path / "policy.zip"))
    assert "has a policy with a memory" in said


def test_an_evaluation_of_trials_cannot_be_told_to_count_steps() -> None:
    with pytest.raises(
        UserError, match=r"evaluation\.batch_unit: steps is not supported by method rl2"
    ):
        method("evaluation.batch_unit=steps")
