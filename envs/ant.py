"""Ant, run at a velocity, in a direction, or to a goal (Finn et al. 2017, section 5.3)."""

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.half_cheetah import Dynamics, check_dynamics
from metarl.envs.mujoco_world import Motion, MujocoFamily, intact
from metarl.envs.objectives import TargetDirection, TargetGoal, TargetVelocity
from metarl.envs.world import Floats, Mask

ASSET = Path(__file__).parent / "assets" / "ant.xml"
SURVIVAL = 0.05
CONTACT_COST = 0.0005
HEALTHY_HEIGHT = (0.2, 1.0)


@dataclass(frozen=True)
class Ant:
    """The robot, in two presets between which returns are not comparable.

    - `paper`, as in the released code of Finn et al.: one RK4 step of 0.02 s, its contact solver,
      start height 0.55 with bent legs. The observation (125) is qpos, qvel, contact forces clipped
      to ±1, the torso's rotation matrix, and the centre of mass of its subtree; forward velocity
      is that centre's. All are those of the new state. Start noise N(0, 0.01) and N(0, 0.1).
    - `gymnasium`: the physics of Ant-v5, bit for bit, with its start noise and forward velocity,
      but without contact forces, neither observed (27; 29 with `sees_position`) nor charged for:
      they would need an extra pass over every simulation that mujoco.batch doesn't make.

    Attributes:
        dynamics: the preset.
        sees_position: observe x and y in the `gymnasium` preset; the `paper` one always does.
    """

    dynamics: Dynamics = "paper"
    sees_position: bool = False
    control_cost = 0.005

    def __post_init__(self) -> None:
        check_dynamics(self.dynamics)

    @property
    def _paper(self) -> bool:
        return self.dynamics == "paper"

    @property
    def frame_skip(self) -> int:
        """Physics steps in an environment step."""
        return 1 if self._paper else 5

    @property
    def stage(self) -> mujoco.mjtStage:
        """The paper's observation wants contact forces of the new state."""
        return mujoco.mjtStage.mjSTAGE_ACC if self._paper else mujoco.mjtStage.mjSTAGE_NONE

    def model(self) -> mujoco.MjModel:
        """The stock model, or the paper's changes to it."""
        spec = mujoco.MjSpec.from_file(str(ASSET))
        if self._paper:
            spec.option.timestep = 0.02
            for geom in spec.geoms:
                geom.solimp[:3] = (0.8, 0.8, 0.01)
            # the second sensor is read by nobody: MuJoCo computes cfrc_ext for those that need it
            for name, kind in (
                ("velocity", mujoco.mjtSensor.mjSENS_SUBTREELINVEL),
                ("acceleration", mujoco.mjtSensor.mjSENS_FRAMELINACC),
            ):
                spec.add_sensor(
                    name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso"
                )
        return spec.compile()

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """The preset's start position with noise."""
        if self._paper:
            return (
                model.numeric("init_qpos").data + 0.01 * rng.standard_normal(model.nq),
                0.1 * rng.standard_normal(model.nv),
            )
        return (
            model.qpos0 + rng.uniform(-0.1, 0.1, model.nq),
            0.1 * rng.standard_normal(model.nv),
        )

    def sense(self, batch: Batch) -> Floats | None:
        """Contact forces on the bodies, clipped, (num, 14, 6)."""
        return np.clip(batch.bind("cfrc_ext"), -1.0, 1.0) if self._paper else None

    def reference(self, batch: Batch) -> Floats:
        """The torso's position before the step, as Ant-v5 takes it."""
        position: Floats = batch.bind("xpos")[:, 1, :2].copy()
        return position

    def motion(self, batch: Batch, forces: object, before: Floats, dt: float) -> Motion:
        """Forward velocity by the preset's definition."""
        if self._paper:
            return Motion(batch.bind("sensordata")[:, 0], batch.bind("subtree_com")[:, 1, :2])
        velocity = (batch.bind("xpos")[:, 1, :2] - before) / dt
        return Motion(velocity[:, 0], batch.bind("qpos")[:, :2])

    def survival(self, batch: Batch, forces: Floats | None) -> tuple[Floats | float, Mask]:
        """0.05 less the cost of contact; dead when fallen, jumping, or broken down."""
        qpos = batch.bind("qpos")
        low, high = HEALTHY_HEIGHT
        # a state that is not finite fails the comparisons
        healthy = (qpos[:, 2] >= low) & (qpos[:, 2] <= high)
        healthy &= np.isfinite(qpos).all(axis=1) & intact(batch)
        if forces is None:
            return SURVIVAL, ~healthy
        cost = CONTACT_COST * np.square(forces).sum(axis=(1, 2))
        return SURVIVAL - cost, ~(healthy & np.isfinite(cost))

    def observe(self, batch: Batch, forces: Floats | None) -> Floats:
        """(num, 125), (num, 29) or (num, 27)."""
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        if forces is None:
            return np.concatenate([qpos if self.sees_position else qpos[:, 2:], qvel], axis=1)
        torso, centre = batch.bind("xmat")[:, 1], batch.bind("subtree_com")[:, 1]
        return np.concatenate([qpos, qvel, forces.reshape(batch.nsim, -1), torso, centre], axis=1)


def ant_velocity(
    dynamics: Dynamics = "paper",
    low: float = 0.0,
    high: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Run at a velocity uniform in [low, high]: 1 − |v_x − v| less costs."""
    return MujocoFamily(Ant(dynamics), TargetVelocity(low, high, 1.0), horizon, num_threads)


def ant_direction(
    dynamics: Dynamics = "paper", horizon: int = 200, num_threads: int = 0
) -> MujocoFamily:
    """Run forward or backward: d · v_x less costs."""
    return MujocoFamily(Ant(dynamics), TargetDirection(), horizon, num_threads)


def ant_goal(
    dynamics: Dynamics = "paper",
    half_width: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Reach a goal uniform in a square: 4 − ‖xy − g‖₁ less costs."""
    robot = Ant(dynamics, sees_position=True)
    return MujocoFamily(robot, TargetGoal(half_width, 4.0), horizon, num_threads)
