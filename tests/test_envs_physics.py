"""MuJoCo families against gymnasium's own environments, and against MuJoCo by hand."""

from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_match import check_environments_match
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import metarl.envs
from metarl.envs.ant import Ant
from metarl.envs.half_cheetah import HalfCheetah
from metarl.envs.planar import PlanarChain
from metarl.envs.point_navigation import PointNavigation
from metarl.envs.robot import MAX_VELOCITY, is_stable

GYMNASIUM_ASSETS = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"

PAIRS = {
    "metarl/HalfCheetahDirection-v0": ("HalfCheetah-v5", {"ctrl_cost_weight": 0.05}),
    "metarl/AntDirection-v0": (
        "Ant-v5",
        {
            "ctrl_cost_weight": 0.005,
            "contact_cost_weight": 0.0,
            "healthy_reward": 0.05,
            "include_cfrc_ext_in_observation": False,
        },
    ),
}


def _native_env(env_id: str) -> gym.Env:
    env = gym.make(env_id, dynamics="gymnasium")
    env.reset(options={"task": np.array([1.0])})
    return env


@pytest.mark.parametrize("env_id", PAIRS)
def test_the_gymnasium_preset_matches_gymnasiums_own_environment(env_id: str) -> None:
    stock_id, settings = PAIRS[env_id]
    # Ant-v5 gives no survival bonus at the last step; the released code of the paper does
    check_environments_match(
        _native_env(env_id),
        gym.make(stock_id, **settings),
        num_steps=250,
        skip_rew=env_id.startswith("metarl/Ant"),
        skip_truncated=True,
        info_comparison="skip",
    )


@pytest.mark.parametrize("env_id", PAIRS)
def test_whole_episodes_are_bit_identical_with_gymnasiums(env_id: str) -> None:
    stock_id, settings = PAIRS[env_id]
    native, stock = _native_env(env_id), gym.make(stock_id, **settings)
    rng = np.random.default_rng(3)
    for episode in range(3):
        first, _ = native.reset(seed=episode)
        expected, _ = stock.reset(seed=episode)
        np.testing.assert_array_equal(first, expected)
        for _ in range(200):
            action = rng.uniform(-1.0, 1.0, native.action_space.shape).astype(np.float32)
            observation, reward, terminated, truncated, _ = native.step(action)
            expected, expected_reward, expected_end, _, _ = stock.step(action)
            np.testing.assert_array_equal(observation, expected)
            np.testing.assert_array_equal(
                native.unwrapped.world.batch.bind("qpos")[0], stock.unwrapped.data.qpos
            )
            assert terminated == expected_end
            if not terminated:
                assert reward == expected_reward
            if terminated or truncated:
                break


@pytest.mark.parametrize(
    ("robot", "asset"),
    [
        (HalfCheetah("gymnasium"), "half_cheetah.xml"),
        (Ant("gymnasium"), "ant.xml"),
    ],
    ids=["half-cheetah", "ant"],
)
def test_the_compiled_model_equals_the_stock_one(robot: HalfCheetah | Ant, asset: str) -> None:
    stock = mujoco.MjModel.from_xml_path(str(GYMNASIUM_ASSETS / asset))
    model = robot.model()
    compared = 0
    for name in dir(stock):
        value = getattr(stock, name)
        if name.startswith(("_", "text")) or not isinstance(value, np.ndarray):
            continue
        np.testing.assert_array_equal(getattr(model, name), value, err_msg=name)
        compared += 1
    assert compared > 200
    assert model.opt.timestep == stock.opt.timestep


def test_compiling_the_half_cheetah_warns_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    HalfCheetah().model()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", ["half-cheetah-direction", "ant-direction"])
def test_the_paper_preset_equals_a_plain_mujoco_loop(family: str) -> None:
    env = metarl.envs.load_family(family).make()
    env.reset(seed=0, options={"task": np.array([1.0])})
    world = env.unwrapped.world
    model = world.robot.model()
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = world.batch.bind("qpos")[0], world.batch.bind("qvel")[0]
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    touched = False
    for _ in range(150):
        action = rng.uniform(-1.5, 1.5, model.nu)
        observation, reward, terminated, _, _ = env.step(action)
        clipped = np.clip(action, -1.0, 1.0)
        data.ctrl[:] = clipped
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        velocity, com = data.subtree_linvel[1, 0], data.subtree_com[1]
        if family.startswith("half"):
            expected = np.concatenate([data.qpos[1:], data.qvel, com])
            expected_reward = velocity - 0.05 * np.square(clipped).sum()
        else:
            forces = np.clip(data.cfrc_ext, -1.0, 1.0)
            touched |= bool(np.abs(forces).max() > 0.0)
            torso = data.xmat[1]
            expected = np.concatenate([data.qpos, data.qvel, forces.ravel(), torso, com])
            cost = 0.005 * np.square(clipped).sum() + 0.0005 * np.square(forces).sum()
            expected_reward = velocity + 0.05 - cost
        np.testing.assert_allclose(observation, expected, rtol=0, atol=1e-10)
        assert reward == pytest.approx(expected_reward, abs=1e-9)
        if terminated:
            break
    assert touched or family.startswith("half")


@given(arrays(np.float64, (3, 9), elements=st.floats(-50.0, 50.0)), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_half_cheetahs_centre_of_mass_is_mujocos_in_every_position(qpos, seed: int) -> None:
    model = HalfCheetah().model()
    qvel = 10.0 * np.random.default_rng(seed).standard_normal(qpos.shape)
    position, velocity = HalfCheetah().chain.centre_of_mass(qpos, qvel)
    data = mujoco.MjData(model)
    for number in range(len(qpos)):
        data.qpos[:], data.qvel[:] = qpos[number], qvel[number]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        centre, moving = data.subtree_com[1], data.subtree_linvel[1]
        np.testing.assert_allclose(position[:, number], centre[[0, 2]], rtol=0, atol=1e-12)
        np.testing.assert_allclose(velocity[:, number], moving[[0, 2]], rtol=0, atol=1e-11)
        assert abs(centre[1]) < 1e-15  # the observation has a constant zero


@pytest.mark.parametrize(
    ("field", "value"),
    [("jnt_pos", 0.1), ("qpos0", 0.1), ("body_quat", 0.5), ("jnt_axis", 0.7), ("jnt_type", 0)],
)
def test_the_closed_form_centre_of_mass_requires_a_planar_robot(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="hinge about y"):
        PlanarChain.from_model(Ant().model())
    model = HalfCheetah().model()
    getattr(model, field)[-1] = value
    with pytest.raises(ValueError, match="hinge about y"):
        PlanarChain.from_model(model)


def test_the_papers_ant_has_its_own_timestep_contacts_and_initial_position() -> None:
    model = Ant("paper").model()
    assert model.opt.timestep == 0.02
    assert (model.geom_solimp[:, :3] == [0.8, 0.8, 0.01]).all()
    qpos, _ = Ant("paper").start(model, np.random.default_rng(0))
    assert qpos[2] == pytest.approx(0.55, abs=0.05)


def test_sizes_of_observations_are_those_of_the_presets() -> None:
    sizes = {
        (name, dynamics): metarl.envs.load_family(name, {"dynamics": dynamics})
        .make()
        .observation_space.shape[0]
        for name in ("half-cheetah-velocity", "ant-direction", "ant-goal")
        for dynamics in ("paper", "gymnasium")
    }
    assert list(sizes.values()) == [20, 17, 125, 27, 125, 29]


@pytest.mark.parametrize(
    ("family", "task", "reward_of"),
    [
        ("half-cheetah-velocity", [1.5], lambda v, xy: -abs(v - 1.5)),
        ("half-cheetah-direction", [-1.0], lambda v, xy: -v),
        ("ant-velocity", [1.5], lambda v, xy: 1.0 - abs(v - 1.5) + 0.05),
        ("ant-direction", [-1.0], lambda v, xy: -v + 0.05),
        ("ant-goal", [1.0, -2.0], lambda v, xy: 4 - abs(xy[0] - 1) - abs(xy[1] + 2) + 0.05),
    ],
)
def test_rewards_without_control_are_those_of_the_definition(family, task, reward_of) -> None:
    env = metarl.envs.load_family(family, {"dynamics": "gymnasium"}).make()
    env.reset(seed=0, options={"task": np.array(task)})
    batch = env.unwrapped.world.batch

    def torso() -> float:
        # Ant-v5 reads the torso's derived position, which is that of the last RK4 stage
        ant = family.startswith("ant")
        return float(batch.bind("xpos")[0, 1, 0] if ant else batch.bind("qpos")[0, 0])

    before = torso()
    _, reward, *_ = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
    velocity = (torso() - before) / 0.05
    assert reward == pytest.approx(reward_of(velocity, batch.bind("qpos")[0, :2]))


def test_a_fallen_ant_is_done_and_a_half_cheetah_never_is() -> None:
    env = metarl.envs.ant_direction("gymnasium").make()
    env.reset(seed=0, options={"task": np.array([1.0])})
    env.unwrapped.world.batch.bind("qpos")[0, 2] = 5.0
    assert env.step(np.zeros(8, dtype=np.float32))[2]
    cheetah = metarl.envs.half_cheetah_direction("gymnasium").make()
    cheetah.reset(seed=0, options={"task": np.array([1.0])})
    cheetah.unwrapped.world.batch.bind("qpos")[0, 1] = 5.0
    assert not cheetah.step(np.zeros(6, dtype=np.float32))[2]


def test_an_unstable_simulation_terminates_or_is_an_error() -> None:
    ant = metarl.envs.ant_direction("gymnasium").make()
    ant.reset(seed=0, options={"task": np.array([1.0])})
    ant.unwrapped.world.batch.bind("qvel")[0] = np.nan
    observation, reward, terminated, *_ = ant.step(np.zeros(8, dtype=np.float32))
    assert terminated
    assert reward == 0.0
    assert np.isfinite(observation).all()
    cheetah = metarl.envs.half_cheetah_direction("gymnasium").make()
    cheetah.reset(seed=0, options={"task": np.array([1.0])})
    cheetah.unwrapped.world.batch.bind("qvel")[0] = np.nan
    with pytest.raises(FloatingPointError, match="became unstable"):
        cheetah.step(np.zeros(6, dtype=np.float32))


@pytest.mark.parametrize("dynamics", ["paper", "gymnasium"])
def test_a_half_cheetah_at_an_impossible_velocity_is_an_error(dynamics: str) -> None:
    envs = metarl.envs.half_cheetah_velocity(dynamics).make_vec(3)
    envs.reset(seed=0, options={"task": np.array([[0.5], [1.0], [1.5]])})
    envs.world.batch.bind("qvel")[1] = 1e5
    with pytest.raises(FloatingPointError, match=r"sub-environment 1 of 3 .* 'run at 1.00 m/s'"):
        envs.step(np.zeros((3, 6), dtype=np.float32))


@pytest.mark.parametrize("dynamics", ["paper", "gymnasium"])
@pytest.mark.parametrize("speed", [1e3, 1e6, 1e9])
def test_an_ant_at_an_impossible_velocity_terminates_without_reward(
    dynamics: str, speed: float
) -> None:
    envs = metarl.envs.ant_direction(dynamics).make_vec(3)
    envs.reset(seed=0, options={"task": np.array([1.0])})
    noise = np.random.default_rng(0).standard_normal(14)
    envs.world.batch.bind("qvel")[1] = speed * noise
    observation, reward, terminated, *_ = envs.step(np.zeros((3, 8), dtype=np.float32))
    assert terminated.tolist() == [False, True, False]
    assert reward[1] == 0.0
    assert (observation[1] == 0.0).all()
    assert observation[[0, 2]].any(axis=1).all()
    fresh, _ = envs.reset(seed=0)
    assert fresh[1].any()


@pytest.mark.slow
def test_bang_bang_control_stays_far_below_the_velocity_limit() -> None:
    rng = np.random.default_rng(0)
    for family in (metarl.envs.half_cheetah_direction, metarl.envs.ant_direction):
        for dynamics in ("paper", "gymnasium"):
            envs = metarl.envs.BatchedEnv(family(dynamics), 16)
            envs.reset(seed=0, options={"task": np.array([1.0])})
            fastest = 0.0
            for step in range(200):
                if step % 4 == 0:
                    actions = np.sign(rng.standard_normal(envs.action_space.shape))
                envs.step(actions)
                fastest = max(fastest, np.abs(envs.world.batch.bind("qvel")).max())
            assert fastest < MAX_VELOCITY / 10


def test_the_floor_is_rendered_however_far_a_robot_ran() -> None:
    env = metarl.envs.half_cheetah_direction("gymnasium").make(render_mode="rgb_array")
    env.reset(seed=0, options={"task": np.array([1.0])})
    env.unwrapped.world.batch.bind("qpos")[0, 0] = 100.0
    env.step(np.zeros(6, dtype=np.float32))
    below = env.render()[300:]  # black and white squares
    assert below.min() < 30
    assert below.max() > 180
    env.close()


@pytest.mark.parametrize("robot", [HalfCheetah("paper"), Ant("paper")], ids=["cheetah", "ant"])
def test_the_papers_initial_noise_is_normal_and_drawn_from_the_generator(robot) -> None:
    model, rng, same = robot.model(), np.random.default_rng(0), np.random.default_rng(0)
    starts = [robot.start(model, rng) for _ in range(2000)]
    initial_qpos = robot.initial_qpos(model)
    for qpos, qvel in starts[:3]:  # positions first, then velocities
        np.testing.assert_array_equal(qpos, initial_qpos + 0.01 * same.standard_normal(model.nq))
        np.testing.assert_array_equal(qvel, 0.1 * same.standard_normal(model.nv))
    positions, velocities = (np.array(values) for values in zip(*starts, strict=True))
    np.testing.assert_allclose(positions.mean(axis=0), initial_qpos, atol=0.001)
    np.testing.assert_allclose(positions.std(axis=0), 0.01, rtol=0.08)
    np.testing.assert_allclose(velocities.mean(axis=0), 0.0, atol=0.01)
    np.testing.assert_allclose(velocities.std(axis=0), 0.1, rtol=0.08)
    assert (np.abs(positions - initial_qpos) > 0.02).any()  # no uniform noise of this deviation


@pytest.mark.parametrize("family", ["half-cheetah-direction", "ant-direction"])
def test_the_initial_state_depends_only_on_the_generator(family: str) -> None:
    env = metarl.envs.load_family(family).make()
    env.reset(seed=7, options={"task": np.array([1.0])})
    world, rng = env.unwrapped.world, np.random.default_rng(7)
    qpos, qvel = world.robot.start(world.batch.model, rng)
    np.testing.assert_array_equal(world.batch.bind("qpos")[0], qpos)
    np.testing.assert_array_equal(world.batch.bind("qvel")[0], qvel)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("speed", "stable"), [(999.0, True), (1000.0, False), (1001.0, False)])
@pytest.mark.parametrize("other_state", ["at rest", "unstable"])
def test_a_simulation_is_unstable_from_a_velocity_of_1000_in_either_direction(
    sign: float, speed: float, stable: bool, other_state: str
) -> None:
    family = metarl.envs.half_cheetah_direction()
    batch = family.world(3).batch
    batch.bind("qvel")[1, 4] = sign * speed
    if other_state == "unstable":  # then each simulation is tested by itself
        batch.bind("qvel")[2] = np.nan
    assert is_stable(batch).tolist() == [True, stable, other_state == "at rest"]


def test_the_physics_has_as_many_threads_as_the_world_the_family_or_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("metarl.envs.mujoco_world.processors", lambda: 5)
    for factory in (
        metarl.envs.half_cheetah_velocity,
        metarl.envs.half_cheetah_direction,
        metarl.envs.ant_velocity,
        metarl.envs.ant_direction,
        metarl.envs.ant_goal,
    ):
        assert factory().world(8).batch.nthread == 5
        assert factory().releases_gil
        family = factory(num_threads=3)
        assert family.num_threads == 3
        assert not family.releases_gil
        assert family.world(8).batch.nthread == 3
        assert family.world(8, num_threads=2).batch.nthread == 2
        assert family.make().unwrapped.world.batch.nthread == 1
        assert metarl.envs.BatchedEnv(family, 8).world.batch.nthread == 3
    with pytest.raises(ValueError, match="num_threads must not be negative"):
        metarl.envs.ant_goal(num_threads=-1)


def test_goals_are_described_by_both_coordinates() -> None:
    assert PointNavigation().describe(np.array([0.25, -0.5])) == "reach (+0.25, -0.50)"
    assert metarl.envs.ant_goal().describe(np.array([1.0, -2.5])) == "reach (+1.00, -2.50)"
