"""A hopper whose mass, friction and gravity differ by task, of a user."""

from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from metarl.envs import BatchedEnv, check_family, half_cheetah_velocity, vectorise
from metarl.envs.half_cheetah import HalfCheetah
from metarl.envs.model_variation import RandomScales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.robot import Robot, is_stable
from metarl.envs.task_rewards import RunForward, TargetVelocity

ASSETS = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"


class Hopper(Robot[None]):
    """The hopper of the "rand-params" benchmarks."""

    frame_skip = 4
    control_cost = 1e-3

    def model(self):
        return mujoco.MjModel.from_xml_path(str(ASSETS / "hopper.xml"))

    def survival(self, batch, sensors):
        height, pitch = batch.bind("qpos")[:, 1], batch.bind("qpos")[:, 2]
        healthy = (height > 0.7) & (np.abs(pitch) < 0.2) & is_stable(batch)
        return 1.0, ~healthy

    def observe(self, batch, sensors):
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        return np.concatenate([qpos[:, 1:], np.clip(qvel, -10.0, 10.0)], axis=1)


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


def test_fields_that_a_robot_depends_on_cannot_vary() -> None:
    for name, possible in (("geom_friction", True), ("body_mass", False)):
        variation = RandomScales({name: 1.5})
        family = MujocoFamily(HalfCheetah("paper"), RunForward(), variation=variation)
        env = family.make()
        if possible:
            env.reset(seed=0)
        else:
            with pytest.raises(ValueError, match="body_mass cannot vary: constants of HalfCheetah"):
                env.reset(seed=0)
    with pytest.raises(ValueError, match="largest factor of body_mass must exceed 1"):
        RandomScales({"body_mass": 0.5})


@pytest.mark.slow
def test_images_of_a_family_without_a_goal_have_a_caption() -> None:
    env = random_hopper().make(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().std() > 0.0
    env.close()
