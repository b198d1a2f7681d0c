"""A world of MuJoCo simulations, stepped by mujoco.batch on a thread pool."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from metarl.envs.model_variation import RandomScales
from metarl.envs.rendering import SceneRenderer
from metarl.envs.robot import MAX_VELOCITY, Motion, Robot, is_stable
from metarl.envs.task_rewards import TaskReward
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask, SimulationRng
from metarl.threads import check_num_threads, processors


class CachedBatch(Batch):  # type: ignore[misc] # mujoco has no types
    """A batch that caches its fields, which are views of arrays that do not move, and indices."""

    def __init__(self, model: mujoco.MjModel, num: int, num_threads: int) -> None:
        self._views: dict[str, Floats] = {}
        self._indices: dict[tuple[str, str], int] = {}
        # MuJoCo would silently reset an unstable simulation to qpos0; worlds report it instead
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        super().__init__(model, num, num_threads)

    def bind(self, name: str) -> Floats:
        """See `Batch.bind`."""
        if name not in self._views:
            self._views[name] = super().bind(name)
        return self._views[name]

    def index(self, kind: str, name: str) -> int:
        """The index of a "body", "geom" or "site" of the model."""
        if (kind, name) not in self._indices:
            self._indices[kind, name] = getattr(self.model, kind)(name).id
        return self._indices[kind, name]


class MujocoWorld:
    """Simulations of a robot; see `metarl.envs.world.World`.

    Actions are clipped to [−1, 1] and scaled to the ranges of the actuators:

        reward = task reward + survival bonus − control_cost · ‖clipped action‖²

    With a `variation`, a task (T,) holds the parameters of the reward, then those of the model.
    """

    def __init__(self, family: "MujocoFamily", num: int, num_threads: int) -> None:
        self.family = family
        self.robot = robot = family.robot
        model = robot.model()
        self.batch = CachedBatch(model, num, num_threads)
        self.tasks: Floats = np.zeros((num, family.task_size))
        # the parameters that each simulation's model has; NaN differs from any
        self._model_params: Floats = np.full_like(self.family.model_params(self.tasks), np.nan)
        self.dt = model.opt.timestep * robot.frame_skip
        self.fps = round(1.0 / self.dt)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (model.nu,), np.float32)
        is_limited = model.actuator_ctrllimited[:, None].astype(bool)
        low, high = np.where(is_limited, model.actuator_ctrlrange, (-1.0, 1.0)).T
        self._control_centre, self._control_scale = (high + low) / 2, (high - low) / 2
        self._sensors = robot.sense(self.batch)
        size = robot.observe(self.batch, self._sensors).shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        # MuJoCo fills a derived field from the first call after it was bound: bind all of them now
        robot.motion(self.batch, self._sensors, robot.reference(self.batch), self.dt)
        robot.survival(self.batch, self._sensors)
        self.batch.forward()
        self._unstable: Mask = np.zeros(num, dtype=bool)
        self._renderer: SceneRenderer | None = None

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Set the selected simulations to initial states that the robot samples."""
        if self.family.variation is not None:
            self._update_models(selected, self.family.variation)
        self.batch.reset(selected, stage=mujoco.mjtStage.mjSTAGE_NONE)
        qpos, qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        for index in np.flatnonzero(selected):
            qpos[index], qvel[index] = self.robot.start(self.batch.model, rng(int(index)))
        self.batch.forward(selected)
        self._sensors = self.robot.sense(self.batch)
        self._unstable[selected] = False

    def _update_models(self, selected: Mask, variation: RandomScales) -> None:
        """Write the model fields of the selected simulations whose task has changed."""
        params = self.family.model_params(self.tasks)
        changed = selected & (self._model_params != params).any(axis=1)
        if not changed.any():
            return
        self._model_params[changed] = params[changed]
        for name, values in variation.fields(self.batch.model, params[changed]).items():
            # `expand` gives every simulation a copy of the field at the first call
            self.batch.expand(name)[changed] = values
        # body_subtreemass, dof_invweight0 and other constants follow from masses and inertias
        if variation.set_const:
            self.batch.set_const(changed)

    def advance(self, active: Mask) -> Motion:
        """Simulate one environment step, without reward."""
        before = self.robot.reference(self.batch)
        self.batch.step(active, nstep=self.robot.frame_skip, stage=self.robot.stage)
        self._sensors = self.robot.sense(self.batch)
        return self.robot.motion(self.batch, self._sensors, before, self.dt)

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Advance the active simulations by one environment step.

        Raises:
            FloatingPointError: if a simulation is unstable and its robot does not terminate.
        """
        clipped = np.clip(actions, -1.0, 1.0)
        self.batch.bind("ctrl")[:] = self._control_centre + self._control_scale * clipped
        motion = self.advance(active)
        survival, terminated = self.robot.survival(self.batch, self._sensors)
        # in the precision of the actions, as gymnasium does: rewards are equal to the bit
        cost = self.robot.control_cost * np.square(clipped).sum(axis=-1)
        params = self.family.reward_params(self.tasks)
        task_rewards = self.family.task_reward.reward(params, motion.velocity, motion.position)
        rewards = task_rewards + survival - cost
        self._unstable = ~(is_stable(self.batch) & np.isfinite(rewards))
        if self._unstable.any():
            self._check_terminated(terminated)
            rewards[self._unstable] = 0.0  # computed from a diverged state
        return rewards, terminated

    def _check_terminated(self, terminated: Mask) -> None:
        for index in np.flatnonzero(self._unstable & ~terminated):
            raise FloatingPointError(
                f"the simulation of sub-environment {index} of {len(terminated)} became unstable "
                f"on the task '{self.family.describe(self.tasks[index])}' at "
                f"{self.batch.bind('time')[index].item():.2f} s of its episode: a velocity is not "
                f"finite or exceeds {MAX_VELOCITY:.0f} m/s or rad/s; lower the policy's step size"
            )

    def observe(self) -> Floats:
        """Observations (num, S); zeros where a simulation is unstable."""
        observations = self.robot.observe(self.batch, self._sensors)
        if self._unstable.any():
            observations[self._unstable] = 0.0
        return observations

    def render(self, index: int) -> Frame:
        """An image of the robot and of its task; the camera follows the robot."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.batch.model)
        data = self.batch.get_data(index)
        task = self.tasks[index]
        caption = self.family.describe(task)
        return self._renderer.render(data, self.family.task_reward.marker, task, caption)

    def close(self) -> None:
        """Release the renderer's graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


@dataclass(frozen=True)
class MujocoFamily(NativeTaskFamily):
    """A task family of one robot in MuJoCo.

    Attributes:
        robot: the robot.
        task_reward: the tasks and the reward that depends on them.
        horizon: H.
        num_threads: threads of the physics; 0 uses all processors of this process.
        variation: how the model differs by task, if it does.
    """

    robot: Robot[Any]
    task_reward: TaskReward
    horizon: int = 200
    num_threads: int = 0
    variation: RandomScales | None = None

    def __post_init__(self) -> None:
        self.check_horizon()
        check_num_threads(self.num_threads)
        if self.variation is not None:
            params = np.zeros((1, self.variation.size(self._model)))
            fields = self.variation.fields(self._model, params)
            for name in self.robot.fixed_fields:
                if name in fields:
                    message = f"{name} cannot vary: constants of {self.robot} depend on it"
                    raise ValueError(message)

    @property
    def task_size(self) -> int:
        size = 0 if self.variation is None else self.variation.size(self._model)
        return self.task_reward.task_size + size

    @cached_property
    def _model(self) -> mujoco.MjModel:
        return self.robot.model()

    def reward_params(self, tasks: Floats) -> Floats:
        """The part (..., R) of tasks (..., T) that the reward depends on."""
        return tasks[..., : self.task_reward.task_size]

    def model_params(self, tasks: Floats) -> Floats:
        """The part (..., V) of tasks (..., T) that the model depends on."""
        return tasks[..., self.task_reward.task_size :]

    @property
    def releases_gil(self) -> bool:
        """Whether tasks may be sampled in chunks, on one thread each.

        The physics releases the GIL. If `num_threads` is set, one batch uses that many instead.
        """
        return self.num_threads == 0

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        tasks = self.task_reward.sample(rng, num_tasks)
        if self.variation is None:
            return tasks
        return np.hstack([tasks, self.variation.sample(self._model, rng, num_tasks)])

    def validate_task(self, task: Floats) -> None:
        validate = getattr(self.task_reward, "validate_task", None)
        if validate is not None:
            validate(self.reward_params(task))

    def describe(self, task: Floats) -> str:
        goal = self.task_reward.describe(self.reward_params(task))
        if self.variation is None:
            return goal
        return f"{goal}, {self.variation.describe(self.model_params(task))}"

    def world(self, num: int, num_threads: int = 0) -> MujocoWorld:
        threads = num_threads or self.num_threads or processors()
        return MujocoWorld(self, num, threads)
