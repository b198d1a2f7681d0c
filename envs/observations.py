"""Flattening of observations, so that samplers, policies and storage handle vectors only.

A Box with three axes is an image; its channels are on the shorter of the first and the last axis.
Images become vectors (C·H·W,) of values in 0...1, channels first. Their space, `FlatImage`, holds
the image's shape, from which a convolutional policy restores the image. Dict, Tuple, Discrete and
other spaces of numbers become vectors like those of `gymnasium.spaces.flatten`.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs.family import FamilyWrapper, TaskFamily
from metarl.envs.vector import NativeTaskFamily
from metarl.errors import UserError

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


class VectorObservations(VectorWrapper[Any, Any, Any]):
    """Transforms the observations of a vector environment, whatever its autoreset mode.

    gymnasium's own wrapper refuses "SameStep", where `info["final_obs"]` has the last observations.

    Args:
        envs: the vector environment.
        space: of one transformed observation.
        transform: of observations with or without a leading axis; see also `transform`.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        space: Box,
        transform: Callable[[Any], NDArray[Any]] | None = None,
    ) -> None:
        super().__init__(envs)
        self.single_observation_space = space
        box = Box(space.low, space.high, dtype=space.dtype)
        self.observation_space = batch_space(box, envs.num_envs)
        self._transform = transform

    def transform(self, observations: Any, index: int | None = None) -> NDArray[Any]:
        """Transform all observations, or one of the sub-environment `index`."""
        assert self._transform is not None
        return self._transform(observations)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self.transform(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            # "SameStep" replaces the last observation by that of the reset, and keeps it in the
            # info
            final = np.full(self.num_envs, None)
            for index, last in enumerate(info["final_obs"]):
                final[index] = None if last is None else self.transform(last, index)
            info = {**info, "final_obs": final}
        return self.transform(observations), rewards, terminated, truncated, info


class FlatSpace(Box):
    """The space of flattened observations.

    Args:
        original: the space before flattening; see `flat_space`.
    """

    def __init__(self, original: gym.Space[Any]) -> None:
        self.original = original
        super().__init__(-np.inf, np.inf, (gym.spaces.flatdim(original),), np.float32)

    def flatten(self, observations: Any) -> NDArray[np.float32]:
        """Flatten observations of the original space, batched as by gymnasium, to (..., S).

        Raises:
            UserError: if an observation is not of the original space.
        """
        try:
            return _flatten(self.original, observations)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"an observation is not of the environment's observation_space {self.original} "
                f"({type(error).__name__}: {error}); correct what reset and step return, or what "
                "is passed to act (of `observation, info = env.reset()`, only the observation)"
            ) from error

    def rows(self, observations: Any) -> NDArray[Any]:
        """The observations of an episode as rows (H, S); those that are flat already stay so."""
        if isinstance(self.original, Dict | Tuple):
            if isinstance(observations, Mapping):  # arrays (H, ...) by name
                return self.flatten(observations)
            if isinstance(observations[0], Mapping | tuple):
                return np.stack([self.flatten(observation) for observation in observations])
        array = np.asarray(observations)
        return self.flatten(array) if array.shape[1:] == self.original.shape else array


def _flatten(space: gym.Space[Any], value: Any) -> NDArray[np.float32]:
    """Concatenate the parts of nested spaces; discrete values are one-hot, as in gymnasium."""
    if isinstance(space, Dict | Tuple):
        keys: Any = space.keys() if isinstance(space, Dict) else range(len(space))
        return np.concatenate([_flatten(space[key], value[key]) for key in keys], axis=-1)
    array = np.asarray(value)
    if isinstance(space, Discrete):
        index = array.astype(np.int64, casting="same_kind") - space.start
        if (index < 0).any():  # would count from the end
            raise IndexError(f"{array.tolist()} is below {space.start}")
        one_hot = np.zeros((*index.shape, int(space.n)), dtype=np.float32)
        np.put_along_axis(one_hot, index[..., np.newaxis], 1.0, axis=-1)
        return one_hot
    if isinstance(space, MultiDiscrete):
        sizes, starts, columns = space.nvec.ravel(), space.start.ravel(), _rows(space, array)
        parts = [Discrete(n, start=start) for n, start in zip(sizes, starts, strict=True)]
        columns_of_parts = [_flatten(part, columns[..., i]) for i, part in enumerate(parts)]
        return np.concatenate(columns_of_parts, axis=-1)
    return _rows(space, array).astype(np.float32, casting="same_kind")


def _rows(space: gym.Space[Any], array: NDArray[Any]) -> NDArray[Any]:
    """An array (..., *shape) with the axes of the space as one, (..., S)."""
    shape = space.shape or ()
    batch = array.shape[: array.ndim - len(shape)]
    if array.shape != (*batch, *shape):
        raise ValueError(f"expected the shape {shape}, got {array.shape}")
    return array.reshape(*batch, -1)


class FlatImage(FlatSpace):
    """The space of flattened images.

    Args:
        original: a Box with three axes.

    Attributes:
        image_shape: (C, H, W).
    """

    def __init__(self, original: Box) -> None:
        super().__init__(original)
        first, _, last = original.shape
        self.channels_first = first < last
        height, width, channels = np.moveaxis(np.empty(original.shape), self._axis, -1).shape
        self.image_shape = (channels, height, width)
        low, high = float(original.low.min()), float(original.high.max())
        is_bounded = bool(np.isfinite([low, high]).all() and low < high)
        # bytes become 0 to 1; without bounds there is no scale to assume
        self._offset, self._factor = (low, 1.0 / (high - low)) if is_bounded else (0.0, 1.0)
        if is_bounded:
            self.low, self.high = np.zeros_like(self.low), np.ones_like(self.high)

    @property
    def _axis(self) -> int:
        return -3 if self.channels_first else -1

    def flatten(self, observations: Any) -> NDArray[np.float32]:
        """Flatten images (..., H, W, C) or (..., C, H, W) of the original space to (..., S)."""
        if np.shape(observations)[-3:] != self.original.shape:
            raise UserError(
                f"an observation of the environment is an image of shape {self.original.shape}, "
                f"not {np.shape(observations)}"
            )
        array = np.moveaxis(np.asarray(observations, dtype=np.float32), self._axis, -3)
        scaled: NDArray[np.float32] = (array - np.float32(self._offset)) * np.float32(self._factor)
        return scaled.reshape(*scaled.shape[:-3], -1)


def is_image(space: gym.Space[Any]) -> bool:
    """Whether a space is a Box with three axes."""
    return isinstance(space, Box) and len(space.shape) == 3


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """The flattened space; the space itself if it is flat, or cannot be flattened."""
    if is_image(space):
        return FlatImage(space)  # type: ignore[arg-type] # a Box
    is_flat = isinstance(space, Box) and len(space.shape) == 1
    return space if is_flat or not _is_numeric(space) else FlatSpace(space)


def _is_numeric(space: gym.Space[Any]) -> bool:
    """Whether a space has numbers only: neither images nor texts, graphs and sequences."""
    if isinstance(space, Dict | Tuple):
        parts = space.values() if isinstance(space, Dict) else space
        return all(_is_numeric(part) for part in parts)
    if isinstance(space, Box):
        # a grey image may lack its axis of channels
        return not is_image(space) and not (len(space.shape) == 2 and space.dtype == np.uint8)
    return isinstance(space, Discrete | MultiBinary | MultiDiscrete)


def single_observation_space(env: AnyEnv) -> gym.Space[Any]:
    """The space of one observation of an environment, single or vector."""
    return env.observation_space if isinstance(env, gym.Env) else env.single_observation_space


def transform_observations(
    env: AnyEnv, transform: Callable[[Any], NDArray[Any]], space: Box
) -> AnyEnv:
    """Transform the observations of an environment, single or vector, to those of a space."""
    if isinstance(env, gym.Env):
        return gym.wrappers.TransformObservation(env, transform, space)
    return VectorObservations(env, space, transform)


def flat_env(env: AnyEnv) -> Any:
    """Flatten the observations of an environment; return one with flat observations unchanged."""
    original = single_observation_space(env)
    space = flat_space(original)
    if isinstance(space, FlatSpace) and space is not original:
        return transform_observations(env, space.flatten, space)
    return env


def flat_family(family: TaskFamily) -> TaskFamily:
    """Like `flat_env`, for a family."""
    if isinstance(family, NativeTaskFamily | FlatFamily):
        return family
    with closing(family.make()) as env:
        return family if flat_env(env) is env else FlatFamily(family)


@dataclass(frozen=True)
class FlatFamily(FamilyWrapper):
    """A family whose observations are flattened."""

    def wrap(self, env: AnyEnv) -> Any:
        return flat_env(env)
