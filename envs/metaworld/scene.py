"""Simulations of one Sawyer scene, as the tasks of Meta-World see them."""

from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from metarl.envs.world import Floats

# addresses in qpos and qvel after the nine joints of the arm and the gripper
OBJECT = 9
OBJECT_VELOCITY = slice(9, 15)


class Scene:
    """n simulations of a batch: all of them, or the rows that are reset.

    Attributes:
        batch: the batch.
        rows: the simulations.
    """

    def __init__(self, batch: Batch, rows: NDArray[np.intp] | slice = slice(None)) -> None:
        self.batch = batch
        self.rows = rows

    def _field(self, name: str, kind: str, element: str) -> NDArray[Any]:
        index = getattr(self.batch.model, kind)(element).id
        values: NDArray[Any] = self.batch.bind(name)[self.rows, index]
        return values

    def body(self, name: str) -> Floats:
        """Positions of a body, (n, 3)."""
        return self._field("xpos", "body", name)

    def site(self, name: str) -> Floats:
        """Positions of a site, (n, 3)."""
        return self._field("site_xpos", "site", name)

    def geom(self, name: str) -> Floats:
        """Positions of a geom, (n, 3)."""
        return self._field("geom_xpos", "geom", name)

    def body_quaternion(self, name: str) -> Floats:
        """Orientations of a body, (n, 4), the real part first."""
        return self._field("xquat", "body", name)

    def geom_quaternion(self, name: str) -> Floats:
        """Orientations of a geom, (n, 4), the real part last."""
        return _quaternions(self._field("geom_xmat", "geom", name))

    def site_quaternion(self, name: str) -> Floats:
        """Orientations of a site, (n, 4), the real part last."""
        return _quaternions(self._field("site_xmat", "site", name))

    def joint_address(self, name: str) -> tuple[int, int]:
        """The index of a joint in qpos and in qvel."""
        joint = self.batch.model.joint(name)
        return int(joint.qposadr[0]), int(joint.dofadr[0])

    def joint(self, name: str) -> Floats:
        """Positions of a hinge or a slide, (n,)."""
        positions: Floats = self.batch.bind("qpos")[self.rows, self.joint_address(name)[0]]
        return positions

    def tcp(self) -> Floats:
        """The centre between the finger tips, (n, 3)."""
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2.0

    def place(
        self, position: Floats | float, at: int = OBJECT, zero: slice | None = OBJECT_VELOCITY
    ) -> None:
        """Move an object, and compute the derived fields (mj_forward).

        Args:
            position: values of qpos from index `at`, (n, k), or a number.
            at: the index in qpos.
            zero: the elements of qvel that become 0.
        """
        size = np.shape(position)[-1] if np.ndim(position) else 1
        qpos, qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        qpos[self.rows, at : at + size] = position
        if zero is not None:
            qvel[self.rows, zero] = 0.0
        self.forward()

    def forward(self) -> None:
        """Compute the derived fields at the present state."""
        ids = None if isinstance(self.rows, slice) else self.rows
        self.batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_ACC)


def _quaternions(matrices: Floats) -> Floats:
    matrices = matrices.reshape(-1, 3, 3)
    if not np.isfinite(matrices).all():  # scipy raises an error; the world ends these episodes
        finite = np.isfinite(matrices).all(axis=(1, 2), keepdims=True)
        matrices = np.where(finite, matrices, np.eye(3))
    quaternions: Floats = Rotation.from_matrix(matrices).as_quat()
    return quaternions
