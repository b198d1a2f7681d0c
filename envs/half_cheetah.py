"""Half-cheetah, run at a velocity or in a direction (Finn et al. 2017, section 5.3)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.mujoco_world import Motion, MujocoFamily
from metarl.envs.objectives import TargetDirection, TargetVelocity
from metarl.envs.planar import Centre, PlanarChain
from metarl.envs.world import Floats, Mask

Dynamics = Literal["paper", "gymnasium"]
ASSET = Path(__file__).parent / "assets" / "half_cheetah.xml"
TOTAL_MASS = 14.0  # kg, of the stock model


def check_dynamics(dynamics: str) -> None:
    """Refuse a preset that doesn't exist."""
    if dynamics not in ("paper", "gymnasium"):
        raise ValueError(f"dynamics must be 'paper' or 'gymnasium', not {dynamics!r}")


@dataclass(frozen=True)
class HalfCheetah:
    """The robot, in two presets between which returns are not comparable.

    - `paper`, as in the released code of Finn et al.: one physics step of 0.01 s an environment
      step. The observation (20) is qpos without x, qvel, and the centre of mass of the torso's
      subtree, which is the whole robot; the forward velocity is the velocity of that centre of
      mass. Both are those of the new state. Start noise N(0, 0.01) on qpos, N(0, 0.1) on qvel.
    - `gymnasium`: HalfCheetah-v5, bit for bit: five physics steps, observation (17) of qpos without
      x and qvel, forward velocity Δx/Δt, its start noise.
    """

    dynamics: Dynamics = "paper"
    control_cost = 0.05
    stage = mujoco.mjtStage.mjSTAGE_NONE  # whatever it is asked is said by qpos and qvel

    def __post_init__(self) -> None:
        check_dynamics(self.dynamics)

    @property
    def _paper(self) -> bool:
        return self.dynamics == "paper"

    @property
    def frame_skip(self) -> int:
        """Physics steps in an environment step."""
        return 1 if self._paper else 5

    def model(self) -> mujoco.MjModel:
        """The stock model; the paper's has the same masses, gears, friction and control range."""
        model = mujoco.MjSpec.from_file(str(ASSET)).compile()
        # what the stock file's `settotalmass` does, which MuJoCo 4 warns of
        mujoco.mj_setTotalmass(model, TOTAL_MASS)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    @cached_property
    def chain(self) -> PlanarChain:
        """Where its centre of mass is."""
        return PlanarChain.of(self.model())

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """The model's rest position with noise."""
        if self._paper:
            return (
                model.qpos0 + 0.01 * rng.standard_normal(model.nq),
                0.1 * rng.standard_normal(model.nv),
            )
        return (
            model.qpos0 + rng.uniform(-0.1, 0.1, model.nq),
            0.1 * rng.standard_normal(model.nv),
        )

    def sense(self, batch: Batch) -> Centre | None:
        """The centre of mass."""
        if not self._paper:
            return None
        return self.chain.centre(batch.bind("qpos"), batch.bind("qvel"))

    def reference(self, batch: Batch) -> Floats:
        """x before the step."""
        x: Floats = batch.bind("qpos")[:, 0].copy()
        return x

    def motion(self, batch: Batch, centre: Centre | None, before: Floats, dt: float) -> Motion:
        """Forward velocity by the preset's definition."""
        x = batch.bind("qpos")[:, 0]
        position = np.zeros((batch.nsim, 2))
        position[:, 0] = x
        return Motion((x - before) / dt if centre is None else centre.velocity[0], position)

    def survival(self, batch: Batch, centre: object) -> tuple[float, Mask]:
        """A half-cheetah never terminates."""
        return 0.0, np.zeros(batch.nsim, dtype=bool)

    def observe(self, batch: Batch, centre: Centre | None) -> Floats:
        """(num, 20) or (num, 17)."""
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        if centre is None:
            return np.concatenate([qpos[:, 1:], qvel], axis=1)
        x, z = centre.position
        return np.column_stack([qpos[:, 1:], qvel, x, np.zeros(batch.nsim), z])


def half_cheetah_velocity(
    dynamics: Dynamics = "paper",
    low: float = 0.0,
    high: float = 2.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Run at a velocity uniform in [low, high]: −|v_x − v| − 0.05 ‖a‖²."""
    return MujocoFamily(HalfCheetah(dynamics), TargetVelocity(low, high), horizon, num_threads)


def half_cheetah_direction(
    dynamics: Dynamics = "paper", horizon: int = 200, num_threads: int = 0
) -> MujocoFamily:
    """Run forward or backward: d · v_x − 0.05 ‖a‖²."""
    return MujocoFamily(HalfCheetah(dynamics), TargetDirection(), horizon, num_threads)
