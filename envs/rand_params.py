"""Walker, hopper and half-cheetah whose dynamics differ by task ("rand-params").

Introduced by Rothfuss et al. (2019) and used since by Rakelly et al. (2019) and Zintgraf et al.
(2020). Every task is to run forward; the policy must identify how the body moves.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from mujoco.batch import Batch

from metarl.envs.family import register_family
from metarl.envs.half_cheetah import HalfCheetah
from metarl.envs.model_variation import RandomScales
from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.robot import Robot, is_stable
from metarl.envs.task_rewards import RunForward
from metarl.envs.world import Floats, Mask

ASSETS = Path(__file__).parent / "assets"
RandDynamics = Literal["set_const", "published"]


class Hopper(Robot[None]):
    """The hopper; it ends where the torso is below 0.7 m or leans by 0.2 rad."""

    asset = "hopper.xml"
    frame_skip = 4
    control_cost = 1e-3

    def model(self) -> mujoco.MjModel:
        return mujoco.MjSpec.from_file(str(ASSETS / self.asset)).compile()

    def start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        qpos = model.qpos0 + rng.uniform(-0.005, 0.005, model.nq)
        return qpos, rng.uniform(-0.005, 0.005, model.nv)

    def survival(self, batch: Batch, sensors: None) -> tuple[float, Mask]:
        """A bonus of 1 per step, also for the step that terminates the episode."""
        qpos, qvel = batch.bind("qpos"), batch.bind("qvel")
        return 1.0, ~(self.is_healthy(qpos, qvel) & is_stable(batch))

    def is_healthy(self, qpos: Floats, qvel: Floats) -> Mask:
        """Whether an episode goes on, (num,); false where the state is NaN."""
        healthy = (qpos[:, 1] > 0.7) & (np.abs(qpos[:, 2]) < 0.2)
        # all of the state but x and z, as in the published code
        healthy &= (np.abs(qpos[:, 2:]) < 100.0).all(axis=1)
        return healthy & (np.abs(qvel) < 100.0).all(axis=1)

    def observe(self, batch: Batch, sensors: None) -> Floats:
        """qpos without x, and qvel clipped to ±10: (num, 11), or (num, 17) of a walker."""
        # as in gymnasium: contacts can give a joint a speed that no network input should have
        velocities = np.clip(batch.bind("qvel"), -10.0, 10.0)
        return np.concatenate([batch.bind("qpos")[:, 1:], velocities], axis=1)


class Walker(Hopper):
    """The planar walker with two legs; it ends outside 0.8 m < z < 2 m or beyond 1 rad."""

    asset = "walker2d.xml"

    def is_healthy(self, qpos: Floats, qvel: Floats) -> Mask:
        z = qpos[:, 1]
        return (z > 0.8) & (z < 2.0) & (np.abs(qpos[:, 2]) < 1.0)


# in the order of the published task vectors
BASES = {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.5}


def rand_params(
    dynamics: RandDynamics,
    log_scale_limit: float,
    fields: Collection[str] = BASES,
    elementwise: bool = True,
) -> RandomScales:
    """Mass, inertia and friction times 1.5^u, damping times 1.3^u, u ~ U(−limit, limit).

    Args:
        dynamics: `set_const` recomputes the constants that MuJoCo derives from masses; the
            `published` benchmarks left them at those of the original model.
        log_scale_limit: the largest |u|.
        fields: those of the model that differ.
        elementwise: whether each element of a field has its own u.
    """
    if dynamics not in ("set_const", "published"):
        raise ValueError(f"dynamics must be 'set_const' or 'published', not {dynamics!r}")
    # base^u with |u| ≤ limit is a factor between 1/largest and largest, uniform in its logarithm
    largest = {name: BASES[name] ** log_scale_limit for name in fields}
    return RandomScales(largest, elementwise, set_const=dynamics == "set_const")


@register_family("walker-rand-params")
def walker_rand_params(
    dynamics: RandDynamics = "set_const",
    log_scale_limit: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Walk forward with other masses, inertias, damping and friction: v_x + 1 − 0.001 ‖a‖²."""
    variation = rand_params(dynamics, log_scale_limit)
    return MujocoFamily(Walker(), RunForward(), horizon, num_threads, variation)


@register_family("hopper-rand-params")
def hopper_rand_params(
    dynamics: RandDynamics = "set_const",
    log_scale_limit: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Hop forward with other masses, inertias, damping and friction: v_x + 1 − 0.001 ‖a‖²."""
    variation = rand_params(dynamics, log_scale_limit)
    return MujocoFamily(Hopper(), RunForward(), horizon, num_threads, variation)


@register_family("half-cheetah-rand-params")
def half_cheetah_rand_params(
    dynamics: RandDynamics = "set_const",
    log_scale_limit: float = 3.0,
    horizon: int = 200,
    num_threads: int = 0,
) -> MujocoFamily:
    """Run forward with one factor for all masses and one for all damping: v_x − 0.05 ‖a‖²."""
    fields = ("body_mass", "dof_damping")
    variation = rand_params(dynamics, log_scale_limit, fields, elementwise=False)
    robot = HalfCheetah("gymnasium")
    return MujocoFamily(robot, RunForward(), horizon, num_threads, variation)
