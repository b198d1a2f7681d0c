"""Half-cheetah that runs at a velocity or in a direction (Finn et al. 2017, section 5.3)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.family import register_family
from metarl.envs.model_variation import random_scales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.planar import CentreOfMass, PlanarChain
from metarl.envs.robot import Dynamics, Motion, PresetRobot
from metarl.envs.task_rewards import TargetDirection, TargetVelocity
from metarl.envs.world import Floats

ASSET = Path(__file__).parent / "assets" / "half_cheetah.xml"
TOTAL_MASS = 14.0  # kg, of the stock model


@dataclass(frozen=True)
class HalfCheetah(PresetRobot):
    """The half-cheetah, in two presets whose returns are not comparable.

    - `paper`, as in the released code of Finn et al.: one physics step of 0.01 s per environment
      step. The observation (20) is qpos without x, qvel, and the robot's centre of mass; the
      forward velocity is that of the centre of mass. Both are of the new state. The initial noise
      is N(0, 0.01²) on qpos and N(0, 0.1²) on qvel.
    - `gymnasium`: HalfCheetah-v5 to the bit: five physics steps, observation (17) of qpos without
      x and qvel, forward velocity Δx/Δt, initial noise U(−0.1, 0.1) and N(0, 0.1²).
    """

    control_cost = 0.05

    @property
    def fixed_fields(self) -> tuple[str, ...]:  # type: ignore[override] # a constant of the preset
        """The levers of the closed-form centre of mass depend on these."""
        levers = ("body_mass", "body_ipos", "body_pos") if self._is_paper else ()
        return PresetRobot.fixed_fields + levers

    def model(self) -> mujoco.MjModel:
        """The stock model, which has the paper's masses, gears, friction and control range."""
        model = mujoco.MjSpec.from_file(str(ASSET)).compile()
        # equals `settotalmass` of the stock file, which is deprecated in MuJoCo 4
        mujoco.mj_setTotalmass(model, TOTAL_MASS)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    @cached_property
    def chain(self) -> PlanarChain:
        """The kinematic chain, for the centre of mass."""
        return PlanarChain.from_model(self.model())

    def sense(self, batch: Batch) -> CentreOfMass | None:
        """The centre of mass in the `paper` preset."""
        if not self._is_paper:
            return None
        return self.chain.centre_of_mass(batch.bind("qpos"), batch.bind("qvel"))

    def motion(self, batch: Batch, com: CentreOfMass | None, before: Floats, dt: float) -> Motion:
        motion = super().motion(batch, com, before, dt)
        return motion if com is None else Motion(com.velocity[0], motion.position)

    def observe(self, batch: Batch, com: CentreOfMass | None) -> Floats:
        """Observations, (num, 20) or (num, 17)."""
        if com is None:
            return super().observe(batch, com)
        qpos, qvel, (x, z) = batch.bind("qpos"), batch.bind("qvel"), com.position
        return np.column_stack([qpos[:, 1:], qvel, x, np.zeros(batch.nsim), z])


@register_family("half-cheetah-velocity")
def half_cheetah_velocity(
    dynamics: Dynamics = "paper",
    low: float = 0.0,
    high: float = 2.0,
    horizon: int = 200,
    num_threads: int = 0,
    scales: dict[str, float] | None = None,
) -> MujocoFamily:
    """Run at a velocity uniform in [low, high]: −|v_x − v| − 0.05 ‖a‖²."""
    reward, variation = TargetVelocity(low, high), random_scales(scales)
    return MujocoFamily(HalfCheetah(dynamics), reward, horizon, num_threads, variation)


@register_family("half-cheetah-direction")
def half_cheetah_direction(
    dynamics: Dynamics = "paper",
    horizon: int = 200,
    num_threads: int = 0,
    scales: dict[str, float] | None = None,
) -> MujocoFamily:
    """Run forward or backward: d · v_x − 0.05 ‖a‖²."""
    reward, variation = TargetDirection(), random_scales(scales)
    return MujocoFamily(HalfCheetah(dynamics), reward, horizon, num_threads, variation)
