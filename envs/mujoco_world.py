"""A world of MuJoCo simulations, stepped by mujoco.batch on a thread pool."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from metarl.envs.objectives import Objective
from metarl.envs.rendering import SceneRenderer
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats, Frame, Mask
from metarl.threads import processors

# m/s and rad/s. The fastest joints reach 36 under the wildest controls; beyond this limit MuJoCo's
# solver has lost the simulation, and in a few steps it would no longer be finite
FASTEST = 1000.0


Sensed = TypeVar("Sensed")


class Motion(NamedTuple):
    """How simulations moved in a step: forward velocity (num,) and position (num, 2)."""

    velocity: Floats
    position: Floats


class Robot(Protocol[Sensed]):
    """The body of a family: its model, what it senses, what moving costs."""

    @property
    def frame_skip(self) -> int:
        """Physics steps in an environment step."""

    @property
    def stage(self) -> mujoco.mjtStage:
        """What MuJoCo computes at the new state, after the last physics step."""

    @property
    def control_cost(self) -> float:
        """The weight of ‖a‖²."""

    def model(self) -> mujoco.MjModel:
        """The compiled model."""

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Initial qpos (nq,) and qvel (nv,), with noise."""

    def reference(self, batch: Batch) -> Floats:
        """What `motion` wants to know of the state before a step: an array (num, ·), not a view."""

    def sense(self, batch: Batch) -> Sensed:
        """What several of the following want to know of a new state: computed once a step."""

    def motion(self, batch: Batch, sensed: Sensed, before: Floats, dt: float) -> Motion:
        """How far the step went."""

    def survival(self, batch: Batch, sensed: Sensed) -> tuple[Floats | float, Mask]:
        """What staying alive is worth, after costs of contact (num,), and who does not (num,).

        A robot that terminates does so as well where `intact` is false.
        """

    def observe(self, batch: Batch, sensed: Sensed) -> Floats:
        """Observations, a new array (num, S)."""


class Simulations(Batch):  # type: ignore[misc] # mujoco has no types
    """A batch whose fields are looked up once: they are views of what stays where it is."""

    def __init__(self, model: mujoco.MjModel, num: int, num_threads: int) -> None:
        self._views: dict[str, Floats] = {}
        super().__init__(model, num, num_threads)

    def bind(self, name: str) -> Floats:
        """See `Batch.bind`."""
        if name not in self._views:
            self._views[name] = super().bind(name)
        return self._views[name]


def intact(batch: Batch) -> Mask:
    """Whether each simulation's velocities are physically possible, (num,)."""
    qvel = batch.bind("qvel")
    if qvel.max() < FASTEST and qvel.min() > -FASTEST:  # false where NaN, too
        return np.ones(len(qvel), dtype=bool)
    possible: Mask = (np.abs(qvel) < FASTEST).all(axis=1)
    return possible


class MujocoWorld:
    """Robots with an objective each; see `metarl.envs.world.World`.

    Actions are clipped to [−1, 1] and applied to the actuators. The reward is the objective's
    progress, plus what survival is worth, minus the cost of control on the clipped action.
    """

    def __init__(self, robot: Robot[Any], objective: Objective, num: int, num_threads: int) -> None:
        self.robot = robot
        self.objective = objective
        model = robot.model()
        # a simulation that breaks down must be seen, not silently put back to its start
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.batch = Simulations(model, num, num_threads)
        self.tasks: Floats = np.zeros((num, objective.task_size))
        self.dt = model.opt.timestep * robot.frame_skip
        self.fps = round(1.0 / self.dt)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (model.nu,), np.float32)
        self._sensed = robot.sense(self.batch)
        size = robot.observe(self.batch, self._sensed).shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        # MuJoCo fills a derived field from the first call after it was asked for, so ask for all
        robot.motion(self.batch, self._sensed, robot.reference(self.batch), self.dt)
        robot.survival(self.batch, self._sensed)
        self.batch.forward()
        self._broken: Mask = np.zeros(num, dtype=bool)
        self._renderer: SceneRenderer | None = None

    def reset(self, selected: Mask, rng: Callable[[int], np.random.Generator]) -> None:
        """Put simulations at a noisy start."""
        self.batch.reset(selected, stage=mujoco.mjtStage.mjSTAGE_NONE)
        qpos, qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        for index in np.flatnonzero(selected):
            qpos[index], qvel[index] = self.robot.start(self.batch.model, rng(int(index)))
        self.batch.forward(selected)
        self._sensed = self.robot.sense(self.batch)
        self._broken[selected] = False

    def advance(self, active: Mask) -> Motion:
        """The physics of a step, and how far it went."""
        before = self.robot.reference(self.batch)
        self.batch.step(active, nstep=self.robot.frame_skip, stage=self.robot.stage)
        self._sensed = self.robot.sense(self.batch)
        return self.robot.motion(self.batch, self._sensed, before, self.dt)

    def step(self, actions: NDArray[Any], active: Mask) -> tuple[Floats, Mask]:
        """One environment step.

        Raises:
            FloatingPointError: if the simulation of a robot that never terminates breaks down:
                its velocities are not finite, or beyond what is physically possible.
        """
        clipped = np.clip(actions, -1.0, 1.0)
        self.batch.bind("ctrl")[:] = clipped
        motion = self.advance(active)
        survival, terminated = self.robot.survival(self.batch, self._sensed)
        # summed in the actions' own precision, as gymnasium's environments do
        cost = self.robot.control_cost * np.square(clipped).sum(axis=-1)
        progress = self.objective.progress(self.tasks, motion.velocity, motion.position)
        rewards = progress + survival - cost
        self._broken = ~(intact(self.batch) & np.isfinite(rewards))
        if self._broken.any():
            self._check_ended(terminated)
            rewards[self._broken] = 0.0  # its episode has ended, and its last reward says nothing
        return rewards, terminated

    def _check_ended(self, terminated: Mask) -> None:
        for index in np.flatnonzero(self._broken & ~terminated):
            raise FloatingPointError(
                f"the simulation of sub-environment {index} of {len(terminated)} broke down on the "
                f"task '{self.objective.describe(self.tasks[index])}' at "
                f"{self.batch.bind('time')[index].item():.2f} s of its episode: a velocity is not "
                f"finite or beyond {FASTEST:.0f} m/s or rad/s, which no real robot reaches"
            )

    def observe(self) -> Floats:
        """Observations (num, S); zeros where a simulation broke down."""
        observations = self.robot.observe(self.batch, self._sensed)
        if self._broken.any():
            observations[self._broken] = 0.0
        return observations

    def render(self, index: int) -> Frame:
        """The robot, followed by the camera, and a marker that shows its task."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.batch.model)
        data = self.batch.get_data(index)
        task = self.tasks[index]
        words = self.objective.describe(task)
        return self._renderer.frame(data, self.objective.marker, task, words)

    def close(self) -> None:
        """Release the renderer's graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


@dataclass(frozen=True)
class MujocoFamily(NativeTaskFamily):
    """A robot, an objective, and how long it has.

    Attributes:
        robot: its body and dynamics.
        objective: what it is asked to do.
        horizon: H.
        num_threads: threads of the physics; 0 for as many as this process has processors.
    """

    robot: Robot[Any]
    objective: Objective
    horizon: int = 200
    num_threads: int = 0

    def __post_init__(self) -> None:
        self.check_horizon()
        if self.num_threads < 0:
            raise ValueError(f"num_threads must not be negative, but is {self.num_threads}")

    @property
    def task_size(self) -> int:
        """T."""
        return self.objective.task_size

    @property
    def divides(self) -> bool:
        """Whether tasks are sampled faster in parts, on threads of their own.

        Physics leaves the interpreter alone; where nobody said how many threads it has, each part
        has one.
        """
        return self.num_threads == 0

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks (num_tasks, T)."""
        return self.objective.sample(rng, num_tasks)

    def describe(self, task: Floats) -> str:
        """One task in words."""
        return self.objective.describe(task)

    def world(self, num: int, num_threads: int = 0) -> MujocoWorld:
        """Simulations of the robot."""
        threads = num_threads or self.num_threads or processors()
        return MujocoWorld(self.robot, self.objective, num, threads)
