"""Requirements of gymnasium's vector environments, tested on the native ones.

They are those of gymnasium's own tests, which its package does not include, and of the
documentation of `SyncVectorEnv`.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl.envs import BatchedEnv, PointNavigation, half_cheetah_direction, vectorise

# one id of each world and robot with continuous actions; see test_envs_stochastic.py for others
NAMES = ("PointNavigation", "HalfCheetahDirection", "AntGoal", "WalkerRandParams")
every_id = pytest.mark.parametrize("env_id", [f"metarl/{name}-v0" for name in NAMES])


def make_native(env_id: str, num_envs: int = 3, **settings: object) -> BatchedEnv:
    envs = gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point", **settings)
    assert isinstance(envs, BatchedEnv)
    return envs


def observations_after(envs: gym.vector.VectorEnv, steps: int = 1) -> np.ndarray:
    """Observations after some steps with fixed random actions."""
    envs.action_space.seed(0)
    return [envs.step(envs.action_space.sample())[0] for _ in range(steps)][-1]


@every_id
def test_native_and_sync_have_the_same_spaces_episodes_and_types(env_id: str) -> None:
    native, sync = make_native(env_id), SyncVectorEnv([lambda: gym.make(env_id)] * 3)
    for space in (
        "observation_space",
        "single_observation_space",
        "action_space",
        "single_action_space",
        "num_envs",
    ):
        assert getattr(native, space) == getattr(sync, space)
    actual, info = native.reset(seed=0)
    expected, _ = sync.reset(seed=0)
    assert info == {}
    np.testing.assert_array_equal(actual, expected)
    assert actual in native.observation_space
    native.action_space.seed(1)
    for _ in range(100):
        actions = native.action_space.sample()
        for actual, expected in zip(native.step(actions)[:4], sync.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(actual, expected)
            assert actual.dtype == expected.dtype
    native.close()
    sync.close()


@every_id
def test_returned_arrays_do_not_change_later(env_id: str) -> None:
    envs = make_native(env_id)
    first, _ = envs.reset(seed=0)
    kept = first.copy()
    outcome = envs.step(envs.action_space.sample())[:4]
    copies = [part.copy() for part in outcome]
    observations_after(envs, 3)
    np.testing.assert_array_equal(first, kept)
    for part, copy in zip(outcome, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@every_id
def test_seeds_are_consecutive_and_persist_until_new_ones_are_set(env_id: str) -> None:
    envs = make_native(env_id)
    envs.reset(seed=42)
    assert envs.np_random_seed == (42, 43, 44)
    envs.reset()
    assert envs.np_random_seed == (42, 43, 44)
    envs.reset(seed=[7, None, 9])
    assert envs.np_random_seed == (7, 43, 9)


@every_id
def test_missing_seeds_are_random_and_differ(env_id: str) -> None:
    envs = make_native(env_id)
    seeds = envs.np_random_seed
    assert len(set(seeds)) == 3
    envs.reset()
    assert envs.np_random_seed == seeds
    assert len({rng.random() for rng in envs.np_random}) == 3


@every_id
def test_generators_are_those_of_gymnasiums_single_environments(env_id: str) -> None:
    envs, sync = make_native(env_id), SyncVectorEnv([lambda: gym.make(env_id)] * 3)
    envs.reset(seed=5)
    sync.reset(seed=5)
    actual, expected = ([rng.random() for rng in vector.np_random] for vector in (envs, sync))
    assert actual == expected


@every_id
@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_a_partial_reset_does_not_change_the_other_sub_environments(env_id: str, mode: str) -> None:
    envs = make_native(env_id, autoreset_mode=mode)
    initial, _ = envs.reset(seed=[0, 1, 2])
    before = observations_after(envs, 3)
    reset_mask = np.array([True, True, False])
    after, _ = envs.reset(seed=[0, 1, 0], options={"reset_mask": reset_mask})
    assert (before[:2] != after[:2]).any()
    np.testing.assert_array_equal(after[:2], initial[:2])
    np.testing.assert_array_equal(after[2], before[2])
    assert envs.np_random_seed == (0, 1, 2)  # the third was not reset, and keeps its generator


def test_a_partial_reset_equals_that_of_gymnasium_across_autoresets() -> None:
    family = half_cheetah_direction(horizon=7)
    native, sync = BatchedEnv(family, 3), vectorise(family.make, 3)
    rng = np.random.default_rng(0)
    for step in range(40):
        if step % 5 == 0:
            mask = np.ones(3, dtype=bool) if step == 0 else rng.permutation([True, False, True])
            seeds, tasks = rng.integers(99, size=3).tolist(), rng.choice([-1.0, 1.0], (3, 1))
            actual, expected = (
                envs.reset(seed=seeds, options={"task": tasks, "reset_mask": mask})[0]
                for envs in (native, sync)
            )
            np.testing.assert_array_equal(actual, expected)
        actions = rng.uniform(-1.0, 1.0, (3, 6)).astype(np.float32)
        for actual, expected in zip(native.step(actions)[:4], sync.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(actual, expected)


@every_id
@pytest.mark.parametrize(
    "mask",
    [
        np.array([0, 0, 1]),
        [0, 0, 1],
        np.array([1.0, 1.0, 0.0]),
        np.array([True]),
        np.array(True),
        np.array([True, True, False, False]),
        np.array([[True, True, True]]),
        np.array([False, False, False]),
        "all",
    ],
    ids=repr,
)
def test_an_invalid_or_empty_reset_mask_is_an_error(env_id: str, mask) -> None:
    envs = make_native(env_id)
    envs.reset(seed=0)
    before = observations_after(envs)
    with pytest.raises(ValueError, match=r"options\['reset_mask'\]"):
        envs.reset(options={"reset_mask": mask})
    everywhere = np.ones(3, dtype=bool)
    everywhere[0] = False
    np.testing.assert_array_equal(
        envs.reset(options={"reset_mask": everywhere})[0][0], before[0]
    )  # the refused reset changed nothing


@every_id
def test_only_the_first_reset_must_include_all_environments(env_id: str) -> None:
    envs = make_native(env_id)
    with pytest.raises(ValueError, match="first reset must include all"):
        envs.reset(options={"reset_mask": np.array([True, True, False])})
    envs.reset(options={"reset_mask": np.array([True, True, True])})
    envs.reset(options={"reset_mask": np.array([True, True, False])})


@every_id
def test_a_step_before_the_first_reset_is_refused(env_id: str) -> None:
    envs = make_native(env_id)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(envs.action_space.sample())


@every_id
def test_actions_of_another_count_shape_or_type_are_refused(env_id: str) -> None:
    envs = make_native(env_id)
    envs.reset(seed=0)
    actions = envs.action_space.sample()
    invalid = [
        0.0,
        np.float32(0.5),
        actions[0],
        actions[:2],
        np.concatenate([actions, actions]),
        actions[:, :1],
        actions[..., None],
        actions.astype(str),
        actions.astype(object),
        actions.astype(complex),
        np.full_like(actions, np.nan),
        np.full_like(actions, np.inf),
        None,
    ]
    for candidate in invalid:
        with pytest.raises(ValueError, match="action"):
            envs.step(candidate)
    envs.step(actions.tolist())  # a list of the right shape is valid


@every_id
def test_a_single_environment_refuses_the_same_actions(env_id: str) -> None:
    env = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    action = env.action_space.sample()
    for invalid in (
        0.0,
        action[:1],
        action[None],
        np.full_like(action, np.nan),
        action.astype(str),
    ):
        with pytest.raises(ValueError, match="action"):
            env.step(invalid)


@pytest.mark.parametrize(
    "seed", [-1, [0, 1, -5], 1.5, [0.5, 1, 2], "123", True, [1, 2], [1, 2, 3, 4]], ids=repr
)
def test_invalid_seeds_are_an_error_at_reset(seed) -> None:
    with pytest.raises(ValueError, match="seed"):
        make_native("metarl/PointNavigation-v0").reset(
            seed=seed
        )  # a family that never draws at reset


@pytest.mark.parametrize(
    "settings",
    [{"num_envs": 0}, {"num_envs": 1.5}, {"max_episode_steps": 0}, {"max_episode_steps": 2.5}],
    ids=str,
)
def test_counts_must_be_positive_integers(settings) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be an integer"):
        BatchedEnv(PointNavigation(), **{"num_envs": 2, **settings})


def test_the_autoreset_mode_is_in_the_metadata() -> None:
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        envs = make_native("metarl/PointNavigation-v0", autoreset_mode=mode.value)
        assert envs.metadata["autoreset_mode"] is mode
    with pytest.raises(ValueError, match="SameStep"):
        make_native("metarl/PointNavigation-v0", autoreset_mode="SameStep")


def test_closing_twice_is_closing_once() -> None:
    envs = make_native("metarl/PointNavigation-v0")
    envs.close()
    assert envs.closed
    envs.close()


def test_a_task_for_the_next_episode_does_not_change_the_current_one() -> None:
    envs = BatchedEnv(PointNavigation(), 2)
    envs.reset(options={"task": np.array([0.3, 0.4])})
    still = np.zeros((2, 2))
    goals = np.array([[0.0, -0.1], [0.0, -0.1]])
    envs.reset(options={"task": goals, "reset_mask": np.array([True, False])})
    np.testing.assert_allclose(envs.step(still)[1], [-0.1, -0.5])
    envs.reset()
    np.testing.assert_allclose(envs.step(still)[1], [-0.1, -0.1])


def test_tasks_are_copied() -> None:
    envs = vectorise(PointNavigation().make, 2)
    tasks = np.array([[0.1, 0.2], [0.3, 0.4]])
    envs.reset(options={"task": tasks})
    tasks[:] = 7.0
    assert np.concatenate(envs.env.get_attr("task")).max() == 0.4


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_render_mode_that_does_not_exist_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r"render_mode must be None or .*, not 'human'"):
        make("metarl/PointNavigation-v0", render_mode="human")
