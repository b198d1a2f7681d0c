"""A world of MuJoCo simulations, stepped by mujoco.batch on a thread pool."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from metarl.envs.rendering import SceneRenderer
from metarl.envs.task_rewards import TaskReward
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask
from metarl.threads import processors

# m/s and rad/s. Joints reach 36 under random bang-bang control. Beyond this limit MuJoCo's solver
# has diverged, and the state would no longer be finite after a few more steps.
MAX_VELOCITY = 1000.0

Sensors = TypeVar("Sensors")


class Motion(NamedTuple):
    """The motion of a step: forward velocity (num,), m/s, and position (num, 2), m."""

    velocity: Floats
    position: Floats


class Robot(Protocol[Sensors]):
    """A robot: its model, sensors, observations and the rewards that do not depend on the task."""

    @property
    def frame_skip(self) -> int:
        """Physics steps per environment step."""

    @property
    def stage(self) -> mujoco.mjtStage:
        """The stages that MuJoCo computes at the new state, after the last physics step."""

    @property
    def control_cost(self) -> float:
        """The weight of ‖a‖² in the reward."""

    def model(self) -> mujoco.MjModel:
        """Compile the model."""

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Sample the initial qpos (nq,) and qvel (nv,)."""

    def reference(self, batch: Batch) -> Floats:
        """The state before a step that `motion` needs: a copy (num, ·), not a view."""

    def sense(self, batch: Batch) -> Sensors:
        """Quantities of the new state that the methods below share, computed once per step."""

    def motion(self, batch: Batch, sensors: Sensors, before: Floats, dt: float) -> Motion:
        """The motion since `before`, which `reference` returned."""

    def survival(self, batch: Batch, sensors: Sensors) -> tuple[Floats | float, Mask]:
        """The survival bonus after contact costs (num,), and terminated (num,).

        A robot that can terminate must do so where `is_stable` is false.
        """

    def observe(self, batch: Batch, sensors: Sensors) -> Floats:
        """Observations, a new array (num, S)."""


class CachedBatch(Batch):  # type: ignore[misc] # mujoco has no types
    """A batch that caches its fields, which are views of arrays that do not move."""

    def __init__(self, model: mujoco.MjModel, num: int, num_threads: int) -> None:
        self._views: dict[str, Floats] = {}
        super().__init__(model, num, num_threads)

    def bind(self, name: str) -> Floats:
        """See `Batch.bind`."""
        if name not in self._views:
            self._views[name] = super().bind(name)
        return self._views[name]


def is_stable(batch: Batch) -> Mask:
    """Whether the velocities of each simulation are finite and below `MAX_VELOCITY`, (num,)."""
    qvel = batch.bind("qvel")
    if qvel.max() < MAX_VELOCITY and qvel.min() > -MAX_VELOCITY:  # false if any is NaN
        return np.ones(len(qvel), dtype=bool)
    stable: Mask = (np.abs(qvel) < MAX_VELOCITY).all(axis=1)
    return stable


class MujocoWorld:
    """Simulations of a robot; see `metarl.envs.world.World`.

    Actions are clipped to [−1, 1] and applied to the actuators:

        reward = task reward + survival bonus − control_cost · ‖clipped action‖²
    """

    def __init__(
        self, robot: Robot[Any], task_reward: TaskReward, num: int, num_threads: int
    ) -> None:
        self.robot = robot
        self.task_reward = task_reward
        model = robot.model()
        # MuJoCo would silently reset an unstable simulation to qpos0; `step` reports it instead
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.batch = CachedBatch(model, num, num_threads)
        self.tasks: Floats = np.zeros((num, task_reward.task_size))
        self.dt = model.opt.timestep * robot.frame_skip
        self.fps = round(1.0 / self.dt)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (model.nu,), np.float32)
        self._sensors = robot.sense(self.batch)
        size = robot.observe(self.batch, self._sensors).shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        # MuJoCo fills a derived field from the first call after it was bound: bind all of them now
        robot.motion(self.batch, self._sensors, robot.reference(self.batch), self.dt)
        robot.survival(self.batch, self._sensors)
        self.batch.forward()
        self._unstable: Mask = np.zeros(num, dtype=bool)
        self._renderer: SceneRenderer | None = None

    def reset(self, selected: Mask, rng: Callable[[int], np.random.Generator]) -> None:
        """Set the selected simulations to initial states that the robot samples."""
        self.batch.reset(selected, stage=mujoco.mjtStage.mjSTAGE_NONE)
        qpos, qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        for index in np.flatnonzero(selected):
            qpos[index], qvel[index] = self.robot.start(self.batch.model, rng(int(index)))
        self.batch.forward(selected)
        self._sensors = self.robot.sense(self.batch)
        self._unstable[selected] = False

    def advance(self, active: Mask) -> Motion:
        """Simulate one environment step, without reward."""
        before = self.robot.reference(self.batch)
        self.batch.step(active, nstep=self.robot.frame_skip, stage=self.robot.stage)
        self._sensors = self.robot.sense(self.batch)
        return self.robot.motion(self.batch, self._sensors, before, self.dt)

    def step(
        self, actions: NDArray[Any], active: Mask, rng: Callable[[int], np.random.Generator]
    ) -> tuple[Floats, Mask]:
        """Advance the active simulations by one environment step.

        Raises:
            FloatingPointError: if a simulation is unstable and its robot does not terminate.
        """
        clipped = np.clip(actions, -1.0, 1.0)
        self.batch.bind("ctrl")[:] = clipped
        motion = self.advance(active)
        survival, terminated = self.robot.survival(self.batch, self._sensors)
        # in the precision of the actions, as gymnasium does: rewards are equal to the bit
        cost = self.robot.control_cost * np.square(clipped).sum(axis=-1)
        progress = self.task_reward.reward(self.tasks, motion.velocity, motion.position)
        rewards = progress + survival - cost
        self._unstable = ~(is_stable(self.batch) & np.isfinite(rewards))
        if self._unstable.any():
            self._check_terminated(terminated)
            rewards[self._unstable] = 0.0  # computed from a diverged state
        return rewards, terminated

    def _check_terminated(self, terminated: Mask) -> None:
        for index in np.flatnonzero(self._unstable & ~terminated):
            raise FloatingPointError(
                f"the simulation of sub-environment {index} of {len(terminated)} became unstable "
                f"on the task '{self.task_reward.describe(self.tasks[index])}' at "
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
        caption = self.task_reward.describe(task)
        return self._renderer.render(data, self.task_reward.marker, task, caption)

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
    """

    robot: Robot[Any]
    task_reward: TaskReward
    horizon: int = 200
    num_threads: int = 0

    def __post_init__(self) -> None:
        self.check_horizon()
        if self.num_threads < 0:
            raise ValueError(f"num_threads must not be negative, not {self.num_threads}")

    @property
    def task_size(self) -> int:
        """T."""
        return self.task_reward.task_size

    @property
    def releases_gil(self) -> bool:
        """Whether tasks may be sampled in chunks, on one thread each.

        The physics releases the GIL. If `num_threads` is set, one batch uses that many instead.
        """
        return self.num_threads == 0

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        return self.task_reward.sample(rng, num_tasks)

    def describe(self, task: Floats) -> str:
        return self.task_reward.describe(task)

    def world(self, num: int, num_threads: int = 0) -> MujocoWorld:
        threads = num_threads or self.num_threads or processors()
        return MujocoWorld(self.robot, self.task_reward, num, threads)
