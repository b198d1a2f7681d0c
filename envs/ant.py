"""Ant that runs at a velocity, in a direction, or to a goal (Finn et al. 2017, section 5.3)."""

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.family import register_family
from metarl.envs.model_variation import random_scales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.robot import Dynamics, Motion, PresetRobot, is_stable
from metarl.envs.task_rewards import TargetDirection, TargetGoal, TargetVelocity
from metarl.envs.world import Floats, Mask

ASSET = Path(__file__).parent / "assets" / "ant.xml"
SURVIVAL_BONUS = 0.05
CONTACT_COST = 0.0005
HEALTHY_HEIGHT = (0.2, 1.0)


@dataclass(frozen=True)
class Ant(PresetRobot):
    """The ant, in two presets whose returns are not comparable.

    - `paper`, as in the released code of Finn et al.: one RK4 step of 0.02 s, softer contacts,
      initial height 0.55 with bent legs. The observation (125) is qpos, qvel, contact forces
      clipped to ±1, the torso's rotation matrix, and the robot's centre of mass; the forward
      velocity is that of the centre of mass. All are of the new state. The initial noise is
      N(0, 0.01²) on qpos and N(0, 0.1²) on qvel.
    - `gymnasium`: physics, initial noise and forward velocity of Ant-v5 to the bit. Contact forces
      are neither observed (27; 29 with `observes_position`) nor penalised: `mujoco.batch` would
      need an extra pass over every simulation to compute them.

    Attributes:
        dynamics: the preset.
        observes_position: observe x and y in the `gymnasium` preset; `paper` always does.
    """

    observes_position: bool = False
    control_cost = 0.005

    @property
    def stage(self) -> mujoco.mjtStage:
        """The `paper` preset observes the contact forces of the new state."""
        return mujoco.mjtStage.mjSTAGE_ACC if self._is_paper else mujoco.mjtStage.mjSTAGE_NONE

    def model(self) -> mujoco.MjModel:
        """The stock model, with the changes of the preset."""
        spec = mujoco.MjSpec.from_file(str(ASSET))
        if self._is_paper:
            spec.option.timestep = 0.02
            for geom in spec.geoms:
                geom.solimp[:3] = (0.8, 0.8, 0.01)
            # MuJoCo computes cfrc_ext (mj_rnePostConstraint) only if a sensor needs it. That is the
            # only purpose of the acceleration sensor; its value is not used.
            for name, kind in (
                ("velocity", mujoco.mjtSensor.mjSENS_SUBTREELINVEL),
                ("acceleration", mujoco.mjtSensor.mjSENS_FRAMELINACC),
            ):
                spec.add_sensor(
                    name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso"
                )
        return spec.compile()

    def initial_qpos(self, model: mujoco.MjModel) -> Floats:
        qpos: Floats = model.numeric("init_qpos").data if self._is_paper else model.qpos0
        return qpos

    def sense(self, batch: Batch) -> Floats | None:
        """Contact forces on the bodies, clipped to ±1, (num, 14, 6), in the `paper` preset."""
        return np.clip(batch.bind("cfrc_ext"), -1.0, 1.0) if self._is_paper else None

    def reference(self, batch: Batch) -> Floats:
        """The torso's position before the step, from xpos as in Ant-v5."""
        position: Floats = batch.bind("xpos")[:, 1, :2].copy()
        return position

    def motion(self, batch: Batch, forces: object, before: Floats, dt: float) -> Motion:
        """Forward velocity as the preset defines it."""
        if self._is_paper:
            return Motion(batch.bind("sensordata")[:, 0], batch.bind("subtree_com")[:, 1, :2])
        velocity = (batch.bind("xpos")[:, 1, :2] - before) / dt
        return Motion(velocity[:, 0], batch.bind("qpos")[:, :2])

    def survival(self, batch: Batch, forces: Floats | None) -> tuple[Floats | float, Mask]:
        """0.05 minus the contact cost; terminated outside the healthy heights or if unstable."""
        qpos = batch.bind("qpos")
        low, high = HEALTHY_HEIGHT
        # comparisons with NaN are false
        healthy = (qpos[:, 2] >= low) & (qpos[:, 2] <= high)
        healthy &= np.isfinite(qpos).all(axis=1) & is_stable(batch)
        if forces is None:
            return SURVIVAL_BONUS, ~healthy
        cost = CONTACT_COST * np.square(forces).sum(axis=(1, 2))
        return SURVIVAL_BONUS - cost, ~(healthy & np.isfinite(cost))

    def observe(self, batch: Batch, forces: Floats | None) -> Floats:
        """Observations, (num, 125), (num, 29) or (num, 27)."""
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        if forces is None:
            return np.concatenate([qpos if self.observes_position else qpos[:, 2:], qvel], axis=1)
        torso, com = batch.bind("xmat")[:, 1], batch.bind("subtree_com")[:, 1]
        return np.concatenate([qpos, qvel, forces.reshape(batch.nsim, -1), torso, com], axis=1)


@register_family("ant-velocity")
def ant_velocity(
    dynamics: Dynamics = "paper",
    low: float = 0.0,
    high: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
    scales: dict[str, float] | None = None,
) -> MujocoFamily:
    """Run at a velocity uniform in [low, high]: 1 − |v_x − v| − costs."""
    reward, variation = TargetVelocity(low, high, 1.0), random_scales(scales)
    return MujocoFamily(Ant(dynamics), reward, horizon, num_threads, variation)


@register_family("ant-direction")
def ant_direction(
    dynamics: Dynamics = "paper",
    horizon: int = 200,
    num_threads: int = 0,
    scales: dict[str, float] | None = None,
) -> MujocoFamily:
    """Run forward or backward: d · v_x − costs."""
    reward, variation = TargetDirection(), random_scales(scales)
    return MujocoFamily(Ant(dynamics), reward, horizon, num_threads, variation)


@register_family("ant-goal")
def ant_goal(
    dynamics: Dynamics = "paper",
    half_width: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
    scales: dict[str, float] | None = None,
) -> MujocoFamily:
    """Reach a goal uniform in a square: 4 − ‖xy − g‖₁ − costs."""
    robot, reward = Ant(dynamics, observes_position=True), TargetGoal(half_width, 4.0)
    return MujocoFamily(robot, reward, horizon, num_threads, random_scales(scales))
