"""Families whose dynamics differ by task: each simulation has its own values of model fields."""

from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl.envs.world import Floats


class ModelVariation(Protocol):
    """A distribution over parameters of a model. Tasks end with these parameters, V per task."""

    @property
    def set_const(self) -> bool:
        """Whether MuJoCo recomputes the constants derived from the fields (`mj_setConst`)."""

    def size(self, model: mujoco.MjModel) -> int:
        """V."""

    def sample(self, model: mujoco.MjModel, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Sample parameters (num_tasks, V)."""

    def describe(self, params: Floats) -> str:
        """Describe the parameters (V,) of one task in words."""

    def fields(self, model: mujoco.MjModel, params: Floats) -> dict[str, NDArray[Any]]:
        """Values of model fields (num, ...) by name, such as "geom_friction" or "opt.gravity".

        Args:
            model: the robot's own model, which must not be changed.
            params: (num, V).
        """


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

    bases: dict[str, float]
    elementwise: bool = False
    set_const: bool = True

    def __post_init__(self) -> None:
        for name, base in self.bases.items():
            if not base > 1.0:
                raise ValueError(f"the largest factor of {name} must exceed 1, not {base}")

    def _sizes(self, model: mujoco.MjModel) -> list[int]:
        return [_field(model, name).size if self.elementwise else 1 for name in self.bases]

    def size(self, model: mujoco.MjModel) -> int:
        return sum(self._sizes(model))

    def sample(self, model: mujoco.MjModel, rng: np.random.Generator, num_tasks: int) -> Floats:
        # base^u = exp(u log base): uniform in the log, so that halving is as likely as doubling
        limits = np.repeat(np.log(list(self.bases.values())), self._sizes(model))
        return limits * rng.uniform(-1.0, 1.0, (num_tasks, len(limits)))

    def describe(self, params: Floats) -> str:
        if self.elementwise:
            return f"scales {np.exp(params.min()):.2f} to {np.exp(params.max()):.2f}"
        factors = zip(self.bases, np.exp(params), strict=True)
        return ", ".join(f"{name} x {factor:.2f}" for name, factor in factors)

    def fields(self, model: mujoco.MjModel, params: Floats) -> dict[str, NDArray[Any]]:
        splits = np.split(np.exp(params), np.cumsum(self._sizes(model))[:-1], axis=1)
        values = {}
        for name, scales in zip(self.bases, splits, strict=True):
            default = _field(model, name)
            # one factor per task broadcasts over the field: (num, 1, ..., 1)
            shape = default.shape if self.elementwise else (1,) * default.ndim
            values[name] = default * scales.reshape(len(params), *shape)
        return values


def _field(model: mujoco.MjModel, name: str) -> NDArray[Any]:
    owner = model.opt if name.startswith("opt.") else model
    return np.asarray(getattr(owner, name.removeprefix("opt.")))
