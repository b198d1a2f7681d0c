"""Flattening of image observations, so that samplers and storage handle vectors only.

A Box with three axes is an image; its channels are on the shorter of the first and the last axis.
Observations become vectors (C·H·W,) of values in 0...1, channels first. Their space, `FlatImage`,
holds the image's shape, from which a convolutional policy restores the image.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs.family import FamilyWrapper, TaskFamily
from metarl.envs.vector import NativeTaskFamily


class FlatImage(gym.spaces.Box):
    """The space of flattened images.

    Args:
        original: a Box with three axes.

    Attributes:
        image_shape: (C, H, W).
    """

    def __init__(self, original: gym.spaces.Box) -> None:
        self.original = original
        first, _, last = original.shape
        self.channels_first = first < last
        height, width, channels = np.moveaxis(np.empty(original.shape), self._axis, -1).shape
        self.image_shape = (channels, height, width)
        low, high = float(original.low.min()), float(original.high.max())
        self._bounded = bool(np.isfinite([low, high]).all() and low < high)
        self._offset, self._factor = (low, 1.0 / (high - low)) if self._bounded else (0.0, 1.0)
        ends = (0.0, 1.0) if self._bounded else (-np.inf, np.inf)
        super().__init__(*ends, (channels * height * width,), np.float32)

    @property
    def _axis(self) -> int:
        return -3 if self.channels_first else -1

    def flatten(self, images: Any) -> NDArray[np.float32]:
        """Flatten images (..., H, W, C) or (..., C, H, W) of the original space to (..., S)."""
        array = np.moveaxis(np.asarray(images, dtype=np.float32), self._axis, -3)
        scaled: NDArray[np.float32] = (array - np.float32(self._offset)) * np.float32(self._factor)
        return scaled.reshape(*scaled.shape[:-3], -1)


def is_image(space: gym.Space[Any]) -> bool:
    """Whether a space is a Box with three axes."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """Flatten an image space; return other spaces unchanged."""
    return FlatImage(space) if is_image(space) else space  # type: ignore[arg-type] # a Box


def flat_env(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Flatten the images of an environment; return one without images unchanged."""
    return _FlatEnv(env) if is_image(env.observation_space) else env


def flat_envs(envs: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Flatten the images of a vector environment; return one without images unchanged."""
    return _FlatVectorEnv(envs) if is_image(envs.single_observation_space) else envs


def flat_family(family: TaskFamily) -> TaskFamily:
    """Flatten the images of a family; return one without images unchanged."""
    if isinstance(family, NativeTaskFamily | ImageFamily):
        return family
    env = family.make()
    try:
        image = is_image(env.observation_space)
    finally:
        env.close()
    return ImageFamily(family) if image else family


@dataclass(frozen=True)
class ImageFamily(FamilyWrapper):
    """A family whose image observations are flattened to values in 0...1."""

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        return _FlatEnv(self.family.make(render_mode))

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        return _FlatVectorEnv(self.family.make_vec(num_envs))


class _FlatEnv(gym.ObservationWrapper[Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._space = FlatImage(env.observation_space)  # type: ignore[arg-type] # a Box
        self.observation_space = self._space

    def observation(self, observation: Any) -> NDArray[np.float32]:
        return self._space.flatten(observation)


class _FlatVectorEnv(VectorWrapper[Any, Any, Any]):
    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(envs)
        self._space = FlatImage(envs.single_observation_space)  # type: ignore[arg-type] # a Box
        self.single_observation_space = self._space
        self.observation_space = batch_space(
            gym.spaces.Box(self._space.low, self._space.high), envs.num_envs
        )

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        images, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._space.flatten(images), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        images, *rest = self.env.step(actions)
        return (self._space.flatten(images), *rest)
