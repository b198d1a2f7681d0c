"""Families whose dynamics differ by task: each simulation has its own values of model fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.envs.world import Floats
from metarl.errors import did_you_mean


@dataclass(frozen=True)
class RandomScales:
    """Model fields times base^u, u ~ U(−1, 1): independently for each field or each element.

    The walker and hopper of the "rand-params" benchmarks (Rakelly et al. 2019) have
    `RandomScales({"body_mass": 1.5**3, "body_inertia": 1.5**3, "geom_friction": 1.5**3,
    "dof_damping": 1.3**3}, elementwise=True)`. The parameters are log scales, 0 for the original
    model. Images show the geometry of the original model.

    Attributes:
        bases: the largest factor of each field; its inverse is the smallest.
        elementwise: whether each element of a field has its own factor.
        set_const: recompute the constants that MuJoCo derives from masses and the like; the
            published benchmarks did not.
    """

    bases: Mapping[str, float]
    elementwise: bool = False
    set_const: bool = True

    def __post_init__(self) -> None:
        for name, base in self.bases.items():
            if not (isinstance(base, int | float) and 1.0 < base < np.inf):
                raise ValueError(f"the largest factor of {name} must exceed 1, not {base!r}")

    def _sizes(self, model: mujoco.MjModel) -> list[int]:
        return [_field(model, name).size if self.elementwise else 1 for name in self.bases]

    def size(self, model: mujoco.MjModel) -> int:
        """V, the number of parameters, with which a task ends."""
        return sum(self._sizes(model))

    def sample(self, model: mujoco.MjModel, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Sample parameters (num_tasks, V)."""
        # base^u = exp(u log base): uniform in the log, so that halving is as likely as doubling
        limits = np.repeat(np.log(list(self.bases.values())), self._sizes(model))
        return limits * rng.uniform(-1.0, 1.0, (num_tasks, len(limits)))

    def describe(self, params: Floats) -> str:
        """Describe the parameters (V,) of one task in words."""
        if self.elementwise:
            low, mean, high = np.exp([params.min(), params.mean(), params.max()])
            return f"scales {low:.2f} to {high:.2f}, mean {mean:.2f}"
        factors = zip(self.bases, np.exp(params), strict=True)
        return ", ".join(f"{name} x {factor:.2f}" for name, factor in factors)

    def fields(self, model: mujoco.MjModel, params: Floats) -> dict[str, NDArray[Any]]:
        """Values of model fields (num, ...) by name, such as "geom_friction" or "opt.gravity".

        Args:
            model: the robot's own model, which must not be changed.
            params: (num, V).
        """
        splits = np.split(np.exp(params), np.cumsum(self._sizes(model))[:-1], axis=1)
        values = {}
        for name, scales in zip(self.bases, splits, strict=True):
            default = _field(model, name)
            # one factor per task broadcasts over the field: (num, 1, ..., 1)
            shape = default.shape if self.elementwise else (1,) * default.ndim
            values[name] = default * scales.reshape(len(params), *shape)
        return values


def random_scales(bases: Mapping[str, Any] | None) -> RandomScales | None:
    """One factor for each field, or no variation: the setting `scales` of families."""
    if bases is not None and not isinstance(bases, Mapping):
        raise ValueError(f"scales must map fields to their largest factors, not {bases!r}")
    flat: dict[str, float] = {}
    for name, base in (bases or {}).items():  # `--set` nests opt.gravity
        is_nested = isinstance(base, Mapping)
        flat |= {f"{name}.{key}": v for key, v in base.items()} if is_nested else {name: base}
    return RandomScales(flat) if flat else None


def _field(model: mujoco.MjModel, name: str) -> NDArray[Any]:
    owner = model.opt if name.startswith("opt.") else model
    value = getattr(owner, name.removeprefix("opt."), None)
    if not isinstance(value, np.ndarray | float) or np.asarray(value).dtype.kind != "f":
        fields = [n for n in dir(model) if n[:4] in ("body", "geom", "dof_", "jnt_", "actu")]
        raise ValueError(
            f"scales: the model has no field of real numbers {name!r}{did_you_mean(name, fields)}; "
            "name one of MjModel, such as body_mass, geom_friction or actuator_gear, or opt.gravity"
        )
    if not np.any(value):
        raise ValueError(f"scales: {name} is 0 in this model, so that a factor has no effect")
    return np.asarray(value)
