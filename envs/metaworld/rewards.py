"""Terms of Meta-World's rewards, vectorised over simulations.

`tolerance` is that of dm_control (Tassa et al. 2018). The caging terms are those of Yu et al.
(2019), in the version "v2" that the published results use.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.envs.metaworld.scene import Scene
from metarl.envs.world import Floats

Sigmoid = Literal["gaussian", "long_tail"]
VALUE_AT_MARGIN = 0.1
TARGET_RADIUS = 0.05  # m, within which an object counts as placed


def norm(vectors: Floats) -> Floats:
    """Euclidean norms of rows, (n,)."""
    norms: Floats = np.linalg.norm(vectors, axis=-1)
    return norms


def tolerance(
    x: Floats,
    bounds: tuple[float, float],
    margin: Floats | float,
    sigmoid: Sigmoid = "long_tail",
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
    quotient: Floats = np.divide(product, total, out=np.zeros_like(total), where=total > 0.0)
    return quotient


def gripper_effort(actions: NDArray[Any]) -> Floats:
    """The effort with which the gripper closes, from 0 to 1, (n,), in double precision."""
    effort: Floats = np.clip(actions[:, 3].astype(np.float64), 0.0, 1.0)
    return effort


def gripper_caging(
    scene: Scene,
    position: Floats,
    actions: NDArray[Any],
    start: Mapping[str, Floats],
    object_radius: float,
    pad_threshold: float,
    xz_threshold: float,
    reach_radius: float = 0.0,
    density: Literal["low", "medium", "high"] = "low",
) -> Floats:
    """The reward for having the object between the fingers, and for gripping it there, (n,).

    Args:
        scene: the simulations.
        position: of the object, (n, 3).
        actions: (n, 4).
        start: `tcp` and `object`, (n, 3) each, at the start of the episode.
        object_radius: m.
        pad_threshold: the distance of a finger's pad to the object in y that suffices, m.
        xz_threshold: the distance of the gripper to the object in x and z that suffices, m.
        reach_radius: the distance that suffices for the reach term of `medium` density, m.
        density: `high` adds the caging without the grip, `medium` the distance to the object.
    """
    caging_y: Floats | None = None
    for pad in ("leftpad", "rightpad"):
        y = scene.body(pad)[:, 1]
        # The margin moves with the pad, so that the value is small until the pad is within the
        # threshold: nearly a binary reward before the grasp. Once the object is away from its
        # start, the margin is wide, and moving back costs little.
        margin = np.abs(np.abs(y - start["object"][:, 1]) - pad_threshold)
        bounds = (object_radius, pad_threshold)
        caged = tolerance(np.abs(y - position[:, 1]), bounds, margin)
        caging_y = caged if caging_y is None else hamacher_product(caging_y, caged)
    assert caging_y is not None
    tcp, xz = scene.tcp(), [0, 2]
    margin = norm(start["object"][:, xz] - start["tcp"][:, xz]) - xz_threshold
    caging_xz = tolerance(norm(tcp[:, xz] - position[:, xz]), (0.0, xz_threshold), margin)
    caging = hamacher_product(caging_y, caging_xz)
    gripping = np.where(caging > 0.97, gripper_effort(actions), 0.0)
    total = hamacher_product(caging, gripping)
    if density == "high":
        return (total + caging) / 2.0
    if density == "medium":
        margin = np.abs(norm(start["object"] - start["tcp"]) - reach_radius)
        reach = tolerance(norm(position - tcp), (0.0, reach_radius), margin)
        return (total + reach) / 2.0
    return total


def pad_caging(
    scene: Scene, position: Floats, bounds: tuple[float, float], pad_threshold: float
) -> Floats:
    """The reward for a finger's pad on either side of an object in y, (n,).

    The margin would be that of the pads at the start, but the original keeps views of the
    simulation's arrays, which always hold the present positions.
    """
    y, left, right = position[:, 1], scene.body("leftpad")[:, 1], scene.body("rightpad")[:, 1]
    caged = [
        tolerance(gap, bounds, np.abs(np.abs(y - pad) - pad_threshold))
        for gap, pad in ((left - y, left), (y - right, right))
    ]
    return hamacher_product(*caged)
