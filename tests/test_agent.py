"""Agents: all methods of reinforcement learning act, observe and adapt by one interface."""

import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from safetensors.torch import save_file
from stable_baselines3 import PPO

import metarl
from metarl.cli import main
from metarl.envs import PointNavigation, vectorise
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import EPISODES, TrainingState, load_method
from metarl.report.adapted_policy import AdaptedPolicy
from metarl.rl.adaptation import collect_adaptation
from metarl.rl.agent import play_episodes
from metarl.rl.external_data import Trajectory, collect_episodes
from metarl.rl.methods import METHODS as RL
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.policies import policy_for
from metarl.rl.sampler import sample_episode
from metarl.rng import RngKey

GOAL = [0.3, -0.3]
TINY = {
    "family": {"name": "point-navigation", "settings": {"horizon": 6}},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 3},
    "outer": {"algorithm": "trpo", "iterations": 1, "meta_batch": 2},
    "evaluation": {"tasks": 3, "episodes_per_task": 2},
}
METHODS = ["maml", "cavia", "promp", "e_maml", "rl2", "hypernetwork", "varibad"]
METHODS += ["pretrained", "random", "oracle"]


def trained(name: str, folder: Path) -> metarl.AdaptivePolicy:
    outer = {"iterations": 1, "meta_batch": 2}
    outer["algorithm"] = "trpo" if "trpo" in RL.load(name).outer_steps else "adam"
    return metarl.load(metarl.train({**TINY, "method": name, "outer": outer}, folder / name))


def play_one_episode(policy, env: gym.Env, goal=GOAL) -> float:
    observation, _ = env.reset(seed=0, options={"task": goal})
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
        policy.observe(reward, terminated, truncated, observation)
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_interface(name: str, tmp_path: Path) -> None:
    policy, family = trained(name, tmp_path), PointNavigation(horizon=6)
    policy.reset(GOAL)
    play_one_episode(policy, family.make())
    adapted = policy.adapt()
    play_one_episode(adapted, family.make())
    again = policy.adapt(family.make(), task=GOAL, episodes=2)
    assert len(again.play(family.make(), GOAL, episodes=3)) == 3
    assert len(policy.play(family.make_vec(2), GOAL, episodes=3)) == 3
    assert len(again.render(task=GOAL).frames) == 7
    assert policy.evaluate().scores.shape[0] == 3
    taught = policy.adapt(policy.play(family.make(), GOAL, episodes=2))
    assert taught.act([0.0, 0.0]).shape == (2,)
    vector = family.make_vec(3)
    policy.reset(GOAL)
    observations, _ = vector.reset(seed=0, options={"task": GOAL})
    actions = policy.act(observations)
    assert actions.shape == (3, 2)
    observations, rewards, terminated, truncated, _ = vector.step(actions)
    policy.observe(rewards, terminated, truncated, observations)


@pytest.mark.slow
def test_a_recurrent_agent_acts_like_the_sampler(tmp_path: Path) -> None:
    policy, family = trained("rl2", tmp_path), PointNavigation(horizon=6)
    agent, rl2 = policy.agent, policy.method
    agent.reset()
    agent._rng = RngKey(0).rng("trajectories", 0)
    envs = family.make_vec(1)
    memory = None
    for episode in range(3):
        expected, memory = sample_episode(
            rl2.policy, policy.params, envs, np.array([GOAL]), 6, RngKey(0), memory=memory
        )
        agent._rng = RngKey(0).rng("trajectories", 0)
        env = family.make()
        observation, _ = env.reset(options={"task": GOAL})
        for t in range(6):
            action = agent.act(observation)
            np.testing.assert_allclose(action, expected.actions[0, 0, t], atol=1e-6)
            observation, reward, terminated, truncated, _ = env.step(action)
            agent.observe(reward, terminated, truncated, observation)
        assert truncated, episode
    for leaf, expected in zip(agent._memory, memory, strict=True):
        torch.testing.assert_close(leaf, expected[0])


@pytest.mark.slow
def test_recorded_episodes_fill_the_memory_like_played_ones(tmp_path: Path) -> None:
    policy, family = trained("rl2", tmp_path), PointNavigation(horizon=6)
    agent, env = policy.agent, family.make()
    agent.reset()
    recorded = []
    for _ in range(2):
        observation, _ = env.reset(options={"task": GOAL})
        steps, over = [], False
        while not over:
            action = agent.act(observation)
            steps.append((observation, action))
            observation, reward, terminated, truncated, _ = env.step(action)
            steps[-1] += (reward,)
            agent.observe(reward, terminated, truncated)
            over = terminated or truncated
        recorded.append(tuple(np.array(column) for column in zip(*steps, strict=True)))
    policy.reset()  # the same object: it forgets
    assert agent._memory == ()
    replayed = policy.adapt(recorded)
    expected = policy.adapt(recorded[:1]).adapt(recorded[1:])
    for leaf, expected_leaf in zip(replayed.agent._memory, expected.agent._memory, strict=True):
        torch.testing.assert_close(leaf, expected_leaf)


def test_observed_and_recorded_episodes_give_the_same_adaptation() -> None:
    policy, env = metarl.load("point_navigation"), PointNavigation(horizon=10).make()
    policy.reset()
    recorded = []
    for _ in range(3):
        observation, _ = env.reset(options={"task": GOAL})
        steps, over = [], False
        while not over:
            action = policy.act(observation)
            next_observation, reward, terminated, truncated, _ = env.step(action)
            policy.observe(reward, terminated, truncated, next_observation)
            steps.append((observation, action, reward))
            observation, over = next_observation, terminated or truncated
        recorded.append(tuple(np.array(column) for column in zip(*steps, strict=True)))
    adapted, expected = policy.adapt(), policy.adapt(recorded)
    assert adapted.steps == 1
    assert policy.steps == 0
    for name, leaf in expected.params.items():
        torch.testing.assert_close(adapted.params[name], leaf)
    assert adapted.returns == pytest.approx(expected.returns)
    with pytest.raises(UserError, match="no complete episode was observed"):
        adapted.adapt()


@pytest.mark.slow
def test_streaming_adapts_to_a_task_that_switches() -> None:
    policy, env = metarl.load("point_navigation"), PointNavigation().make()
    for goal in ([0.4, 0.4], [-0.4, 0.3]):
        policy.reset()
        before = [play_one_episode(policy, env, goal) for _ in range(20)]
        policy = policy.adapt()
        after = [play_one_episode(policy, env, goal) for _ in range(5)]
        assert np.mean(after) > np.mean(before) + 15.0


def test_a_vector_environment_with_autoreset_is_recorded_like_single_ones() -> None:
    policy = metarl.load("point_navigation")
    envs = gym.vector.SyncVectorEnv([PointNavigation(horizon=4).make for _ in range(2)])
    policy.reset()
    observations, _ = envs.reset(seed=0)
    for _ in range(10):  # two episodes of four steps, each followed by a step that resets
        observations, rewards, terminated, truncated, _ = envs.step(policy.act(observations))
        policy.observe(rewards, terminated, truncated, observations)
    episodes = policy.agent._recorder.episodes
    assert [len(episode.rewards) for episode in episodes] == [4] * 4
    assert all(np.array_equal(episode.observations[0], [0.0, 0.0]) for episode in episodes)


@pytest.mark.filterwarnings("ignore:adapting to")
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_adaptation_in_vector_environments_of_gymnasium_has_no_dependence_on_the_autoreset(
    mode: AutoresetMode,
) -> None:
    policy = metarl.load("point_navigation")
    # episodes of 3 steps, within a horizon in which other modes start further ones
    makers = [lambda: TimeLimit(PointNavigation().make(), 3)] * 2
    adapted = [
        policy.adapt(envs, task=GOAL, episodes=4, horizon=8)
        for envs in (vectorise(makers[0], 2), SyncVectorEnv(makers, autoreset_mode=mode))
    ]
    for name, leaf in adapted[0].params.items():
        assert torch.equal(leaf, adapted[1].params[name]), name


def test_a_vector_environment_with_one_generator_for_all_is_seeded_by_one_number() -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=3)
    policy = policy_for(envs.single_observation_space, envs.single_action_space, (4,))
    params = policy.init(torch.Generator().manual_seed(0))
    first, again = (
        collect_episodes(policy, params, envs, 4, 5, RngKey(0))[0].observations for _ in range(2)
    )
    assert first.shape == (1, 4, 5, 4)
    assert torch.equal(first, again)


def test_adapted_parameters_are_saved_and_loaded(tmp_path: Path) -> None:
    policy, env = metarl.load("point_navigation"), PointNavigation().make()
    adapted = policy.adapt(env, GOAL, episodes=4, horizon=20)
    file = adapted.save(tmp_path / "goal.safetensors")
    loaded = metarl.load("point_navigation").load(file)
    assert (loaded.steps, loaded.returns) == (1, adapted.returns)
    for name, leaf in adapted.params.items():
        assert torch.equal(loaded.params[name], leaf)
    with pytest.raises(UserError, match="adapted from other weights"):
        metarl.load("half_cheetah_direction").load(file)
    with pytest.raises(UserError, match="is not a saved policy"):
        policy.load(__file__)


def test_an_exported_adapted_policy_gives_the_same_actions(tmp_path: Path) -> None:
    adapted = metarl.load("point_navigation").adapt(
        PointNavigation().make(), GOAL, episodes=4, horizon=20
    )
    model = PPO.load(adapted.export(tmp_path / "model.zip"))
    observation = np.array([0.1, 0.2], dtype=np.float32)
    expected, _ = model.predict(observation, deterministic=True)
    action = np.clip(adapted.act(observation, deterministic=True), -1.0, 1.0)
    np.testing.assert_allclose(action, expected, atol=1e-5)
    with pytest.raises(UserError, match="with a memory cannot be exported"):
        metarl.load("point_navigation_rl2").export(tmp_path / "recurrent.zip")


MISTAKES = {
    "an unknown mode": (
        lambda p: p.reset(autoreset_mode="Same"),
        "autoreset_mode must be NextStep, SameStep, Disabled, not 'Same'",
    ),
    "no action": (lambda p: p.observe(0.0, False, False), r"call act\(\) first"),
    "a reward that is not finite": (
        lambda p: (p.act([0.0, 0.0]), p.observe(np.nan, False, False)),
        "reward is not finite",
    ),
    "rewards of others": (
        lambda p: (p.act(np.zeros((2, 2))), p.observe(np.zeros(3), False, False)),
        r"must have shape \(2,\)",
    ),
    "a forgotten outcome": (lambda p: (p.act([0.0, 0.0]), p.act([0.0, 0.0])), "after each"),
    "other environments": (
        lambda p: (
            p.act(np.zeros((2, 2))),
            p.observe([0.0, 0.0], [False] * 2, [False] * 2),
            p.act(np.zeros((3, 2))),
        ),
        r"memory of 2 environments, not 3: call reset\(\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_of_streaming_are_reported(mistake: str) -> None:
    call, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        call(metarl.load("point_navigation_rl2"))


@pytest.mark.slow
def test_an_oracle_acts_on_the_task_it_was_reset_to(tmp_path: Path) -> None:
    oracle = trained("oracle", tmp_path)
    env = PointNavigation(horizon=10).make()
    calls = [lambda: oracle.act([0.0, 0.0]), lambda: oracle.play(env), lambda: oracle.adapt(env)]
    for call in calls:
        with pytest.raises(UserError, match=r"call reset\(task\) first"):
            call()
    oracle.reset([0.5, 0.5])
    towards = oracle.act([0.0, 0.0], deterministic=True)
    oracle.reset([-0.5, -0.5])
    assert not np.allclose(towards, oracle.act([0.0, 0.0], deterministic=True))


@pytest.mark.parametrize("name", ["half_cheetah_direction", "point_navigation_rl2"])
def test_a_decision_takes_less_than_a_millisecond(name: str) -> None:
    policy = metarl.load(name)
    size = policy.method.policy.observation_size
    seconds = []
    for _ in range(100):
        started = time.perf_counter()
        policy.act(np.zeros(size))
        policy.observe(0.0, False, False)
        seconds.append(time.perf_counter() - started)
    assert np.median(seconds) < 1e-3


class Wanderer:
    """A custom agent that keeps the best of the actions that it tried."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, task: Any = None) -> None:
        self.best, self.best_reward = np.zeros(2), -np.inf

    def act(self, observation: Any, deterministic: bool = False) -> Any:
        self.action = self.best if deterministic else self.best + self.rng.normal(size=2)
        return self.action

    def observe(
        self, reward: Any, terminated: Any, truncated: Any, observation: Any = None
    ) -> None:
        if reward > self.best_reward:
            self.best, self.best_reward = self.action, reward

    def adapt(self, episodes: Any = None) -> "Wanderer":
        return self


class Wandering(PolicyLearner):
    """A custom method with an agent that is not a policy of the package."""

    label = "wandering"
    adaptation_unit: ClassVar = EPISODES
    num_iterations: ClassVar[int] = 0
    num_stages = 2

    def initial_state(self) -> TrainingState:
        return TrainingState(0, {"nothing": torch.zeros(1)})

    def step(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        raise NotImplementedError  # there is nothing to train

    def agent(self, params: Any, seed: int = 0, step_sizes: Any = None) -> Any:
        return Wanderer(seed)

    def evaluate(self, params: Any, step_sizes: Any = None) -> Any:
        tasks, _ = self.problem.test_tasks()
        return metarl.AdaptationCurve(tasks, np.zeros((len(tasks), 2)), (), (0, 1))


@pytest.mark.slow
def test_a_custom_method_acts_through_the_same_interface(tmp_path: Path) -> None:
    policy = metarl.load(metarl.train({**TINY, "method": Wandering}, tmp_path / "run"))
    env = PointNavigation(horizon=6).make()
    adapted = policy.adapt(env, task=GOAL, episodes=2)
    assert len(adapted.play(env, GOAL, episodes=2)) == 2
    assert len(policy.render(task=GOAL).frames) == 7
    assert policy.evaluate().scores.shape == (3, 2)
    with pytest.raises(UserError, match="has no save"):
        policy.save(tmp_path / "file")


def test_a_warning_gives_the_numbers_if_there_are_too_few_episodes_for_the_baseline() -> None:
    env, policy = gym.make("metarl/HalfCheetahDirection-v0"), metarl.load("half_cheetah_direction")
    with pytest.warns(UserWarning, match="200 time steps with a baseline of 44 features"):
        policy.adapt(env, task=[-1.0], episodes=1)


FEW = ["outer.meta_batch=3", "outer.iterations=1", "inner.episodes_per_task=2"]
FEW += ["evaluation.tasks=2", "evaluation.episodes_per_task=1", "family.settings.horizon=10"]


@pytest.mark.parametrize("baseline", ["linear", "time", "linear_prior"])
def test_training_and_evaluation_warn_if_the_baseline_has_more_features_than_it_can_fit(
    baseline: str,
) -> None:
    settings = [*FEW, f"inner.baseline={baseline}"]
    method = load_method(load_config("half_cheetah_direction", settings))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state, _ = method.step(method.initial_state())
        method.evaluate(state.params)
    messages = [str(warning.message) for warning in caught]
    steps = [] if baseline == "linear_prior" else [20, 10]
    features = {"linear": 44, "time": 4}.get(baseline)
    assert [
        f"adapting to {number} time steps with a baseline of {features} features"
        for number in steps
    ] == [message.partition(", which")[0] for message in messages]
    method.close()


def test_an_agent_adapts_with_the_prior_that_its_evaluation_has() -> None:
    settings = [*FEW, "evaluation.step_sizes=[0.5,0.2]", "inner.baseline=linear_prior"]
    method = load_method(load_config("point_navigation", settings))
    problem, theta = method.problem, method.initial_state().params
    tasks, key = problem.test_tasks()
    stages = collect_adaptation(problem, theta, tasks[:1], key, (0.5, 0.2)).params
    agent = method.agent(theta, seed=problem.config.evaluation.seed)
    for step in (1, 2):
        agent = agent.adapt_in(problem.raw_family.make(), 1, 10, tasks[0])
        for name, leaf in stages[step].items():
            torch.testing.assert_close(agent.params[name], leaf[0], rtol=1e-4, atol=1e-6)
    without = load_method(load_config("point_navigation", [*settings[:-1]]))
    other = collect_adaptation(without.problem, theta, tasks[:1], key, (0.5,)).params[1]
    assert not torch.allclose(other["weight0"], stages[1]["weight0"])


@pytest.mark.parametrize(
    ("experience", "message"),
    [
        ("HalfCheetah-v5", "not to 'HalfCheetah-v5'"),
        (PointNavigation(), r"not to PointNavigation; an environment .* is family.make\(\)"),
        ((np.zeros((5, 2)), np.zeros((5, 2)), np.zeros(5)), "put the single one in a list"),
        (Trajectory([[0, 0]], [[0, 0]], [0]), "put the single one in a list"),
    ],
)
def test_what_a_policy_cannot_adapt_to_is_named(experience: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metarl.load("point_navigation").adapt(experience)


def test_clipped_actions_of_recorded_episodes_are_warned_of() -> None:
    policy = metarl.load("point_navigation")
    rng = np.random.default_rng(0)

    def episodes(bound: float) -> list[Trajectory]:
        return [
            Trajectory(rng.normal(size=(100, 2)), actions.clip(-bound, bound), rng.normal(size=100))
            for actions in rng.normal(size=(4, 100, 2))
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.adapt(episodes(np.inf))
    with pytest.warns(
        UserWarning, match=r"3\d% of the numbers in actions .* to \[-1, 1\]"
    ) as record:
        policy.adapt(episodes(1.0))
    assert record[0].filename == __file__


def test_a_recurrent_agent_remembers_the_episodes_in_which_it_adapts() -> None:
    method = load_method(load_config("point_navigation_rl2", [*FEW, "method.hidden_size=4"]))
    agent, env = method.agent(method.initial_state().params), method.problem.raw_family.make()
    adapted = agent.adapt_in(env, 2, 10, GOAL)
    assert agent._memory == ()
    start = method.policy.initial_memory((1,))
    assert not torch.equal(adapted._memory[0], start[0])


def test_adaptation_within_a_vector_environment_does_not_record_its_resets() -> None:
    policy = metarl.load("point_navigation")
    envs = SyncVectorEnv([PointNavigation(horizon=4).make for _ in range(2)])
    policy.reset()
    observations, _ = envs.reset(seed=0)

    def play(policy: metarl.AdaptivePolicy, steps: int) -> None:
        nonlocal observations
        for _ in range(steps):
            observations, *outcome, _ = envs.step(policy.act(observations))
            policy.observe(*outcome, observations)

    play(policy, 4)
    with pytest.warns(UserWarning, match="nearly interpolates"):
        policy = policy.adapt()
    play(policy, 5)  # the first step only resets
    episodes = policy.agent._recorder.episodes
    assert [len(episode.rewards) for episode in episodes] == [4, 4]
    assert all((episode.observations[0] == 0.0).all() for episode in episodes)  # at the start


def test_a_recurrent_agent_remembers_all_episodes_in_a_vector_environment() -> None:
    policy, family = metarl.load("point_navigation_rl2"), PointNavigation()
    played = []
    for episodes in (1, 2):  # the memory of sub-environment 0 is kept, which plays all of them
        agent = policy.adapt(family.make_vec(3), task=GOAL, episodes=episodes).agent
        trajectories, memory = policy.agent.play(family.make_vec(3), 3 * episodes, 100, GOAL)
        assert trajectories.rewards.shape[1] == 3 * episodes
        assert torch.equal(agent._memory[0], memory[0][:1])
        played.append(agent._memory[0])
    assert not torch.equal(*played)


def test_a_task_is_passed_to_the_environment_of_its_call_only() -> None:
    tasks: list[Any] = []

    class Env(gym.Wrapper[Any, Any, Any, Any]):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            tasks.append(options)
            return self.env.reset(seed=seed, options=options)

    policy = metarl.load("point_navigation")
    env = Env(PointNavigation(horizon=100).make())
    adapted = policy.adapt(env, task=GOAL, episodes=2)
    assert all(options is not None for options in tasks)
    tasks.clear()
    adapted.play(env)
    policy.reset(GOAL)  # which a policy that does not observe its task ignores
    policy.play(env)
    assert tasks == [None, None]


def test_a_task_of_another_size_is_warned_of() -> None:
    class Own(gym.Wrapper):
        def reset(self, *, seed=None, options=None):
            return self.env.reset(seed=seed)

    policy, env = metarl.load("point_navigation"), Own(PointNavigation().make())
    with pytest.warns(UserWarning, match="has 1 numbers, and those of the training have 2"):
        policy.adapt(env, task=[0.3], episodes=4, horizon=20)


def test_a_policy_acts_by_its_config_whatever_was_evaluated_since(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = {
        "family": {"name": "point-navigation", "settings": {"horizon": 20}},
        "inner": {"episodes_per_task": 4},
        "outer": {"iterations": 1, "meta_batch": 2},
        "evaluation": {"tasks": 4, "episodes_per_task": 4},
    }
    before = metarl.load(metarl.train(config, run)).evaluate()
    other = ["--set=evaluation.step_sizes=[0.07]", "--set=evaluation.tasks=3"]
    assert main(["evaluate", str(run), *other]) == 0
    policy = metarl.load(run)
    assert policy.method.problem.config.evaluation_step_sizes == before.step_sizes
    stored = (run / "evaluation.json").read_text()
    assert "0.07" in stored
    assert policy.evaluate().step_sizes == before.step_sizes
    assert (run / "evaluation.json").read_text() == stored


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"steps": '"x"'}, "is damaged: steps 'x'"),
        ({"returns": "3"}, "is damaged: steps 1, returns 3"),
        ({}, "not finite"),
    ],
)
def test_a_damaged_adapted_policy_is_reported(metadata, message, tmp_path: Path) -> None:
    policy = metarl.load("point_navigation")
    tensors = policy.agent.tensors()
    if not metadata:
        tensors = {name: torch.full_like(leaf, torch.nan) for name, leaf in tensors.items()}
    metadata = {"steps": "1", "returns": "[]", **metadata}
    file = tmp_path / "policy.safetensors"
    save_file(tensors, file, {**metadata, "weights_sha256": policy.run.weights_sha256()})
    with pytest.raises(UserError, match=message):
        policy.load(file)


def test_arguments_without_an_effect_on_adaptation_are_refused() -> None:
    maml, rl2 = metarl.load("point_navigation"), metarl.load("point_navigation_rl2")
    played = maml.play(PointNavigation().make(), GOAL, episodes=3)
    for argument in ({"episodes": 2}, {"horizon": 5}):
        with pytest.raises(UserError, match="without effect on given episodes"):
            maml.adapt(played, **argument)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="takes no gradient steps"):
        rl2.adapt(PointNavigation().make(), GOAL, step_size=0.1)


def test_a_memory_of_several_environments_does_not_act_in_one() -> None:
    policy, family = metarl.load("point_navigation_rl2"), PointNavigation()
    envs = family.make_vec(4)
    observations, _ = envs.reset(seed=0, options={"task": GOAL})
    observations, *outcome, _ = envs.step(policy.act(observations))
    policy.observe(*outcome, observations)
    with pytest.raises(UserError, match="memory of 4 environments, not 1"):
        policy.play(family.make(), GOAL)
    episode = metarl.load("point_navigation_rl2").play(family.make(), GOAL)
    with pytest.raises(UserError, match="memory of 4 environments, not 1"):
        policy.adapt(episode)


def test_reversed_arrays_are_observations_and_episodes() -> None:
    policy = metarl.load("point_navigation")
    policy.reset()
    assert policy.act(np.zeros((3, 2), dtype=np.float32)[::-1]).shape == (3, 2)
    episodes = policy.play(PointNavigation().make(), GOAL, episodes=5)
    reversed_ = [(e.observations[::-1], e.actions[::-1], e.rewards[::-1]) for e in episodes]
    assert policy.adapt(reversed_).steps == 1


def test_a_context_that_was_adapted_is_not_evaluated(tmp_path: Path) -> None:
    config = TINY | {"method": "cavia"}
    policy = metarl.load(metarl.train(config, tmp_path / "run"))
    assert policy.evaluate().scores.shape[0] == 3
    with pytest.raises(UserError, match="starts from a context of zero"):
        policy.adapt(PointNavigation(horizon=6).make(), task=GOAL).evaluate()


def test_what_an_agent_plays_is_a_copy_of_what_the_environment_returned() -> None:
    class Counter(gym.Env):
        observation_space = action_space = gym.spaces.Box(-np.inf, np.inf, (1,))
        count = np.zeros(1)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            self.count[:] = 0.0
            return self.count, {}

        def step(self, action: Any) -> Any:
            self.count += 1.0
            return self.count, 0.0, False, self.count[0] == 4, {}

    (episode,) = play_episodes(Wanderer(0), Counter(), 1, 10)
    assert episode.observations.ravel().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_reset_in_the_same_step_is_not_the_last_observation_of_an_episode() -> None:
    policy = metarl.load("point_navigation")
    makers = [PointNavigation(horizon=4).make] * 2
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    policy.reset(autoreset_mode="SameStep")
    observations, _ = envs.reset(seed=0)
    for _ in range(4):
        observations, rewards, terminated, truncated, _ = envs.step(policy.act(observations))
        policy.observe(rewards, terminated, truncated, observations)
    assert all(episode.last_observation is None for episode in policy.agent._recorder.episodes)


@pytest.mark.parametrize("name", ["point_navigation", "point_navigation_rl2"])
def test_a_policy_is_evaluated_on_tasks_of_ones_own(name: str) -> None:
    policy = metarl.load(name)
    held_out, _ = policy.method.problem.test_tasks()
    curve = policy.evaluate(held_out[:3])
    assert curve.tasks.tolist() == held_out[:3].tolist()
    # with the random numbers of the run's own evaluation: equal to it, up to stored digits
    assert curve.scores == pytest.approx(policy.evaluate().scores[:3], rel=1e-4)
    for tasks, message in (
        ([0.1, 0.2], r"two rows or more, \(N, 2\), not of shape \(2,\)"),
        ([[0.1, 0.2]], "two rows or more"),
        ([[0.1], [0.2]], r"a task has shape \(2,\)"),
    ):
        with pytest.raises(UserError, match=message):
            policy.evaluate(tasks)


def test_an_action_that_is_not_finite_is_an_error() -> None:
    policy = metarl.load("point_navigation")
    env = gym.make("metarl/PointNavigation-v0")
    adapted = policy.adapt(env, task=GOAL, episodes=3, step_size=1e8)
    with pytest.raises(FloatingPointError, match="its last update was too large"):
        adapted.act([0.1, 0.1])
    for step_size in ([0.1, 0.05], "0.1"):
        with pytest.raises(UserError, match="step_size must be a positive number"):
            policy.adapt(env, task=GOAL, step_size=step_size)


def test_a_gradient_step_that_ruins_the_parameters_is_an_error() -> None:
    method = load_method(load_config("point_navigation", FEW))
    agent, env = method.agent(method.initial_state().params), method.problem.raw_family.make()
    with pytest.raises(FloatingPointError, match=r"not finite after the .* lower the step size"):
        agent.adapt_in(env, 2, 10, GOAL, step_size=1e60)
    assert agent.steps == 0


def test_a_deterministic_evaluation_adapts_from_samples_and_then_takes_mean_actions() -> None:
    stages = []
    for deterministic in (False, True):
        setting = f"evaluation.deterministic={deterministic}"
        method = load_method(load_config("point_navigation", [*FEW, setting]))
        theta, test = method.initial_state().params, method.problem.test_tasks()
        stages.append(collect_adaptation(method.problem, theta, *test, (0.1,)).trajectories)
        method.close()
    sampled, (before, after) = stages
    assert torch.equal(before.actions, sampled[0].actions)
    assert torch.equal(after.actions, after.distribution["mean"] * after.mask.unsqueeze(-1))
    assert not torch.equal(after.actions, sampled[1].actions)


def test_videos_of_a_deterministic_evaluation_show_mean_actions_after_adaptation() -> None:
    setting = ["evaluation.deterministic=true", "family.settings.horizon=5"]
    method = load_method(load_config("point_navigation", [*FEW, *setting]))
    agent = method.agent(method.initial_state().params)
    first, second = (
        AdaptedPolicy(method.problem, np.array(GOAL), {0: agent, 1: agent}, None, seed).episodes()
        for seed in (1, 2)  # of the noise
    )
    sampled, deterministic = first
    assert first[sampled].returns != second[sampled].returns
    assert first[deterministic].returns == second[deterministic].returns


def test_the_error_names_an_environment_without_render() -> None:
    policy, env = metarl.load("point_navigation"), PointNavigation().make()
    env.unwrapped.render = gym.Env.render.__get__(env.unwrapped)
    with pytest.raises(UserError, match=r"TaskEnv does not implement render\(\)"):
        policy.render(env=env)


def test_what_was_observed_is_a_copy_of_what_the_environment_returned() -> None:
    def played(careless: bool) -> metarl.AdaptivePolicy:
        policy, position = metarl.load("point_navigation"), np.zeros(2, dtype=np.float32)
        policy.reset()
        for step in range(40):
            action = policy.act(position if careless else position.copy())
            recorded = action.copy()
            if careless:
                action.clip(-0.1, 0.1, out=action)
            position += recorded.clip(-0.1, 0.1)
            reward = -float(np.linalg.norm(position - GOAL))
            policy.observe(reward, False, step == 39, position)
            position = position if careless else position.copy()
        return policy.adapt()

    careless, expected = played(True), played(False)
    for name, leaf in expected.params.items():
        assert torch.equal(careless.params[name], leaf)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ([0.0], "must be 2 finite numbers, not"),
        ([0.0, np.nan], "must be 2 finite numbers, not"),
        ("end", "must be numbers"),
    ],
)
def test_the_last_observation_of_an_episode_is_checked(last: object, sentence: str) -> None:
    episode = metarl.Trajectory(
        np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3), last_observation=last
    )
    with pytest.raises(UserError, match=f"last_observation of episode 0 {sentence}"):
        metarl.load("point_navigation").adapt([episode])


def test_a_policy_adapts_with_the_number_of_steps_of_its_training(tmp_path: Path) -> None:
    values = {**TINY, "inner": {"episodes_per_task": 2, "steps": 2}}
    policy = metarl.load(metarl.train(values, tmp_path / "run"))
    sizes = policy.method.problem.config.evaluation_step_sizes
    assert sizes == (0.1, 0.1, 0.05)
    env = PointNavigation(horizon=10).make()
    assert policy.adapt(env, task=GOAL).steps == 2
    assert policy.adapt(env, task=GOAL, steps=1).steps == 1
