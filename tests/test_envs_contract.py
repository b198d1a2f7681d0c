"""Every family conforms to the checkers of gymnasium, of stable-baselines3, and our own."""

import inspect
import pickle
import warnings
from importlib.util import find_spec
from typing import get_args

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan

import metarl.envs
from metarl.baselines.multi_task_env import MultiTaskEnv
from metarl.envs import FAMILIES, PointNavigation, check_family, load_family, vectorise
from metarl.envs.registration import IDS
from metarl.envs.wrappers import observe_task
from metarl.errors import UserError


def presets(name: str) -> list[dict[str, str]]:
    """The settings of a family for each of its presets of the dynamics."""
    setting = inspect.signature(FAMILIES.load(name)).parameters.get("dynamics")
    return [{"dynamics": value} for value in get_args(setting.annotation)] if setting else [{}]


# Meta-World's models are an optional package
NAMES = [name for name in FAMILIES if not name.startswith("metaworld") or find_spec("metaworld")]
VARIANTS = [(name, settings) for name in NAMES for settings in presets(name)]
every_variant = pytest.mark.parametrize(
    ("name", "settings"), VARIANTS, ids=["-".join([n, *s.values()]) for n, s in VARIANTS]
)
SILENT = Logger(folder=None, output_formats=[])  # stable-baselines3's default creates a folder
every_id = pytest.mark.parametrize("env_id", [env_id for env_id in IDS if IDS[env_id] in NAMES])


@every_variant
def test_family_passes_the_checker(name: str, settings: dict[str, str]) -> None:
    check_family(load_family(name, {**settings, "horizon": 30}))


@pytest.mark.slow
@every_id
def test_checkers_of_gymnasium_and_stable_baselines3_pass(env_id: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gym.make(env_id).unwrapped)
        sb3_check_env(gym.make(env_id).unwrapped)
        env = gym.make(env_id)  # with the passive checker around it
        env.reset(seed=0)
        env.step(env.action_space.sample())
    expected = ("infinity", "different from the unwrapped version", "not been wrapped", "float64")
    if "Metaworld" in env_id:  # its hidden goal is three observations that are always 0
        expected += ("maximum and minimum values are equal",)
    unexpected = [str(w.message) for w in caught if not any(k in str(w.message) for k in expected)]
    assert unexpected == []


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["metarl/PointNavigation-v0", "metarl/HopperRandParams-v0"])
@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_algorithms_of_stable_baselines3_run_with_finite_observations_and_rewards(
    env_id: str, algorithm: type[PPO] | type[SAC]
) -> None:
    envs = VecCheckNan(DummyVecEnv([lambda: gym.make(env_id)]), raise_exception=True)
    settings = {"n_steps": 64} if algorithm is PPO else {"learning_starts": 32, "buffer_size": 200}
    model = algorithm("MlpPolicy", envs, batch_size=32, seed=0, device="cpu", **settings)
    before = [leaf.clone() for leaf in model.policy.parameters()]
    model.set_logger(SILENT)
    model.learn(128)
    after = list(model.policy.parameters())
    assert all(torch.isfinite(leaf).all() for leaf in after)
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    envs.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), VARIANTS[::3])
def test_multi_task_observations_are_finite_for_stable_baselines3(
    name: str, settings: dict[str, str]
) -> None:
    envs = VecCheckNan(
        MultiTaskEnv(load_family(name, {**settings, "horizon": 30}), 4), raise_exception=True
    )
    model = PPO("MlpPolicy", envs, n_steps=60, batch_size=60, seed=0, device="cpu")
    model.set_logger(SILENT)
    model.learn(240)
    assert all(torch.isfinite(leaf).all() for leaf in model.policy.parameters())
    envs.close()


@every_variant
def test_native_vector_env_equals_a_sync_vector_env_across_autoresets(
    name: str, settings: dict[str, str]
) -> None:
    family = load_family(name, {**settings, "horizon": 12})
    tasks = family.sample_tasks(np.random.default_rng(0), 3)
    native = metarl.envs.BatchedEnv(family, 3)
    reference = vectorise(family.make, 3)
    for options in ({"task": tasks}, None):
        actual, _ = native.reset(seed=5, options=options)
        expected, _ = reference.reset(seed=5, options=options)
        np.testing.assert_array_equal(actual, expected)
        ended = 0
        native.action_space.seed(1)
        for _ in range(30):
            actions = native.action_space.sample()
            results = native.step(actions)[:4], reference.step(actions)[:4]
            for actual, expected in zip(*results, strict=True):
                np.testing.assert_array_equal(actual, expected)
            ended += int(native._done.sum())
        assert ended >= 6


@every_variant
def test_without_a_task_every_reset_samples_one_in_single_and_vector_environments(
    name: str, settings: dict[str, str]
) -> None:
    family = load_family(name, {**settings, "horizon": 3})
    native = metarl.envs.BatchedEnv(family, 2)
    reference = SyncVectorEnv([family.make] * 2)
    native.reset(seed=9)
    reference.reset(seed=9)
    native.action_space.seed(1)
    for _ in range(9):
        actions = native.action_space.sample()
        np.testing.assert_array_equal(native.step(actions)[1], reference.step(actions)[1])


@pytest.mark.parametrize("name", ["half-cheetah-direction", "ant-goal"])
def test_results_do_not_depend_on_the_number_of_threads(name: str) -> None:
    def observations(num_threads: int) -> np.ndarray:
        family = load_family(name, {"num_threads": num_threads})
        envs = family.make_vec(7)
        envs.reset(seed=0, options={"task": family.sample_tasks(np.random.default_rng(0), 7)})
        envs.action_space.seed(0)
        return np.array([envs.step(envs.action_space.sample())[0] for _ in range(20)])

    np.testing.assert_array_equal(observations(1), observations(3))


@every_id
def test_environments_pickle(env_id: str) -> None:
    env = gym.make(env_id)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(env.reset(seed=3)[0], copy.reset(seed=3)[0])
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    twin = pickle.loads(pickle.dumps(envs))
    np.testing.assert_array_equal(envs.reset(seed=3)[0], twin.reset(seed=3)[0])


@every_id
def test_gymnasium_makes_the_native_vector_env_with_its_time_limit(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=2, max_episode_steps=5)
    assert isinstance(envs, metarl.envs.BatchedEnv)
    envs.reset(seed=0)
    still = np.zeros(envs.action_space.shape, dtype=envs.action_space.dtype)
    truncations = [envs.step(still)[3].all() for _ in range(5)]
    assert truncations == [False, False, False, False, True]


def test_an_environment_whose_episode_ended_is_frozen_until_it_is_reset() -> None:
    family = metarl.envs.PointNavigation(horizon=50)
    envs = family.make_vec(2)
    goals = np.array([[0.1, 0.0], [0.5, 0.5]])
    envs.reset(options={"task": goals})
    right = np.tile(np.float32([1.0, 0.0]), (2, 1))
    observation, reward, terminated, _, _ = envs.step(right)
    assert terminated.tolist() == [True, False]
    assert reward[0] == pytest.approx(0.0, abs=1e-9)
    observation, reward, terminated, _, _ = envs.step(right)
    np.testing.assert_allclose(observation, [[0.1, 0.0], [0.2, 0.0]])
    assert reward[0] == 0.0
    assert terminated.tolist() == [True, False]
    envs.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_allclose(envs.step(right)[0], [[0.1, 0.0], [0.3, 0.0]])


@given(
    actions=st.lists(st.tuples(*[st.floats(-3, 3)] * 2), min_size=1, max_size=20),
    goal=st.tuples(*[st.floats(-0.5, 0.5)] * 2),
)
@settings(max_examples=50, deadline=None)
def test_a_point_moves_by_its_clipped_action_and_the_reward_is_minus_the_distance(
    actions, goal
) -> None:
    env = metarl.envs.PointNavigation().make()
    env.reset(options={"task": np.array(goal)})
    position = np.zeros(2)
    for action in actions:
        observation, reward, terminated, _, _ = env.step(np.array(action))
        position = position + 0.1 * np.clip(action, -1, 1)
        np.testing.assert_allclose(observation, position, atol=1e-12)
        assert reward == pytest.approx(-np.linalg.norm(position - goal))
        assert terminated == (np.abs(position - goal) < 0.01).all()


def test_tasks_have_the_distribution_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    bounds = {
        "point-navigation": (-0.5, 0.5),
        "half-cheetah-velocity": (0.0, 2.0),
        "ant-velocity": (0.0, 3.0),
        "ant-goal": (-3.0, 3.0),
    }
    for name, (low, high) in bounds.items():
        tasks = load_family(name).sample_tasks(rng, 4000)
        span = high - low
        assert (tasks >= low).all()
        assert (tasks <= high).all()
        np.testing.assert_allclose(tasks.min(0), low, atol=0.01 * span)
        np.testing.assert_allclose(tasks.max(0), high, atol=0.01 * span)
        np.testing.assert_allclose(tasks.mean(0), (low + high) / 2, atol=0.03 * span)
    for name in ("half-cheetah-direction", "ant-direction"):
        tasks = load_family(name).sample_tasks(rng, 4000)
        assert set(tasks.ravel()) == {-1.0, 1.0}
        assert abs(tasks.mean()) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_family("point-navigatoin"), "did you mean 'point-navigation'"),
        (lambda: load_family("ant-goal", {"horizn": 3}), "did you mean 'horizon'"),
        (lambda: load_family("ant-goal", {"horizon": 0}), "horizon must be"),
        (lambda: load_family("ant-goal", {"horizon": "many"}), "horizon must be"),
        (lambda: load_family("ant-goal", {"dynamics": "papr"}), "'paper' or 'gymnasium'"),
        (lambda: load_family("half-cheetah-velocity", {"low": 2.0, "high": 1.0}), "below high"),
        (lambda: load_family("half-cheetah-velocity", {"high": "fast"}), "setting"),
        (lambda: load_family("nowhere.module:Family"), "cannot import 'nowhere.module'"),
        (lambda: load_family("metarl.envs:PointNavigatio"), "did you mean 'PointNavigation'"),
        (
            lambda: load_family("metarl.envs:vectorise"),
            "is a function: decorate it with @metarl.envs.register_family",
        ),
        (lambda: load_family("fractions:Fraction"), "it lacks sample_tasks, describe, make"),
    ],
)
def test_an_unknown_name_of_a_family_is_reported(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_errors_at_reset_and_step_are_reported() -> None:
    envs = metarl.envs.half_cheetah_direction().make_vec(3)
    with pytest.raises(ValueError, match=r"\(1,\) for one task, or \(3, 1\)"):
        envs.reset(options={"task": np.zeros((2, 1))})
    with pytest.raises(ValueError, match="not finite"):
        envs.reset(options={"task": np.array([np.nan])})
    with pytest.raises(ValueError, match="got 2 seeds for 3"):
        envs.reset(seed=[1, 2])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="action is NaN"):
        envs.step(np.full((3, 6), np.nan))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_images_show_the_task(name: str) -> None:
    family = load_family(name)
    tasks = family.sample_tasks(np.random.default_rng(0), 8)
    images = []
    for task in (tasks[0], tasks[(tasks != tasks[0]).any(axis=1)][0]):
        env = family.make(render_mode="rgb_array")
        env.reset(seed=0, options={"task": task})
        env.step(np.zeros(env.action_space.shape, dtype=env.action_space.dtype))
        images.append(env.render())
        env.close()
    first, second = images
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert (first != second).any()


def test_a_family_whose_module_cannot_be_imported_says_what_is_missing(monkeypatch) -> None:
    monkeypatch.setattr("metarl.envs.family.UNAVAILABLE", ["needs mujoco: pip install mujoco"])
    with pytest.raises(
        UserError, match=r"^task family 'ant-gaol' needs mujoco: pip install mujoco$"
    ):
        load_family("ant-gaol")


def test_an_environment_ends_at_the_horizon_that_is_set() -> None:
    env = gym.make("metarl/PointNavigation-v0", horizon=7)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[3] for _ in range(7)]
    assert ends == [False] * 6 + [True]
    assert gym.make_vec("metarl/PointNavigation-v0", num_envs=2, horizon=7).max_episode_steps == 7
    shorter = gym.make("metarl/PointNavigation-v0", max_episode_steps=3)
    shorter.reset(seed=0)
    assert [shorter.step(env.action_space.sample())[3] for _ in range(3)] == [False, False, True]


def test_a_vector_environment_has_at_least_one() -> None:
    with pytest.raises(UserError, match="num_envs must be at least 1, not 0"):
        vectorise(PointNavigation().make, 0)


def test_a_partial_reset_does_not_change_the_tasks_that_are_observed() -> None:
    envs = observe_task(PointNavigation().make_vec(2), 2)
    envs.reset(options={"task": [[0.1, 0.1], [0.2, 0.2]]})
    mask = np.array([True, False])
    with pytest.raises(ValueError, match="not reset keeps its task"):
        envs.reset(options={"task": [[0.3, 0.3], [0.4, 0.4]], "reset_mask": mask})
    observations, _ = envs.reset(options={"reset_mask": mask})
    assert observations[:, 2:].tolist() == [[0.1, 0.1], [0.2, 0.2]]
    tasks = [[0.3, 0.3], [0.2, 0.2]]
    observations, _ = envs.reset(options={"task": tasks, "reset_mask": mask})
    assert observations[:, 2:].tolist() == tasks
