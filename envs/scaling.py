"""Observations on one scale, whatever their units are.

A robot's observation has angles of a tenth of a radian beside velocities of five radians a second.
The first layer of a policy then hears the velocities alone, and one gradient step turns their
weights by several hundred times as much as those of the angles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from metarl.envs.family import FamilyWrapper, TaskFamily, checked_tasks
from metarl.envs.images import FlatImage
from metarl.envs.world import Floats
from metarl.errors import UserError

EPISODES = 100
# what hardly varies under random actions is not blown up to the size of what does
LARGEST = 5.0
# what spreads as an episode goes on, by this factor from its second quarter to its last, is a place
# in the world or the like: random actions get nowhere, and a policy that does sees it many times as
# large, so that it is not blown up at all
SPREADING = 1.4


def measure_scale(family: TaskFamily) -> tuple[float, ...]:
    """One over the standard deviation of each observation under random actions, at most 5.

    What spreads as an episode goes on, such as the distance run, is multiplied by 1 at most. The
    same for every seed of an experiment and for every method: tasks, starts and actions are drawn
    from streams of their own.

    Args:
        family: with flat observations (S,).

    Returns:
        S factors, with two significant digits.
    """
    envs = family.make_vec(EPISODES)
    try:
        _check_flat(envs.single_observation_space)
        envs.action_space.seed(0)
        tasks = checked_tasks(family, np.random.default_rng(0), EPISODES)
        observations, _ = envs.reset(seed=0, options={"task": tasks})
        seen, active = [np.array(observations)], np.ones(EPISODES, dtype=bool)
        for _ in range(family.horizon - 1):
            observations, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
            active &= ~(terminated | truncated)
            if not active.any():
                break
            seen.append(np.array(observations[active]))
    finally:
        envs.close()
    deviations = _deviations(seen)
    quarter = max(1, len(seen) // 4)
    early, late = _deviations(seen[quarter : 2 * quarter] or seen), _deviations(seen[-quarter:])
    largest = np.where(late > SPREADING * early, 1.0, LARGEST)
    scale = np.minimum(largest, 1.0 / np.maximum(deviations, 1.0 / LARGEST))
    return tuple(float(f"{factor:.2g}") for factor in scale)


def _deviations(seen: Sequence[Floats]) -> Floats:
    """The standard deviation of each observation, (S,)."""
    deviations: Floats = np.concatenate(seen).std(axis=0, dtype=np.float64)
    return deviations


@dataclass(frozen=True)
class ScaledObservations(FamilyWrapper):
    """A family like another, but every observation (S,) is multiplied by factors.

    Attributes:
        scale: S factors.
    """

    scale: tuple[float, ...]

    def make(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """A single environment."""
        return scale_observations(self.family.make(render_mode), self.scale)

    def make_vec(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """A vector environment."""
        return scale_vector_observations(self.family.make_vec(num_envs), self.scale)


def scale_observations(env: gym.Env[Any, Any], scale: Sequence[float]) -> gym.Env[Any, Any]:
    """An environment whose observations are multiplied by factors (S,)."""
    factors, space = np.array(scale), _scaled_space(env.observation_space, scale)
    return gym.wrappers.TransformObservation(env, lambda seen: seen * factors, space)


def scale_vector_observations(
    envs: VectorEnv[Any, Any, Any], scale: Sequence[float]
) -> VectorEnv[Any, Any, Any]:
    """A vector environment whose observations are multiplied by factors (S,)."""
    factors, space = np.array(scale), _scaled_space(envs.single_observation_space, scale)
    return gym.wrappers.vector.TransformObservation(
        envs, lambda seen: seen * factors, single_observation_space=space
    )


def _scaled_space(space: gym.Space[Any], scale: Sequence[float]) -> gym.spaces.Box:
    size = _check_flat(space)
    if len(scale) != size:
        raise UserError(
            f"policy.observation_scale has {len(scale)} numbers, and an observation {size}; give "
            "one for each, or `measured`"
        )
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)


def _check_flat(space: gym.Space[Any]) -> int:
    if isinstance(space, FlatImage):
        raise UserError(
            "observations are images, whose pixels have one scale already: leave "
            "policy.observation_scale out"
        )
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise UserError(
            f"observations must be a flat Box to be scaled (policy.observation_scale), not {space}"
        )
    return space.shape[0]
