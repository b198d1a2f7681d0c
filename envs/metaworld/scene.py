"""Simulations of one Sawyer scene, as the tasks of Meta-World see them."""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.envs.mujoco_world import CachedBatch
from metarl.envs.world import Floats

# addresses in qpos and qvel after the nine joints of the arm and the gripper
OBJECT = 9
OBJECT_VELOCITY = slice(9, 15)


class Scene:
    """n simulations of a batch at one state: all of them, or the rows that are reset."""

    def __init__(self, batch: CachedBatch, rows: NDArray[np.intp] | slice = slice(None)) -> None:
        self.batch = batch
        self.rows = rows
        self._values: dict[tuple[str, str], NDArray[Any]] = {}  # read since `forward`

    def _field(self, name: str, kind: str, element: str) -> NDArray[Any]:
        key = name, element
        if key not in self._values:
            self._values[key] = self.batch.bind(name)[self.rows, self.batch.index(kind, element)]
        return self._values[key]

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
        return quaternions(self._field("geom_xmat", "geom", name))

    def site_quaternion(self, name: str) -> Floats:
        """Orientations of a site, (n, 4), the real part last."""
        return quaternions(self._field("site_xmat", "site", name))

    def joint_address(self, name: str) -> tuple[int, int]:
        """The index of a joint in qpos and in qvel."""
        joint = self.batch.model.joint(name)
        return int(joint.qposadr[0]), int(joint.dofadr[0])

    def joint(self, name: str) -> Floats:
        """Positions of a hinge or a slide, (n,)."""
        return self.batch.bind("qpos")[self.rows, self.joint_address(name)[0]]

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
        self._values.clear()
        ids = None if isinstance(self.rows, slice) else self.rows
        self.batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_ACC)


def quaternions(matrices: Floats) -> Floats:
    """Quaternions (n, 4), the real part last, of rotation matrices (n, 9), row by row.

    As scipy's Rotation, which takes ten times as long for few of them: a row of 4 q qᵀ, that of the
    largest element of q, which is positive.
    """
    a, b, c, d, e, f, g, h, i = matrices.T
    products = np.array(
        [
            [1.0 + a - e - i, b + d, c + g, h - f],
            [b + d, 1.0 - a + e - i, f + h, c - g],
            [c + g, f + h, 1.0 - a - e + i, d - b],
            [h - f, c - g, d - b, 1.0 + a + e + i],
        ]
    )
    largest = np.argmax([a, e, i, a + e + i], axis=0)
    rows = products[largest, :, np.arange(len(matrices))]
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
