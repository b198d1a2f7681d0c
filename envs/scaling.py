"""Observation scaling.

The observation of a robot holds angles of about 0.1 rad and velocities of about 5 rad/s. Unscaled,
the velocities dominate the first layer of a policy, and a gradient step changes their weights
several hundred times as much as those of the angles.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from metarl.envs.family import FamilyWrapper, TaskFamily, checked_tasks
from metarl.envs.observations import (
    AnyEnv,
    FlatImage,
    single_observation_space,
    transform_observations,
)
from metarl.envs.world import Floats
from metarl.errors import UserError

NUM_EPISODES = 100
# observations that hardly vary under random actions are mostly noise, which must not be amplified
MAX_FACTOR = 5.0
# A standard deviation that grows by this ratio from the second quarter of the episodes to the last
# belongs to something like the position of a robot. A trained policy moves much further than random
# actions do, so such observations are never amplified, unless the observation space bounds them.
GROWTH_RATIO = 1.4


def measure_scale(family: TaskFamily) -> tuple[float, ...]:
    """Measure 1 / standard deviation of each observation under random actions, at most 5.

    The factor is at most 1 for unbounded observations whose spread grows during an episode, such as
    a position. Seeds are fixed: the result is the same for every method and seed of an experiment.

    Args:
        family: a family with flat observations (S,).

    Returns:
        S factors, with two significant digits.
    """
    with closing(family.make_vec(NUM_EPISODES)) as envs:
        space = _flat_box(envs.single_observation_space)
        bounded = np.isfinite(space.low) & np.isfinite(space.high)
        envs.action_space.seed(0)
        tasks = checked_tasks(family, np.random.default_rng(0), NUM_EPISODES)
        observations, _ = envs.reset(seed=0, options={"task": tasks})
        batches, active = [np.array(observations)], np.ones(NUM_EPISODES, dtype=bool)
        for _ in range(family.horizon - 1):
            observations, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
            active &= ~(terminated | truncated)
            if not active.any():
                break
            batches.append(np.array(observations[active]))
    quarter = max(1, len(batches) // 4)
    early = _deviations(batches[quarter : 2 * quarter] or batches)
    late = _deviations(batches[-quarter:])
    is_growing = (late > GROWTH_RATIO * early) & ~bounded
    max_factor = np.where(is_growing, 1.0, MAX_FACTOR)
    scale = np.minimum(max_factor, 1.0 / np.maximum(_deviations(batches), 1.0 / MAX_FACTOR))
    return tuple(float(f"{factor:.2g}") for factor in scale)


def _deviations(batches: Sequence[Floats]) -> Floats:
    """The standard deviation of each observation, (S,)."""
    deviations: Floats = np.concatenate(batches).std(axis=0, dtype=np.float64)
    return deviations


@dataclass(frozen=True)
class ScaledObservations(FamilyWrapper):
    """A family whose observations (S,) are multiplied by S factors."""

    scale: tuple[float, ...]

    def wrap(self, env: AnyEnv) -> Any:
        return scale_observations(env, self.scale)


def scale_observations(env: AnyEnv, scale: Sequence[float]) -> Any:
    """Multiply the observations of an environment, single or vector, by factors (S,)."""
    factors, space = np.array(scale), _scaled_space(single_observation_space(env), scale)
    return transform_observations(env, lambda observations: observations * factors, space)


def _scaled_space(space: gym.Space[Any], scale: Sequence[float]) -> gym.spaces.Box:
    (size,) = _flat_box(space).shape
    if len(scale) != size:
        raise UserError(
            f"policy.observation_scale has {len(scale)} values, but observations have {size}; give "
            "one per element, or `measured`"
        )
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)


def _flat_box(space: gym.Space[Any]) -> gym.spaces.Box:
    if isinstance(space, FlatImage):
        raise UserError(
            "images need no scaling, as pixels already lie in 0...1: leave out "
            "policy.observation_scale"
        )
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise UserError(
            f"observations must be a flat Box to be scaled (policy.observation_scale), not {space}"
        )
    return space
