"""The `Robot` base class: a body in MuJoCo, with its observations and task-independent rewards.

A new robot overrides `model` and whatever differs from the defaults, which are those of
gymnasium's locomotion environments.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.world import Floats, Mask

# m/s and rad/s. Joints reach 36 under random bang-bang control. Beyond this limit MuJoCo's solver
# has diverged, and the state would no longer be finite after a few more steps.
MAX_VELOCITY = 1000.0

Sensors = TypeVar("Sensors")
Dynamics = Literal["paper", "gymnasium"]


class Motion(NamedTuple):
    """The motion of a step: velocity, m/s, and position (num, 2), m.

    The velocity is the forward one (num,), or (num, 2) of a robot that runs in any direction.
    """

    velocity: Floats
    position: Floats


def is_stable(batch: Batch) -> Mask:
    """Whether the velocities of each simulation are finite and below `MAX_VELOCITY`, (num,)."""
    qvel = batch.bind("qvel")
    # the common case: two reductions without temporaries
    if qvel.max() < MAX_VELOCITY and qvel.min() > -MAX_VELOCITY:  # false if any is NaN
        return np.ones(len(qvel), dtype=bool)
    stable: Mask = (np.abs(qvel) < MAX_VELOCITY).all(axis=1)
    return stable


class Robot(Generic[Sensors]):
    """Base class of robots. Methods take a batch of `num` simulations.

    Attributes:
        frame_skip: physics steps per environment step.
        control_cost: the weight of ‖a‖² in the reward.
        stage: the stages that MuJoCo computes at the new state, after the last physics step.
            Without them, derived fields such as xpos are one physics step old.
        fixed_fields: model fields that must be the same for all tasks, because the robot or its
            world has constants which depend on them.
    """

    frame_skip: int = 5
    control_cost: float = 0.1
    stage: mujoco.mjtStage = mujoco.mjtStage.mjSTAGE_NONE
    fixed_fields: tuple[str, ...] = ("opt.timestep", "actuator_ctrlrange")

    def model(self) -> mujoco.MjModel:
        """Compile the model."""
        raise NotImplementedError

    def initial_qpos(self, model: mujoco.MjModel) -> Floats:
        """The initial position (nq,) without noise."""
        qpos: Floats = model.qpos0
        return qpos

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Sample the initial qpos (nq,) and qvel (nv,): noise U(−0.1, 0.1) and N(0, 0.1²)."""
        qpos = self.initial_qpos(model) + rng.uniform(-0.1, 0.1, model.nq)
        return qpos, 0.1 * rng.standard_normal(model.nv)

    def sense(self, batch: Batch) -> Sensors:
        """Quantities of the new state that the methods below share, computed once per step."""
        return None  # type: ignore[return-value] # no sensors

    def reference(self, batch: Batch) -> Floats:
        """The state before a step that `motion` needs: a copy (num, ...), not a view."""
        x: Floats = batch.bind("qpos")[:, 0].copy()
        return x

    def motion(self, batch: Batch, sensors: Sensors, before: Floats, dt: float) -> Motion:
        """The motion since `before`, which `reference` returned: Δx / Δt, and (x, 0)."""
        x = batch.bind("qpos")[:, 0]
        position = np.zeros((batch.nsim, 2))
        position[:, 0] = x
        return Motion((x - before) / dt, position)

    def survival(self, batch: Batch, sensors: Sensors) -> tuple[Floats | float, Mask]:
        """The survival bonus after contact costs (num,), and terminated (num,): 0 and never.

        A robot that can terminate must do so where `is_stable` is false.
        """
        return 0.0, np.zeros(batch.nsim, dtype=bool)

    def observe(self, batch: Batch, sensors: Sensors) -> Floats:
        """Observations, a new array (num, S): qpos without x, and qvel."""
        return np.concatenate([batch.bind("qpos")[:, 1:], batch.bind("qvel")], axis=1)


@dataclass(frozen=True)
class PresetRobot(Robot[Any]):
    """A robot with two presets, whose returns are not comparable.

    - `paper`: one physics step per environment step, and the initial noise of Finn et al. (2017),
      N(0, 0.01²) on qpos and N(0, 0.1²) on qvel.
    - `gymnasium`: five physics steps, and gymnasium's initial noise.
    """

    dynamics: Dynamics = "paper"

    def __post_init__(self) -> None:
        if self.dynamics not in ("paper", "gymnasium"):
            raise ValueError(f"dynamics must be 'paper' or 'gymnasium', not {self.dynamics!r}")

    @property
    def _is_paper(self) -> bool:
        return self.dynamics == "paper"

    @property
    def frame_skip(self) -> int:  # type: ignore[override] # a constant of the preset
        return 1 if self._is_paper else 5

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        if not self._is_paper:
            return super().start(model, rng)
        qpos = self.initial_qpos(model) + 0.01 * rng.standard_normal(model.nq)
        return qpos, 0.1 * rng.standard_normal(model.nv)
