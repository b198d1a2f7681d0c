"""The centre of mass of a robot that moves in a plane, in closed form.

MuJoCo finds it from the positions and velocities of all bodies, by a pass over each simulation that
takes a third as long as a step of the half-cheetah. But where all hinges turn about one axis, the
orientation of a body is an angle, the sum of those of the hinges on the way to it, and the centre
of mass is linear in the sines and cosines of these angles.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import mujoco
import numpy as np

from metarl.envs.world import Floats


class Centre(NamedTuple):
    """The centre of mass of simulations: its x and z, and their rates, (2, num) each."""

    position: Floats
    velocity: Floats


@dataclass(frozen=True)
class PlanarChain:
    """Bodies in the xz-plane: the first slides along x and z, and each has a hinge about y.

    Attributes:
        start: where the first body is when all of qpos is 0, (2, 1), metres.
        parents: of each body, the number of the one that it hangs on; −1 of the first.
        along: (bodies, 1), the x of what turns with each body: its own centre of mass and the
            joints of those that hang on it, each times its share of the mass, metres.
        up: the same of z.
    """

    start: Floats
    parents: tuple[int, ...]
    along: Floats
    up: Floats

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Self:
        """The chain of a model.

        Raises:
            ValueError: if the model is of another robot.
        """
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        bodies = model.nbody - 1  # the world is the first
        planar = (
            model.jnt_type.tolist() == [slide, slide, *[hinge] * bodies]
            and model.jnt_bodyid.tolist() == [1, 1, *range(1, model.nbody)]
            and (model.jnt_axis == [[1, 0, 0], [0, 0, 1], *[[0, 1, 0]] * bodies]).all()
            and not model.jnt_pos.any()
            and not model.qpos0.any()
            and (model.body_quat == [1, 0, 0, 0]).all()
        )
        if not planar:
            raise ValueError("the model is not of bodies with a hinge about y on a sliding root")
        total = model.body_subtreemass[1]
        parents = tuple((model.body_parentid[1:] - 1).tolist())
        levers = model.body_mass[:, None] / total * model.body_ipos
        for body in range(2, model.nbody):
            share = model.body_subtreemass[body] / total
            levers[model.body_parentid[body]] += share * model.body_pos[body]
        start = model.body_pos[1, [0, 2], None].copy()
        return cls(start, parents, levers[1:, 0, None], levers[1:, 2, None])

    def centre(self, qpos: Floats, qvel: Floats) -> Centre:
        """The centre of mass at qpos (num, 2 + bodies) and qvel, in metres, radians and seconds."""
        num, bodies = len(qpos), len(self.parents)
        turns = np.concatenate([qpos, qvel]).T.copy()
        root, turns = turns[:2], turns[2:]
        for body, parent in enumerate(self.parents[1:], start=1):
            turns[body] += turns[parent]
        angles, rates = turns[:, :num], turns[:, num:]
        # of every body's lever x and z, and their rates
        parts = np.empty((4, bodies, num))
        with np.errstate(invalid="ignore"):  # an angle that is not finite: the world notices
            sines, cosines = np.sin(angles), np.cos(angles)
            parts[0] = cosines * self.along + sines * self.up
            parts[1] = cosines * self.up - sines * self.along
            np.multiply(rates, parts[1], out=parts[2])
            np.multiply(-rates, parts[0], out=parts[3])
            centre = np.add.reduce(parts, axis=1)
        return Centre(self.start + root[:, :num] + centre[:2], root[:, num:] + centre[2:])
