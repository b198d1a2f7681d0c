"""The world of Meta-World: Sawyer scenes in mujoco.batch, one batch for each task in use.

Actions move a mocap body that the hand is welded to, by at most 0.01 m a step along each axis, and
close the gripper. Episodes do not terminate, except where a simulation diverges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.envs.metaworld.assets import load_model
from metarl.envs.metaworld.sawyer_task import SawyerTask, Step
from metarl.envs.metaworld.scene import Scene
from metarl.envs.mujoco_world import CachedBatch
from metarl.envs.rendering import SceneRenderer
from metarl.envs.robot import is_stable
from metarl.envs.world import Floats, Frame, Mask, SimulationRng

if TYPE_CHECKING:
    from metarl.envs.metaworld.families import MetaWorld

ACTION_SCALE = 0.01  # m per step
FRAME_SKIP = 5
SETTLING_STEPS = 250
TIMESTEP = 0.0025  # s, of all scenes
HAND_QUATERNION = (1.0, 0.0, 1.0, 0.0)
OPEN_GRIPPER = (-1.0, 1.0)
MAX_OPENING = 0.1  # m between the fingers
FRAME_SIZE = 18  # hand (3), opening of the gripper, position and quaternion of two objects (14)
MAX_STARTS = 10_000  # goals whose initial states a batch keeps
DERIVED_FIELDS = ("xpos", "xquat", "site_xpos", "site_xmat", "geom_xpos", "geom_xmat")


# bounds of the observation: the present frame, the one before, and zeros in place of the goal
UNBOUNDED = (np.inf,) * (FRAME_SIZE - 4)
FRAME_LOW = (-0.525, 0.348, -0.0525, -1.0, *(-bound for bound in UNBOUNDED))
FRAME_HIGH = (0.525, 1.025, 0.7, 1.0, *UNBOUNDED)
LOW = np.array([*FRAME_LOW, *FRAME_LOW, 0.0, 0.0, 0.0])
HIGH = np.array([*FRAME_HIGH, *FRAME_HIGH, 0.0, 0.0, 0.0])


@dataclass(frozen=True)
class Start:
    """The beginning of the episodes of a goal.

    Attributes:
        state: the physics, a row of the batch's states.
        frame: the present half of the observation, (18,).
        quantities: those that the reward needs of the start, by name.
    """

    state: Floats
    frame: Floats
    quantities: dict[str, Floats]


def _stack(frames: Floats, previous: Floats) -> Floats:
    hidden_goal = np.zeros((len(frames), 3))
    return np.hstack([frames, previous, hidden_goal])


class SawyerBatch:
    """Simulations of one task.

    A reset lets the hand settle for 250 physics steps, a tenth of an episode. The result depends on
    the goal alone and is kept, so that only the first episode of a goal takes that time.
    """

    def __init__(self, task: SawyerTask, num: int, num_threads: int) -> None:
        self.task = task
        self.batch = CachedBatch(load_model(task.scene_file), num, num_threads)
        self._starts: dict[bytes, Start] = {}
        self._quantities: dict[str, Floats] = {}
        # MuJoCo fills a derived field from the first call after it was bound: bind all of them now
        for name in DERIVED_FIELDS:
            self.batch.bind(name)

    def reset(self, rows: NDArray[np.intp], goals: Floats) -> Floats:
        """Start episodes with goals (n, P) in n simulations.

        Returns:
            Frames (n, 18).
        """
        if len(self._starts) > MAX_STARTS:
            self._starts.clear()
        keys = [goal.tobytes() for goal in goals]
        missing: dict[bytes, int] = {}
        for at, key in enumerate(keys):
            if key not in self._starts:
                missing.setdefault(key, at)
        if missing:
            chosen = list(missing.values())
            self._settle(rows[chosen], goals[chosen], list(missing))
        self._move_bodies(rows, goals)
        starts = [self._starts[key] for key in keys]
        self.batch.state[rows] = [start.state for start in starts]
        for name, values in self._quantities.items():
            values[rows] = [start.quantities[name] for start in starts]
        return np.stack([start.frame for start in starts])

    def _settle(self, rows: NDArray[np.intp], goals: Floats, keys: list[bytes]) -> None:
        """Compute the starts of n goals in n simulations."""
        batch, scene = self.batch, Scene(self.batch, rows)
        self._move_bodies(rows, goals)
        batch.reset(rows, stage=mujoco.mjtStage.mjSTAGE_NONE)
        hand = np.array(self.task.hand_start, "f4" if self.task.single_precision else "f8")
        batch.bind("mocap_pos")[rows] = hand
        batch.bind("mocap_quat")[rows] = HAND_QUATERNION
        batch.bind("ctrl")[rows] = OPEN_GRIPPER
        batch.step(rows, nstep=SETTLING_STEPS)
        # as in the original, the gripper's position is that before the last physics step
        quantities = {"tcp": scene.tcp()} | self.task.start(scene, goals)
        frames = self._frames(scene)
        for name, values in quantities.items():
            self._quantities.setdefault(name, np.zeros((batch.nsim, *values.shape[1:])))
        for at, key in enumerate(keys):
            own = {name: np.array(values[at]) for name, values in quantities.items()}
            self._starts[key] = Start(batch.state[rows[at]].copy(), frames[at], own)

    def _move_bodies(self, rows: NDArray[np.intp], goals: Floats) -> None:
        for name, positions in self.task.bodies(goals).items():
            # `expand` gives every simulation a copy of the field at the first call
            self.batch.expand("body_pos")[rows, self.batch.index("body", name)] = positions

    def _frames(self, scene: Scene) -> Floats:
        """The present half of the observation, (n, 18)."""
        fingers = scene.body("rightclaw") - scene.body("leftclaw")
        objects = self.task.objects(scene)
        frames = np.zeros((len(objects), FRAME_SIZE))
        frames[:, :3] = scene.body("hand")
        frames[:, 3] = np.clip(np.linalg.norm(fingers, axis=1) / MAX_OPENING, 0.0, 1.0)
        frames[:, 4 : 4 + objects.shape[1]] = objects
        return frames

    def step(
        self, rows: NDArray[np.intp], actions: NDArray[Any], previous: Floats
    ) -> tuple[Floats, Floats, Floats, Mask]:
        """Advance n simulations.

        Args:
            rows: the simulations.
            actions: (n, 4), within [−1, 1].
            previous: the frames before this step, (n, 18).

        Returns:
            Frames (n, 18), observations (n, 39), and rewards and success, (n,) each.
        """
        # the displacement in the precision of the actions, as in the original
        moved = self.batch.bind("mocap_pos")[rows, 0] + actions[:, :3] * ACTION_SCALE
        self.batch.bind("mocap_pos")[rows, 0] = moved.clip(self.task.hand_low, self.task.hand_high)
        self.batch.bind("ctrl")[rows] = actions[:, 3:] * [1.0, -1.0]
        # derived fields at the new state: the original calls mj_forward after its step
        self.batch.step(rows, nstep=FRAME_SKIP, stage=mujoco.mjtStage.mjSTAGE_ACC)
        scene = Scene(self.batch, rows)
        frames = self._frames(scene)
        observations = _stack(frames, previous).clip(LOW, HIGH)
        start = {name: values[rows] for name, values in self._quantities.items()}
        return frames, observations, *self.task.reward(Step(scene, observations, actions, start))

    def target(self, row: int) -> Floats:
        """The position of a simulation's goal, (3,)."""
        position: Floats = self._quantities["target"][row]
        return position


class SawyerWorld:
    """Simulations of Meta-World; see `metarl.envs.world.World`.

    Attributes:
        success: whether the goal is reached at the present state, (num,).
    """

    def __init__(self, family: "MetaWorld", num: int, num_threads: int) -> None:
        self.family = family
        self.num_threads = num_threads
        self.tasks: Floats = np.zeros((num, family.task_size))
        self.success: Mask = np.zeros(num, dtype=bool)
        self.fps = round(1.0 / (TIMESTEP * FRAME_SKIP))
        self.observation_space = gym.spaces.Box(LOW, HIGH, dtype=np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._batches: dict[int, SawyerBatch] = {}
        self._members = np.full(num, -1)  # the index of each simulation's task
        self._observations = np.zeros((num, 2 * FRAME_SIZE + 3))
        self._frames = np.zeros((num, FRAME_SIZE))
        self._renderers: dict[int, SceneRenderer] = {}

    def _groups(self, selected: Mask) -> Iterator[tuple[SawyerBatch, NDArray[np.intp]]]:
        """The batch of each task in use, and those of the selected simulations that it has."""
        for member in np.unique(self._members[selected]):
            if member not in self._batches:
                task = self.family.members[member]
                # with room for all simulations, so that each keeps its index; a simulation that a
                # batch does not step costs some kB
                self._batches[member] = SawyerBatch(task, len(self.tasks), self.num_threads)
            yield self._batches[member], np.flatnonzero(selected & (self._members == member))

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Start episodes; their beginning depends on the task alone."""
        self._members[selected] = self.family.member(self.tasks[selected])
        for batch, rows in self._groups(selected):
            goals = self.family.goals(self.tasks[rows], batch.task)
            self._frames[rows] = batch.reset(rows, goals)
        frames = self._frames[selected]
        self._observations[selected] = _stack(frames, frames)
        self.success[selected] = False

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Advance the active simulations.

        An episode whose simulation diverges terminates with a reward of 0. (The original continues
        from the state to which MuJoCo resets it.)
        """
        clipped = np.clip(actions, -1.0, 1.0)
        rewards, terminated = np.zeros(len(active)), np.zeros(len(active), dtype=bool)
        for batch, rows in self._groups(active):
            frames, observations, reward, success = batch.step(
                rows, clipped[rows], self._frames[rows]
            )
            unstable = ~(is_stable(batch.batch)[rows] & np.isfinite(reward))
            if unstable.any():
                observations[unstable], reward[unstable] = 0.0, 0.0
                success &= ~unstable
            self._frames[rows], self._observations[rows] = frames, observations
            self.success[rows], rewards[rows], terminated[rows] = success, reward, unstable
        return rewards, terminated

    def observe(self) -> Floats:
        return self._observations.copy()

    def render(self, index: int) -> Frame:
        """An image of the table, with the goal as a labelled sphere."""
        member = int(self._members[index])
        batch = self._batches[member]
        if member not in self._renderers:
            self._renderers[member] = SceneRenderer(batch.batch.model)
        data, model = batch.batch.get_data(index), batch.batch.get_model(index)
        caption = self.family.describe(self.tasks[index])
        return self._renderers[member].render_table(model, data, batch.target(index), caption)

    def close(self) -> None:
        """Release the renderers' graphics contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()
