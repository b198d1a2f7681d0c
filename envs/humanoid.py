"""Humanoid that runs in a direction of the plane (Rakelly et al. 2019)."""

from pathlib import Path

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.family import register_family
from metarl.envs.model_variation import random_scales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.robot import Motion, Robot, is_stable
from metarl.envs.task_rewards import TargetHeading
from metarl.envs.world import Floats, Mask

ASSET = Path(__file__).parent / "assets" / "humanoid.xml"
SURVIVAL_BONUS = 5.0
CONTACT_COST, MAX_CONTACT_COST = 5e-7, 10.0
MAX_CONTROL = 0.4  # of the actuators
# the published reward divides Δx by the timestep, of which a step has five: 0.25 · 5
VELOCITY_WEIGHT = 1.25


class Humanoid(Robot[Floats]):
    """The humanoid of gymnasium, observed (376) with inertias, velocities and forces of its bodies.

    All quantities are of the new state, whereas gymnasium's cinert, cvel and cfrc_ext are one
    physics step old.
    """

    control_cost = 0.1 * MAX_CONTROL**2
    stage = mujoco.mjtStage.mjSTAGE_ACC

    def model(self) -> mujoco.MjModel:
        spec = mujoco.MjSpec.from_file(str(ASSET))
        # its only purpose is that MuJoCo computes cfrc_ext (mj_rnePostConstraint)
        sensor = {"objtype": mujoco.mjtObj.mjOBJ_BODY, "objname": "torso"}
        spec.add_sensor(name="acceleration", type=mujoco.mjtSensor.mjSENS_FRAMELINACC, **sensor)
        return spec.compile()

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        qpos = model.qpos0 + rng.uniform(-0.01, 0.01, model.nq)
        return qpos, rng.uniform(-0.01, 0.01, model.nv)

    def sense(self, batch: Batch) -> Floats:
        """The contact cost, (num,)."""
        squares = np.square(batch.bind("cfrc_ext")).sum(axis=(1, 2))
        cost: Floats = np.minimum(CONTACT_COST * squares, MAX_CONTACT_COST)
        return cost

    def reference(self, batch: Batch) -> Floats:
        """The centre of mass in the plane before the step."""
        position: Floats = batch.bind("subtree_com")[:, 1, :2].copy()
        return position

    def motion(self, batch: Batch, contact_cost: Floats, before: Floats, dt: float) -> Motion:
        """Velocity (num, 2) and position (num, 2) of the centre of mass."""
        position = batch.bind("subtree_com")[:, 1, :2]
        return Motion((position - before) / dt, position)

    def survival(self, batch: Batch, contact_cost: Floats) -> tuple[Floats, Mask]:
        """5 minus the contact cost; terminated outside 1 m < z < 2 m or if unstable."""
        z = batch.bind("qpos")[:, 2]
        healthy = (z >= 1.0) & (z <= 2.0) & is_stable(batch) & np.isfinite(contact_cost)
        return SURVIVAL_BONUS - contact_cost, ~healthy

    def observe(self, batch: Batch, contact_cost: Floats) -> Floats:
        """qpos without x and y, qvel, cinert, cvel, qfrc_actuator and cfrc_ext, (num, 376)."""
        names = ("qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
        fields = [batch.bind(name).reshape(batch.nsim, -1) for name in names]
        return np.concatenate([batch.bind("qpos")[:, 2:], *fields], axis=1)


@register_family("humanoid-direction")
def humanoid_direction(
    horizon: int = 200, num_threads: int = 0, scales: dict[str, float] | None = None
) -> MujocoFamily:
    """Run in a direction of the plane: 1.25 v · d + 5 − 0.1 ‖ctrl‖² − contact cost."""
    reward, variation = TargetHeading(VELOCITY_WEIGHT), random_scales(scales)
    return MujocoFamily(Humanoid(), reward, horizon, num_threads, variation)
