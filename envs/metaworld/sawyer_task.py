"""The base class of Meta-World's tasks (Yu et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from metarl.envs.metaworld.scene import Scene
from metarl.envs.world import Floats, Mask


@dataclass(frozen=True)
class Step:
    """A step of n simulations, as rewards see it.

    Attributes:
        scene: the simulations, at the new state.
        observations: (n, 39).
        actions: (n, 4), clipped to [−1, 1].
        start: what `SawyerTask.start` returned of their episodes, and `tcp`.
    """

    scene: Scene
    observations: Floats
    actions: NDArray[Any]
    start: Mapping[str, Floats]

    @property
    def hand(self) -> Floats:
        """Positions, (n, 3)."""
        return self.observations[:, :3]

    @property
    def opening(self) -> Floats:
        """How far the gripper is open, from 0 to 1, (n,)."""
        return self.observations[:, 3]

    @property
    def object(self) -> Floats:
        """Positions of the first object, (n, 3)."""
        return self.observations[:, 4:7]

    @property
    def target(self) -> Floats:
        """Positions, (n, 3)."""
        return self.start["target"]


class SawyerTask:
    """A task of the Sawyer arm; a goal is a vector (P,) of it.

    Attributes:
        name: the name in Meta-World, without its version.
        scene_file: the MuJoCo model, a file of the directory `sawyer_xyz` of Meta-World's assets.
        low: the smallest goal, (P,).
        high: the largest goal, (P,).
        hand_start: the position of the hand at the start of an episode, m.
        single_precision: whether `hand_start` is rounded to single precision, as in the original.
        hand_low: the smallest position that the hand is sent to, m.
        hand_high: the largest one.
    """

    name: ClassVar[str]
    scene_file: ClassVar[str]
    low: ClassVar[tuple[float, ...]]
    high: ClassVar[tuple[float, ...]]
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    single_precision: ClassVar[bool] = False
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.4, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)

    def accepts(self, goal: Floats) -> bool:
        """Whether a goal (P,) drawn between `low` and `high` is one of the task."""
        return True

    def describe(self, goal: Floats) -> str:
        """The name, and a position of the goal (P,) in metres: "reach (+0.05, 0.85, 0.20)"."""
        x, y, z = goal[-3:]
        return f"{self.name} ({x:+.2f}, {y:.2f}, {z:.2f})"

    def bodies(self, goals: Floats) -> Mapping[str, Floats]:
        """Positions (n, 3), relative to the parent, of the bodies that goals (n, P) move."""
        return {}

    def start(self, scene: Scene, goals: Floats) -> dict[str, Floats]:
        """Place the objects, after the hand has come to rest at its start.

        The derived fields are those before the last physics step, unless a method of the scene
        computes them.

        Returns:
            Quantities (n, ...) that `reward` needs. `target` and `object`, (n, 3) each, are the
            goal's position and the object's; the world adds `tcp`, the gripper's.
        """
        raise NotImplementedError

    def objects(self, scene: Scene) -> Floats:
        """Position and quaternion of each object, (n, 7) or (n, 14)."""
        raise NotImplementedError

    def reward(self, step: Step) -> tuple[Floats, Mask]:
        """Rewards from 0 to 10 and success, (n,) each."""
        raise NotImplementedError
