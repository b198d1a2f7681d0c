"""Families whose dynamics differ by task, against separate models and slow episodes."""

import mujoco
import numpy as np
import pytest
from gymnasium.utils import seeding

from metarl.envs import BatchedEnv, check_family, half_cheetah_velocity, load_family, vectorise
from metarl.envs.half_cheetah import HalfCheetah
from metarl.envs.model_variation import RandomScales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.rand_params import Hopper
from metarl.envs.task_rewards import RunForward, TargetVelocity
from metarl.errors import UserError


def random_hopper(elementwise=False, horizon=100, num_threads=0, set_const=True):
    bases = {"body_mass": 2.0, "geom_friction": 2.0, "dof_damping": 1.5, "opt.gravity": 1.2}
    variation = RandomScales(bases, elementwise, set_const)
    return MujocoFamily(Hopper(), RunForward(), horizon, num_threads, variation)


def separate_model(family: MujocoFamily, task: np.ndarray) -> mujoco.MjModel:
    """A model with the parameters of a task, written by hand."""
    model, scales = family.robot.model(), np.exp(task)
    for field in (model.body_mass, model.geom_friction, model.dof_damping, model.opt.gravity):
        size = field.size if family.variation.elementwise else 1
        field *= scales[:size].reshape(field.shape if size > 1 else ())
        scales = scales[size:]
    if family.variation.set_const:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("set_const", [True, False])
@pytest.mark.parametrize("elementwise", [True, False])
def test_each_simulation_equals_a_separate_model_for_an_episode(
    elementwise: bool, set_const: bool, num_threads: int
) -> None:
    family = random_hopper(elementwise, num_threads=num_threads, set_const=set_const)
    rng, num = np.random.default_rng(0), 4
    world = family.world(num)
    active = np.ones(num, dtype=bool)
    for _ in range(2):  # the second episode has other tasks
        world.tasks[:] = family.sample_tasks(rng, num)
        world.reset(active, lambda index: np.random.default_rng(index))
        models = [separate_model(family, task) for task in world.tasks]
        datas = [mujoco.MjData(model) for model in models]
        qpos, qvel = world.batch.bind("qpos"), world.batch.bind("qvel")
        for index, data in enumerate(datas):
            data.qpos[:], data.qvel[:] = qpos[index], qvel[index]
            mujoco.mj_forward(models[index], data)
        for _ in range(family.horizon):
            actions = rng.uniform(-1.0, 1.0, (num, 3))
            world.step(actions, active, None)
            for index, (model, data) in enumerate(zip(models, datas, strict=True)):
                data.ctrl[:] = actions[index]
                mujoco.mj_step(model, data, nstep=family.robot.frame_skip)
                assert (qpos[index] == data.qpos).all()
                assert (qvel[index] == data.qvel).all()
    plain = family.robot.model()
    assert (world.batch.expanded("body_mass")[:, 1:] != plain.body_mass[1:]).all()
    derived = world.batch.expanded("body_subtreemass")  # a constant that mj_setConst computes
    assert set_const == (derived is not None and (derived[:, 1] != plain.body_subtreemass[1]).all())


@pytest.mark.parametrize("elementwise", [True, False])
def test_varying_dynamics_are_equal_in_single_and_vector_environments(elementwise: bool) -> None:
    family = random_hopper(elementwise, horizon=15)
    check_family(family)
    native, reference = BatchedEnv(family, 3), vectorise(family.make, 3)
    rng = np.random.default_rng(0)
    for episode in range(6):
        mask = np.ones(3, dtype=bool) if episode == 0 else rng.permutation([True, False, True])
        options = {"task": family.sample_tasks(rng, 3), "reset_mask": mask}
        results = [envs.reset(seed=[7, 8, 9], options=options)[0] for envs in (native, reference)]
        np.testing.assert_array_equal(*results)
        for _ in range(20):  # across autoresets, which apply the tasks of the other environments
            actions = rng.uniform(-1.0, 1.0, (3, 3)).astype(np.float32)
            pairs = zip(native.step(actions)[:4], reference.step(actions)[:4], strict=True)
            for actual, expected in pairs:
                np.testing.assert_array_equal(actual, expected)


def test_a_model_changes_when_its_simulation_is_reset_and_not_before() -> None:
    world = random_hopper().world(2)

    def rngs(index: int) -> np.random.Generator:
        return np.random.default_rng(index)

    world.reset(np.array([True, True]), rngs)
    masses = world.batch.expanded("body_mass")
    original = masses.copy()
    world.tasks[:] = np.log(1.5)
    world.reset(np.array([True, False]), rngs)
    np.testing.assert_allclose(masses[0], 1.5 * original[0])
    np.testing.assert_array_equal(masses[1], original[1])
    world.reset(np.array([False, True]), rngs)
    np.testing.assert_allclose(masses[1], 1.5 * original[1])


def test_parameters_are_log_scales_within_their_limits() -> None:
    for elementwise, size in ((False, 4), (True, 5 + 5 * 3 + 6 + 3)):
        family = random_hopper(elementwise)
        assert family.task_size == size
        tasks = family.sample_tasks(np.random.default_rng(0), 2000)
        limits = np.log([2.0, 1.2])
        np.testing.assert_allclose(np.abs(tasks[:, [0, -1]]).max(axis=0), limits, rtol=0.01)
        np.testing.assert_allclose(tasks.mean(axis=0), 0.0, atol=0.05)
    task = np.log([2.0, 0.5, 1.0, 1.1])
    expected = "run forward, body_mass x 2.00, geom_friction x 0.50, dof_damping x 1.00"
    assert random_hopper().describe(task) == f"{expected}, opt.gravity x 1.10"


def test_a_task_may_hold_a_goal_and_the_dynamics() -> None:
    variation = RandomScales({"body_mass": 1.5})
    robot, goal = HalfCheetah("gymnasium"), TargetVelocity(0.0, 2.0)
    varied = MujocoFamily(robot, goal, 20, variation=variation)
    check_family(varied)
    plain = half_cheetah_velocity("gymnasium", horizon=20)
    envs, reference = varied.make(), plain.make()
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (20, 6)).astype(np.float32)
    for log_scale in (0.4, 0.0):  # back to the original model
        envs.reset(seed=1, options={"task": np.array([1.3, log_scale])})
        reference.reset(seed=1, options={"task": np.array([1.3])})
        rewards = np.array([(envs.step(a)[1], reference.step(a)[1]) for a in actions])
        assert (rewards[:, 0] == rewards[:, 1]).all() == (log_scale == 0.0)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (
            {"body_mass": 1.5},
            r"body_mass cannot vary: constants of HalfCheetah\(dynamics='paper'\)",
        ),
        ({"opt.timestep": 1.5}, r"opt\.timestep cannot vary"),
        ({"geom_frictoin": 1.5}, "no field of real numbers 'geom_frictoin' .did you mean 'geom_fr"),
        ({"nbody": 1.5}, "no field of real numbers 'nbody'"),
        ({"opt.wind": 1.5}, r"opt\.wind is 0 in this model"),
        ({"geom_friction": 0.5}, "largest factor of geom_friction must exceed 1, not 0.5"),
        ({"geom_friction": "2"}, "largest factor of geom_friction must exceed 1, not '2'"),
        ({"geom_friction": float("inf")}, "largest factor of geom_friction must exceed 1, not inf"),
        (2.0, r"scales must map fields to their largest factors, not 2\.0"),
    ],
)
def test_scales_that_cannot_vary_are_an_error_at_construction(scales, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_family("half-cheetah-velocity", {"scales": scales})


@pytest.mark.parametrize("name", ["ant-direction", "half-cheetah-direction", "humanoid-direction"])
def test_any_family_of_a_robot_varies_its_model_by_settings(name: str) -> None:
    scales = {"actuator_gear": 2.0, "opt": {"gravity": 1.2}}  # as `--set` nests opt.gravity
    family = load_family(name, {"scales": scales, "horizon": 5})
    check_family(family, num_envs=2)
    assert family.task_size == 3
    tasks = family.sample_tasks(np.random.default_rng(0), 500)
    assert (np.abs(tasks[:, 1:]).max(0) < np.log([2.0, 1.2])).all()
    assert "actuator_gear x 2.00, opt.gravity x 0.90" in family.describe(
        np.array([1.0, np.log(2.0), np.log(0.9)])
    )


FIELDS = {
    "walker-rand-params": ("body_mass", "body_inertia", "dof_damping", "geom_friction"),
    "hopper-rand-params": ("body_mass", "body_inertia", "dof_damping", "geom_friction"),
    "half-cheetah-rand-params": ("body_mass", "dof_damping"),
    "humanoid-direction": (),
}


def slow_episode(name: str, settings: dict, task: np.ndarray, seed: int, actions: np.ndarray):
    """Observations, rewards and ends of an episode, from MuJoCo's own functions alone."""
    model, scales = load_family(name).robot.model(), np.exp(task)
    kind, *_ = name.split("-")
    for field in FIELDS[name]:
        array = getattr(model, field)
        size = 1 if kind == "half" else array.size
        array *= scales[:size].reshape(array.shape if size > 1 else ())
        scales = scales[size:]
    if FIELDS[name] and settings.get("dynamics") != "published":
        mujoco.mj_setConst(model, mujoco.MjData(model))
    data, (rng, _) = mujoco.MjData(model), seeding.np_random(seed)
    noise = {"half": 0.1, "humanoid": 0.01}.get(kind, 0.005)
    data.qpos += rng.uniform(-noise, noise, model.nq)
    if kind == "half":
        data.qvel += 0.1 * rng.standard_normal(model.nv)
    else:
        data.qvel += rng.uniform(-noise, noise, model.nv)
    mujoco.mj_forward(model, data)
    for action in actions:
        a = np.clip(action, -1.0, 1.0)
        x, centre = data.qpos[0], data.subtree_com[1, :2].copy()
        data.ctrl[:] = a.astype(np.float64) * (0.4 if kind == "humanoid" else 1.0)
        mujoco.mj_step(model, data, nstep=5 if kind in ("half", "humanoid") else 4)
        z, pitch = data.qpos[1:3]
        state = [data.qpos[1:], data.qvel if kind == "half" else data.qvel.clip(-10.0, 10.0)]
        dt = model.opt.timestep * (5 if kind in ("half", "humanoid") else 4)
        velocity, squares = (data.qpos[0] - x) / dt, np.square(a).sum()
        if kind == "half":
            reward, ended = velocity - 0.05 * squares, False
        elif kind == "walker":
            reward, ended = velocity + 1.0 - 1e-3 * squares, not (0.8 < z < 2.0 and abs(pitch) < 1)
        elif kind == "hopper":
            far = max(np.abs(data.qpos[2:]).max(), np.abs(data.qvel).max()) >= 100.0
            reward, ended = velocity + 1.0 - 1e-3 * squares, far or z <= 0.7 or abs(pitch) >= 0.2
        else:
            mujoco.mj_forward(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            fields = (data.qvel, data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
            state = [data.qpos[2:], *(field.ravel() for field in fields)]
            vx, vy = (data.subtree_com[1, :2] - centre) / dt
            forward = 1.25 * (vx * np.cos(task[0]) + vy * np.sin(task[0]))
            contact = min(5e-7 * np.square(data.cfrc_ext).sum(), 10.0)
            reward = forward + (5.0 - contact) - 0.1 * 0.4**2 * squares
            ended = not 1.0 <= data.qpos[2] <= 2.0
        yield np.concatenate(state), reward, ended
        if ended:
            return


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("walker-rand-params", {}),
        ("walker-rand-params", {"dynamics": "published"}),
        ("hopper-rand-params", {"log_scale_limit": 1.0}),
        ("half-cheetah-rand-params", {}),
        ("humanoid-direction", {}),
    ],
)
def test_an_episode_of_each_task_equals_a_slow_one_with_its_own_model(name, settings) -> None:
    family, num, length = load_family(name, {**settings, "horizon": 60}), 4, 60
    rng = np.random.default_rng(0)
    tasks = family.sample_tasks(rng, num)
    envs = family.make_vec(num)
    actions = 1.2 * rng.standard_normal((length, num, *envs.single_action_space.shape))
    actions = actions.astype(np.float32)
    envs.reset(seed=5, options={"task": tasks})
    results = [envs.step(row)[:3] for row in actions]
    lengths = []
    for i in range(num):
        steps = list(slow_episode(name, settings, tasks[i], 5 + i, actions[:, i]))
        lengths.append(len(steps))
        for (observations, rewards, terminated), (observation, reward, ended) in zip(
            results, steps, strict=False
        ):
            np.testing.assert_array_equal(observations[i], observation)
            assert rewards[i] == reward
            assert terminated[i] == ended
    assert (min(lengths) < length) == (name != "half-cheetah-rand-params")


def test_a_heading_rewards_the_velocity_along_it() -> None:
    family = load_family("humanoid-direction")
    velocity = np.array([[3.0, 4.0], [3.0, 4.0]])
    tasks = np.array([[0.0], [np.pi / 2]])
    rewards = family.task_reward.reward(tasks, velocity, velocity)
    np.testing.assert_allclose(rewards, [1.25 * 3.0, 1.25 * 4.0])
    assert family.describe(tasks[1]) == "run at 90 degrees"
    assert 0.0 <= family.sample_tasks(np.random.default_rng(0), 500).min() < 0.1
