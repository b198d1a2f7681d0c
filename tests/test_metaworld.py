"""Meta-World's tasks, against the environments of the installed package `metaworld`.

Its incompatible line, which writes 11 numbers into a row of MuJoCo 4's 12, is replaced.
"""

import pickle
from importlib.metadata import PackageNotFoundError
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "metaworld", reason="Meta-World is not installed: pip install --no-deps metaworld==3.1.1"
)

import metaworld
from metaworld.policies import ENV_POLICY_MAP
from metaworld.sawyer_xyz_env import SawyerMocapBase, SawyerXYZEnv
from scipy.spatial.transform import Rotation

from metarl.bench import timing
from metarl.bench.metaworld import metaworld as measure_metaworld
from metarl.bench.metaworld import original_environment, reset_mocap_welds
from metarl.envs import load_family
from metarl.envs.metaworld import assets
from metarl.envs.metaworld.families import MetaWorld, metaworld_ml10, metaworld_reach
from metarl.envs.metaworld.goals import benchmark_goals
from metarl.envs.metaworld.sawyer_task import Step
from metarl.envs.metaworld.scene import Scene, quaternions
from metarl.envs.metaworld.task_registry import TASKS
from metarl.errors import UserError
from metarl.threads import processors


@pytest.fixture(autouse=True)
def _compatible_welds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SawyerMocapBase, "reset_mocap_welds", reset_mocap_welds)


def scripted_action(name: str, env: SawyerXYZEnv, observation: np.ndarray) -> np.ndarray:
    """The action of Meta-World's scripted policy, which observes the goal."""
    policy = ENV_POLICY_MAP[f"{name}-v3"]()
    action = policy.get_action(np.hstack([observation[:-3], env._target_pos]))
    return np.asarray(action, dtype=np.float64)


def compare(name: str, num_goals: int, num_steps: int, sources: list[str]) -> np.ndarray:
    """Play an episode with each source of actions in the batch and in original environments.

    Returns:
        Whether the last episode of each goal succeeded at any time.
    """
    family = MetaWorld((name,), (name,), horizon=num_steps)
    goals = benchmark_goals([TASKS[name]], seed=7)[0][:num_goals]
    envs = family.make_vec(num_goals)
    originals = [original_environment(name, goal) for goal in goals]
    rng = np.random.default_rng(5)
    for source in sources:
        succeeded = np.zeros(num_goals, dtype=bool)
        observations, _ = envs.reset(options={"task": goals})
        expected = np.stack([env.reset()[0] for env in originals])
        for _ in range(num_steps):
            np.testing.assert_allclose(observations, expected, rtol=0, atol=1e-12)
            if source == "scripted":
                pairs = zip(originals, expected, strict=True)
                actions = np.stack([scripted_action(name, *pair) for pair in pairs])
            else:  # also beyond the bounds
                actions = rng.uniform(-1.5, 1.5, (num_goals, 4))
            if source == "single precision":
                actions = actions.astype(np.float32)
            observations, rewards, terminated, _, info = envs.step(actions)
            steps = [env.step(action) for env, action in zip(originals, actions, strict=True)]
            expected = np.stack([step[0] for step in steps])
            qpos = envs.world._batches[0].batch.bind("qpos")
            assert np.array_equal(qpos, [env.data.qpos for env in originals])
            # the original computes the gripper's part of a reward in the precision of the action
            accuracy = 1e-5 if source == "single precision" else 1e-9
            np.testing.assert_allclose(rewards, [step[1] for step in steps], rtol=0, atol=accuracy)
            assert info["success"].tolist() == [bool(step[4]["success"]) for step in steps]
            assert not terminated.any()
            succeeded |= info["success"]
    return succeeded


@pytest.mark.parametrize("name", TASKS)
def test_a_task_equals_the_original(name: str) -> None:
    compare(name, 1, 30, ["single precision"])


class OriginalScene(Scene):
    """The state of an environment of the original, as a task sees it."""

    def __init__(self, env: SawyerXYZEnv) -> None:
        self.env = env

    def _field(self, name: str, kind: str, element: str) -> np.ndarray:
        return getattr(self.env.data, name)[[getattr(self.env.model, kind)(element).id]]

    def joint(self, name: str) -> np.ndarray:
        return self.env.data.joint(name).qpos.copy()


@pytest.mark.parametrize("name", TASKS)
def test_rewards_equal_the_originals_wherever_the_object_is(name: str) -> None:
    task, rng = TASKS[name], np.random.default_rng(3)
    goals = benchmark_goals([task], seed=7)[0][:1]
    envs, env = MetaWorld((name,), (name,)).make_vec(1), original_environment(name, goals[0])
    envs.reset(options={"task": goals})
    env.reset()
    start, scene = envs.world._batches[0]._quantities, OriginalScene(env)
    solved = 0
    for _ in range(150):  # the hand goes over the table, also into the shelf
        action = np.clip(rng.normal((0.0, 0.3, 0.0, 0.0), 0.6), -1.0, 1.0)
        env.step(action)
        qpos = env.data.qpos.copy()
        if env.model.nq == 16:  # at the gripper, at the target, or about them
            places = [scene.tcp()[0], start["target"][0], start["object"][0]]
            qpos[9:12] = rng.choice(places) + rng.normal(0.0, rng.choice([0.005, 0.03, 0.1]), 3)
        else:
            low, high = env.model.jnt_range[9:].T  # soft limits
            qpos[9:] = rng.uniform(2 * low - high, 2 * high - low)
        env.set_state(qpos, np.zeros(env.model.nv))
        space = env.sawyer_observation_space
        observation = np.clip(env._get_obs(), space.low, space.high)
        expected, info = env.evaluate_state(observation, action)
        reward, success = task.reward(Step(scene, observation[None], action[None], start))
        assert abs(reward[0] - expected) <= 1e-9
        assert success[0] == info["success"]
        solved += success[0]
    assert solved or name == "reach"  # where the hand has to be at the target


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_whole_episodes_equal_the_original(name: str) -> None:
    assert compare(name, 3, 500, ["random", "scripted"]).any()


def benchmark_rows(tasks: list[Any], family: MetaWorld) -> np.ndarray:
    """The tasks of a benchmark of the original, as tasks (n, T) of a family."""
    names = [member.name for member in family.members]
    rows = np.zeros((len(tasks), family.task_size))
    for row, task in zip(rows, tasks, strict=True):
        goal = pickle.loads(task.data)["rand_vec"]
        row[family.has_index :][: len(goal)] = goal
        if family.has_index:
            row[0] = names.index(task.env_name.removesuffix("-v3"))
    return rows


def test_goals_are_those_of_the_benchmark_with_the_same_seed() -> None:
    benchmark, family = metaworld.ML1("reach-v3", seed=4), metaworld_reach(seed=4)
    for split, tasks in (("train", benchmark.train_tasks), ("test", benchmark.test_tasks)):
        expected = benchmark_rows(tasks, family)
        assert np.array_equal(np.concatenate(family.benchmark_tasks[split]), expected)


@pytest.mark.slow
def test_ml10_has_the_tasks_and_goals_of_the_benchmark_with_the_same_seed() -> None:
    benchmark, family = metaworld.ML10(seed=3), metaworld_ml10(seed=3)
    for split, tasks in (("train", benchmark.train_tasks), ("test", benchmark.test_tasks)):
        expected = benchmark_rows(tasks, family)
        assert np.array_equal(np.concatenate(family.benchmark_tasks[split]), expected)


def test_simulations_of_several_tasks_equal_those_of_each_task() -> None:
    names = ("door-open", "sweep", "lever-pull")
    several = MetaWorld(names, names, horizon=3)
    tasks = several.sample_tasks(np.random.default_rng(0), 6)[[0, 3, 1, 4, 2, 5]]
    envs, actions = several.make_vec(6), np.random.default_rng(1).uniform(-1.0, 1.0, (3, 6, 4))
    rows = [envs.reset(options={"task": tasks})[0]]
    rows += [np.column_stack(envs.step(action)[:2]) for action in actions]
    for index, name in enumerate(names):
        is_member = tasks[:, 0] == index
        single = MetaWorld((name,), (name,), horizon=3).make_vec(2)
        goals = several.goals(tasks[is_member], several.members[index])
        assert np.array_equal(single.reset(options={"task": goals})[0], rows[0][is_member])
        for action, expected in zip(actions, rows[1:], strict=True):
            assert np.array_equal(
                np.column_stack(single.step(action[is_member])[:2]), expected[is_member]
            )


def test_a_task_whose_goal_changes_the_model_does_not_keep_it_for_the_next_goal() -> None:
    family = MetaWorld(("window-open",), ("window-open",), horizon=2)
    first, second = family.sample_tasks(np.random.default_rng(0), 2)
    envs, action = family.make_vec(1), np.ones((1, 4))
    episodes = []
    for task in (first, second, first):
        observations, _ = envs.reset(options={"task": task})
        episodes.append(np.concatenate([observations[0], envs.step(action)[0][0]]))
    assert np.array_equal(episodes[0], episodes[2])
    assert not np.array_equal(episodes[0], episodes[1])


def test_quaternions_equal_those_of_scipy_also_of_half_turns() -> None:
    half_turns = Rotation.from_rotvec(np.eye(3) * np.pi)
    matrices = Rotation.concatenate([Rotation.random(50, rng=0), half_turns]).as_matrix()
    expected = Rotation.from_matrix(matrices).as_quat()
    np.testing.assert_allclose(quaternions(matrices.reshape(-1, 9)), expected, rtol=0, atol=1e-14)


def test_a_task_is_described_by_its_name_and_a_position_that_differs_between_goals() -> None:
    family = metaworld_ml10()
    for rows in family.benchmark_tasks["train"] + family.benchmark_tasks["test"]:
        name = family.members[int(rows[0, 0])].name
        descriptions = {family.describe(task) for task in rows}
        assert len(descriptions) > 10
        assert all(description.startswith(f"{name} (") for description in descriptions)


def test_a_meta_batch_of_ml10_has_equally_many_of_its_ten_tasks() -> None:
    family, rng = metaworld_ml10(), np.random.default_rng(0)
    train, test = family.sample_tasks(rng, 30)[:, 0], family.sample_test_tasks(rng, 200)
    assert np.array_equal(np.unique(train, return_counts=True), [np.arange(10), np.full(10, 3)])
    assert np.array_equal(np.unique(test[:, 0]), np.arange(10, 15))
    assert len(np.unique(test, axis=0)) == 200


def test_training_and_test_goals_are_drawn_from_their_own_fifty() -> None:
    family, rng = metaworld_reach(), np.random.default_rng(0)
    train, test = family.sample_tasks(rng, 70), family.sample_test_tasks(rng, 50)
    assert len(np.unique(train, axis=0)) == 50
    assert len(np.unique(test, axis=0)) == 50
    assert not set(map(tuple, train)) & set(map(tuple, test))


def test_a_reset_equals_the_first_one_of_its_goal() -> None:
    family = metaworld_reach(horizon=4)
    tasks = family.sample_tasks(np.random.default_rng(0), 2)
    envs, actions = family.make_vec(3), np.full((3, 4), 0.7)
    episodes = []
    for order in ([0, 1, 0], [1, 0, 0]):
        observations, _ = envs.reset(options={"task": tasks[order]})
        episode = [observations]
        for _ in range(4):
            observations, rewards, *_ = envs.step(actions)
            episode.append(np.column_stack([observations, rewards]))
        episodes.append(np.concatenate(episode, axis=1))
    assert np.array_equal(episodes[0][[1, 0]], episodes[1][[0, 1]])
    assert np.array_equal(episodes[0][0], episodes[0][2])


def test_another_version_of_the_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "VERSION", "9.9.9")
    with pytest.raises(UserError, match=r"metaworld 3\.1\.1 is installed, .*: pip install"):
        load_family("metaworld-reach").make()


def test_missing_models_are_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(assets, "distribution", missing)
    with pytest.raises(UserError, match="pip install --no-deps metaworld=="):
        load_family("metaworld-push").make_vec(2)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("stick-push",), "thermos slides"),
        (("stick-pull", "reach"), "thermos slides"),
        (("raech",), "did you mean 'reach'"),
    ],
)
def test_a_task_without_an_equal_in_mujoco_4_is_refused(
    names: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        MetaWorld(names, names)


def test_a_goal_outside_its_range_is_refused() -> None:
    family = metaworld_reach()
    goal = family.sample_tasks(np.random.default_rng(0), 1)[0]
    goal[3] = 0.5
    with pytest.raises(ValueError, match="must lie between"):
        family.make_vec(1).reset(options={"task": goal})


def test_a_diverged_simulation_terminates_with_a_reward_of_zero() -> None:
    envs = metaworld_reach().make_vec(2)
    envs.reset(seed=0)
    envs.world._batches[0].batch.bind("qvel")[1] = 1e9
    observations, rewards, terminated, *_ = envs.step(np.zeros((2, 4)))
    assert terminated.tolist() == [False, True]
    assert rewards[1] == 0.0
    assert np.isfinite(observations).all()


def test_speed_is_compared_with_the_original_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock by which whatever is measured takes a second, so that rates are numbers of steps
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=count().__next__))
    settings = ("outer.meta_batch=2", "inner.episodes_per_task=1", "family.settings.horizon=3")
    scale = "policy.observation_scale=null"
    assert measure_metaworld("metaworld_push", (*settings, scale), 1) == {
        "observed": 6,
        "sampler": 6,
        "sync": 16 * 3,
        "async": processors() * 3,
    }


def test_a_negative_number_of_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="num_threads must not be negative, not -1"):
        metaworld_reach(num_threads=-1)
