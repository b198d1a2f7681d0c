"""Terms of Meta-World's rewards, vectorised over simulations.

`tolerance` is that of dm_control (Tassa et al. 2018). The caging terms are those of Yu et al.
(2019), in the version "v2" that the published results use.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.envs.metaworld.sawyer_task import Step
from metarl.envs.world import Floats, Mask

Sigmoid = Literal["gaussian", "long_tail"]
VALUE_AT_MARGIN = 0.1
TARGET_RADIUS = 0.05  # m, within which an object counts as placed


def norm(vectors: Floats) -> Floats:
    """Euclidean norms of rows, (n,)."""
    norms: Floats = np.linalg.norm(vectors, axis=-1)
    return norms


def tolerance(
    x: Floats, bounds: tuple[float, float], margin: Floats | float, sigmoid: Sigmoid = "long_tail"
) -> Floats:
    """1 within the bounds, and less outside: 0.1 at a distance of `margin`, (n,).

    Args:
        x: (n,).
        bounds: the inclusive interval.
        margin: (n,) or a number, not negative. With 0 the value outside is 0.
        sigmoid: the shape outside.
    """
    low, high = bounds
    inside = (low <= x) & (x <= high)
    with np.errstate(divide="ignore", invalid="ignore"):  # a margin of 0, and 0 / 0 inside
        distance = np.where(x < low, low - x, x - high) / margin
        if sigmoid == "gaussian":
            scaled = distance * np.sqrt(-2.0 * np.log(VALUE_AT_MARGIN))
            outside = np.exp(-0.5 * scaled**2)
        else:
            scaled = distance * np.sqrt(1.0 / VALUE_AT_MARGIN - 1.0)
            outside = 1.0 / (scaled**2 + 1.0)
    return np.where(inside, 1.0, outside)


def hamacher_product(a: Floats, b: Floats) -> Floats:
    """The t-norm ab / (a + b − ab) of values in [0, 1], 0 where both are 0, (n,)."""
    product = a * b
    total = a + b - product
    return np.divide(product, total, out=np.zeros_like(total), where=total > 0.0)


def gripper_effort(actions: NDArray[Any]) -> Floats:
    """The effort with which the gripper closes, from 0 to 1, (n,), in double precision."""
    return np.clip(actions[:, 3].astype(np.float64), 0.0, 1.0)


def caging(step: Step, caging_y: Floats, xz_threshold: float) -> Floats:
    """The reward for having the object between the fingers, (n,).

    Args:
        step: the state of the simulations.
        caging_y: that reward in y, (n,).
        xz_threshold: the distance of the gripper to the object in x and z that suffices, m.
    """
    xz = [0, 2]
    margin = norm(step.start["object"][:, xz] - step.start["tcp"][:, xz]) - xz_threshold
    distance = norm(step.scene.tcp()[:, xz] - step.object[:, xz])
    return hamacher_product(caging_y, tolerance(distance, (0.0, xz_threshold), margin))


def grip(cage: Floats, actions: NDArray[Any]) -> Floats:
    """The reward for closing the gripper, once the object is between the fingers, (n,)."""
    return hamacher_product(cage, np.where(cage > 0.97, gripper_effort(actions), 0.0))


def gripper_caging(
    step: Step, object_radius: float, pad_threshold: float, xz_threshold: float
) -> Floats:
    """The reward for having the object between the fingers, of most tasks, (n,).

    Args:
        step, xz_threshold: as for `caging`.
        object_radius: m.
        pad_threshold: the distance of a finger's pad to the object in y that suffices, m.
    """
    cage = []
    for pad in ("leftpad", "rightpad"):
        y = step.scene.body(pad)[:, 1]
        # The margin moves with the pad, so that the value is small until the pad is within the
        # threshold: nearly a binary reward before the grasp. Once the object is away from its
        # start, the margin is wide, and moving back costs little.
        margin = np.abs(np.abs(y - step.start["object"][:, 1]) - pad_threshold)
        bounds = (object_radius, pad_threshold)
        cage.append(tolerance(np.abs(y - step.object[:, 1]), bounds, margin))
    return caging(step, hamacher_product(*cage), xz_threshold)


def pad_caging(step: Step, radius: float, reach: float) -> Floats:
    """The reward for a finger's pad on either side of an object in y, (n,).

    Args:
        step: the state of the simulations.
        radius: of the object, m.
        reach: the largest distance of a pad to the object's position that suffices, m.
    """
    # The margins would be those of the pads at the start, but the original keeps views of the
    # simulation's arrays, which always hold the present positions.
    left, right = (step.scene.body(pad)[:, 1] for pad in ("leftpad", "rightpad"))
    y = step.object[:, 1]
    cage = [
        tolerance(gap, (radius, reach), np.abs(np.abs(gap) - 0.05)) for gap in (left - y, y - right)
    ]
    return hamacher_product(*cage)


def prism_tolerance(points: Floats, corner: Floats, opposite: Floats) -> Floats:
    """In the box between two corners, trilinear from 0 at one to 1 at the other; outside 1, (n,).

    Args:
        points: (n, 3).
        corner: that with the value 0, (n, 3).
        opposite: that with the value 1, (n, 3).
    """
    fractions = (points - corner) / (opposite - corner)
    is_inside = ((fractions >= 0.0) & (fractions <= 1.0)).all(axis=1)
    return np.where(is_inside, fractions.prod(axis=1), 1.0)


def is_lifted(step: Step, reach_radius: float) -> Mask:
    """Whether the open gripper is at the object, and the object 1 cm above its start, (n,)."""
    is_near = (norm(step.object - step.scene.tcp()) < reach_radius) & (step.opening > 0.0)
    return is_near & (step.object[:, 2] - 0.01 > step.start["object"][:, 2])


def with_lift(rewards: Floats, is_lifted: Mask, in_place: Floats) -> Floats:
    """Rewards (n,) that are higher by 1 + 5 · `in_place` where the object is lifted."""
    return np.where(is_lifted, rewards + 1.0 + 5.0 * in_place, rewards)
