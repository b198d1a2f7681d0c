"""RL²: memory over episodes, PPO over trials, and adaptation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.baselines.rl2 import (
    RL2,
    Trials,
    to_reward_scale,
    trial_objective,
    update_return_moments,
)
from metarl.cli import main
from metarl.envs import PointNavigation, TaskEnv, vectorise
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.networks.recurrent import init_recurrent, recurrent_sequence, recurrent_step
from metarl.params import flatten, unflatten
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import sample_episode
from metarl.runs.run import Run

TINY = [
    "family.settings.horizon=12",
    "inner.episodes_per_task=3",
    "outer.meta_batch=4",
    "outer.iterations=2",
    "method.hidden_size=6",
    "evaluation.tasks=3",
    "evaluation.episodes_per_task=2",
]


# not relu, because the first inputs are zeros, where finite differences meet its kink
HEADS = ["method.head_sizes=[5]", "policy.activation=tanh"]
HYPERNETWORK = ["method.name=hypernetwork", "method.bottleneck_size=3", *HEADS]
BELIEF = ["method.name=varibad", *HEADS]
SKIP_CONNECTION = ["method.skip_connection=true", *HEADS]
VARIBAD = [
    "method.embedding_sizes=[4,3,2]",
    "method.head_sizes=[5]",
    "method.value_loss=clipped_huber",
    "method.normalize_rewards=true",
    "policy.activation=tanh",
]


def method(*overrides: str) -> RL2:
    rl2 = load_method(load_config("point_navigation_rl2", [*TINY, *overrides]))
    assert isinstance(rl2, RL2)
    return rl2


def rollouts(rl2: RL2, params):
    problem = rl2.problem
    try:
        return rl2._collect(params, problem.envs, problem.sample_tasks(0), problem.key(0))
    finally:
        problem.close()


def test_trials_sampled_in_parts_equal_those_sampled_together(monkeypatch) -> None:
    monkeypatch.setattr("metarl.rl.problem.MIN_PARTED_ENVS", 6)
    settings = ["outer.meta_batch=3", "inner.episodes_per_task=2", "family.settings.horizon=5"]
    rl2 = load_method(load_config("half_cheetah_direction_rl2", settings))
    problem, params = rl2.problem, rl2.initial_state().params
    assert [part.num_envs for part in problem.env_shards] == [4, 2]
    together, parted = (
        rl2._collect(params, envs, problem.sample_tasks(0), problem.key(0))
        for envs in (problem.envs, problem.env_shards)
    )
    problem.close()
    for first, second in zip(together.trajectories, parted.trajectories, strict=True):
        # products of other sizes are rounded differently
        torch.testing.assert_close(second.observations, first.observations, rtol=0.0, atol=1e-4)
        torch.testing.assert_close(second.actions, first.actions, rtol=0.0, atol=1e-4)
    assert len(parted.trajectories) == rl2.settings.episodes


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, ...]]:
    """The memories before the episodes that RL² samples."""
    recorded: list[tuple[torch.Tensor, ...]] = []

    def record(*arguments, **options):
        recorded.append(arguments[-1])
        return sample_episode(*arguments, **options)

    monkeypatch.setattr("metarl.baselines.rl2.sample_episode", record)
    return recorded


@pytest.mark.parametrize("embeddings", [(), ((1, 4), (1, 2))])
def test_a_sequence_equals_repeated_steps(embeddings) -> None:
    params = init_recurrent(torch.Generator().manual_seed(0), 3, 5, embeddings)
    inputs, memory = torch.randn(7, 4, 3), torch.zeros(4, 5)
    memories = recurrent_sequence(params, memory, inputs)
    for t in range(7):
        memory = recurrent_step(params, memory, inputs[t])
        torch.testing.assert_close(memories[t], memory)


POLICIES = pytest.mark.parametrize(
    "settings",
    [(), VARIBAD, SKIP_CONNECTION, HYPERNETWORK, BELIEF],
    ids=["default", "settings of varibad", "skip connection", "hypernetwork", "varibad"],
)


@POLICIES
@pytest.mark.parametrize("dense", [True, False], ids=["to the horizon", "early ends"])
def test_log_probabilities_in_ppo_equal_those_of_sampling(dense: bool, settings) -> None:
    # goals within reach at once end some episodes early
    ends = [] if dense else ["family.settings.half_width=0.04"]
    rl2 = method("method.episodes=3", *ends, *settings)
    params = rl2.initial_state().params
    trials = Trials(rl2.policy, rollouts(rl2, params))
    assert dense == all(bool(stage.mask.all()) for stage in trials.rollouts.trajectories)
    objective = trial_objective(rl2, params, trials)
    distribution, _ = objective.forward(params)
    log_probs = rl2.policy.log_prob(distribution, objective.actions)
    happened = objective.weights > 0
    torch.testing.assert_close(log_probs[happened], objective.log_probs[happened])
    lengths = sum(stage.lengths.flatten() for stage in trials.rollouts.trajectories)
    assert torch.equal(happened.sum(0), lengths)
    # time steps count alike, those of short trials too
    assert len(objective.weights[happened].unique()) == 1
    assert float(objective.weights.sum()) == pytest.approx(objective.weights.shape[1])
    assert float((objective.weights * objective.advantages).sum()) == pytest.approx(0.0, abs=1e-4)


def test_memory_is_kept_between_episodes_and_reset_between_trials(memories) -> None:
    rl2 = method()
    rollouts(rl2, rl2.initial_state().params)
    first, second = memories
    assert all(not leaf.any() for leaf in first)
    assert second[0].abs().sum() > 0
    assert bool((second[-1] == 1.0).all())  # the first input of the next episode marks the end


def test_advantages_extend_over_the_end_of_an_episode() -> None:
    rl2 = method("method.gae_lambda=1.0", "inner.gamma=1.0")
    params = rl2.initial_state().params
    trials = Trials(rl2.policy, rollouts(rl2, params))
    objective = trial_objective(rl2, params, trials)
    rewards = torch.cat(
        [stage.rewards.flatten(0, 1) for stage in trials.rollouts.trajectories], dim=1
    )
    # with λ and γ of one, a return is the sum of all rewards to the end of the trial
    torch.testing.assert_close(objective.returns[0], rewards.sum(1))


@pytest.mark.parametrize("over", ["all_tasks", "each_task"])
def test_advantages_are_standardised_over_all_tasks_or_for_each(over: str) -> None:
    rl2 = method(f"method.standardize={over}")
    params = rl2.initial_state().params
    trials = Trials(rl2.policy, rollouts(rl2, params))
    trials.rewards[:, :3] *= 100.0  # of the three trials of the first task
    trials.mask[-4:, 4] = False  # one trial is shorter
    trials.rewards[-4:, 4] = 0.0
    advantages = trial_objective(rl2, params, trials).advantages
    columns = [slice(None)] if over == "all_tasks" else [slice(i, i + 3) for i in range(0, 12, 3)]
    for trials_of_task in columns:
        valid = advantages[:, trials_of_task][trials.mask[:, trials_of_task]]
        assert float(valid.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(valid.std(correction=0)) == pytest.approx(1.0, rel=1e-4)
    of_other_tasks = advantages[:, 3:][trials.mask[:, 3:]]
    assert (float(of_other_tasks.std(correction=0)) < 0.1) == (over == "all_tasks")


@POLICIES
def test_the_gradient_equals_finite_differences(settings) -> None:
    rl2 = method(*settings, "method.clip=1.0", "policy.output_scale=1.0")
    params = {name: leaf.double() for name, leaf in rl2.initial_state().params.items()}
    single = trial_objective(
        rl2,
        rl2.initial_state().params,
        Trials(rl2.policy, rollouts(rl2, {name: leaf.float() for name, leaf in params.items()})),
    )
    leaves = {name: leaf for name, leaf in vars(single).items() if isinstance(leaf, torch.Tensor)}
    objective = replace(single, **{name: leaf.double() for name, leaf in leaves.items()})
    params = rl2.outer_params(params)
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
    objective = trial_objective(rl2, params, Trials(rl2.policy, rollouts(rl2, params)))
    parts = objective.minibatches()
    assert len(parts) == 4
    assert sum(part.weights.shape[1] for part in parts) == objective.weights.shape[1]
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(12.0)


def test_the_policy_equals_modules_of_torch() -> None:
    rl2 = method(*VARIBAD)
    policy, params = rl2.policy, rl2.initial_state().params
    embed, gru = [torch.nn.Linear(size, n) for size, n in ((2, 4), (2, 3), (1, 2))], 4 + 3 + 2 + 1
    unit, hidden, value = torch.nn.GRUCell(gru, 6), torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)
    head, last = torch.nn.Linear(5, 2), torch.nn.Linear(5, 1)
    names = {
        **{f"embedding.{i}.": layer for i, layer in enumerate(embed)},
        "0": hidden,
        "1": head,
        "value.0": value,
        "value.1": last,
    }
    with torch.no_grad():
        for name, layer in names.items():
            place = f"{name}{{}}" if name.endswith(".") else f"{name[:-1]}{{}}{name[-1]}"
            layer.weight.copy_(params[place.format("weight")].T)
            layer.bias.copy_(params[place.format("bias")])
        for name, leaf in unit.named_parameters():
            leaf.copy_(params[f"unit.{name}_l0"])
    inputs, state = torch.randn(3, 4, 6), torch.zeros(4, 6)
    states = recurrent_sequence(params, state, inputs)
    for t, row in enumerate(inputs):
        parts = [
            layer(x).relu() for layer, x in zip(embed, row.split([2, 2, 1, 1], 1), strict=False)
        ]
        state = unit(torch.cat([*parts, row[:, 5:]], 1), state)
        torch.testing.assert_close(states[t], state)
    mean = policy.distribution(params, states)["mean"]
    torch.testing.assert_close(mean, head(hidden(states).tanh()))
    torch.testing.assert_close(policy.value(params, states), last(value(states).tanh())[..., 0])


def test_rewards_are_divided_by_the_deviation_of_all_discounted_returns_so_far() -> None:
    # early ends, so that a trial has a gap that must not be discounted
    rl2 = method("family.settings.half_width=0.04", "inner.gamma=0.9", *VARIBAD)
    params, extra, returns = rl2.initial_state().params, {}, []
    for iteration in range(3):
        problem = rl2.problem
        tasks = problem.sample_tasks(iteration)
        sampled = rl2._collect(params, problem.envs, tasks, problem.key(iteration))
        trials = Trials(rl2.policy, sampled)
        extra = update_return_moments(extra, trials, 0.9)
        for i, j in np.ndindex(4, 3):
            total = 0.0
            for stage in trials.rollouts.trajectories:
                for reward in stage.rewards[i, j, : stage.lengths[i, j]].tolist():
                    total = 0.9 * total + reward
                    returns.append(total)
        # every iteration counts as its mean trial does, and all have 12 trials
        assert to_reward_scale(extra) == pytest.approx(1.0 / np.std(returns), rel=1e-5)
    problem.close()
    scaled = trial_objective(rl2, params, trials, 0.5)
    plain = trial_objective(rl2, params, trials)
    torch.testing.assert_close(scaled.inputs, plain.inputs)  # the policy observes the raw rewards
    raw = [objective.returns - objective.values for objective in (scaled, plain)]
    assert not torch.equal(*raw)


def test_the_clipped_value_loss_is_the_larger_of_two_huber_losses() -> None:
    rl2 = method(*VARIBAD, "method.value_weight=2.0", "method.entropy_weight=0", "method.clip=0.1")
    params = rl2.initial_state().params
    trials = Trials(rl2.policy, rollouts(rl2, params))
    objective = trial_objective(rl2, params, trials, 1.0)
    moved = params | {"value.bias1": params["value.bias1"] + 0.7}
    _, values = objective.forward(moved)
    total = 0.0
    for t, m in np.ndindex(*values.shape):
        new, old, target = (float(x[t, m]) for x in (values, objective.values, objective.returns))
        losses = []
        for value in (new, old + min(max(new - old, -0.1), 0.1)):
            error = abs(value - target)
            losses.append(0.5 * error**2 if error < 1.0 else error - 0.5)
        total -= 2.0 * float(objective.weights[t, m]) * max(losses)
    surrogate = float((objective.weights * objective.advantages).sum())
    assert float(objective.value(moved)) == pytest.approx(total + surrogate, rel=1e-4)


@pytest.mark.parametrize(
    "settings", [(), VARIBAD, HYPERNETWORK], ids=["default", "settings of varibad", "hypernetwork"]
)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, settings) -> None:
    config = method(*settings, "outer.iterations=3").problem.config
    states = list(train(load_method(config)))
    run = Run.create(tmp_path / "run", config)
    run.save(states[0][0])
    read = Run.open(run.path).load()
    *_, (resumed, _) = train(load_method(config), read)
    whole = states[-1][0]
    assert torch.equal(flatten(whole.params), flatten(resumed.params))
    assert list(read.extra) == (["return_moments"] if settings == VARIBAD else [])
    for name, leaf in whole.extra.items():
        assert leaf.dtype == resumed.extra[name].dtype == torch.float64
        assert torch.equal(leaf, resumed.extra[name])
        assert not torch.equal(leaf, read.extra[name])


@pytest.mark.slow
def test_all_commands_support_rl2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tmp_path / "rl2", tmp_path / "maml"
    sets = [f"--set={setting}" for setting in TINY]
    assert main(["train", "point_navigation_rl2", "--out", str(run), *sets]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert np.shape(evaluation["scores"]) == (3, 2)
    assert evaluation["episodes"] == [0, 1]
    of_maml = [s for s in sets if "hidden_size" not in s]
    assert main(["train", "point_navigation", "--out", str(other), *of_maml]) == 0
    out = str(tmp_path / "comparison")
    assert main(["compare", str(run), str(other), "--out", out]) == 0
    assert "RL²" in (tmp_path / "comparison" / "comparison.md").read_text()
    assert main(["render", str(run), "--out", str(tmp_path / "video"), "--task", "0.3", "0.3"]) == 0
    assert list((tmp_path / "video").glob("*.mp4"))


def test_an_episode_truncated_at_the_horizon_is_recorded_as_ended(memories) -> None:
    class Endless(PointNavigation):
        def make_vec(self, num_envs):
            return vectorise(lambda: TaskEnv(self), num_envs)  # without an end at the horizon

    config = load_config("point_navigation_rl2", TINY)
    rl2 = RL2(PolicyProblem(config, family_override=Endless(horizon=5)))
    rollouts(rl2, rl2.initial_state().params)
    assert bool((memories[1][-1] == 1.0).all())


def test_a_policy_with_memory_cannot_be_exported(tmp_path: Path, complaint) -> None:
    message = complaint("export", "point_navigation_rl2", str(tmp_path / "policy.zip"))
    assert "a policy with a memory cannot be exported" in message


def test_an_evaluation_of_trials_cannot_count_steps() -> None:
    with pytest.raises(
        UserError, match=r"evaluation\.batch_unit: steps is not supported by method rl2"
    ):
        method("evaluation.batch_unit=steps")


def test_a_policy_with_memory_can_take_mean_actions_in_all_episodes() -> None:
    rl2 = method("evaluation.deterministic=always")
    params = rl2.initial_state().params
    # without noise, a wider distribution has the same actions
    wider = params | {"log_std": params["log_std"] + 1.0}
    curves = [rl2.evaluate(each) for each in (params, wider)]
    assert np.array_equal(curves[0].scores, curves[1].scores)
    with pytest.raises(UserError, match=r"evaluation\.deterministic: always is for policies with"):
        load_config("point_navigation", ["evaluation.deterministic=always"])


def test_a_deterministic_evaluation_takes_mean_actions_in_the_last_episode_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rl2 = method("evaluation.deterministic=true")
    trials, collect = [], RL2._collect
    monkeypatch.setattr(
        RL2, "_collect", lambda *args, **kw: trials.append(collect(*args, **kw)) or trials[-1]
    )
    rl2.evaluate(rl2.initial_state().params)
    *adaptation, last = trials[0].trajectories
    assert torch.equal(last.actions, last.distribution["mean"] * last.mask.unsqueeze(-1))
    for episode in adaptation:
        assert (episode.actions != episode.distribution["mean"])[episode.mask].all()
