"""What an environment of this package is made of: a world of simulations, stepped all at once.

A world is the one implementation of a task family's dynamics and rewards. `metarl.envs.vector`
makes a gymnasium vector environment of it, `metarl.envs.vector` an environment of a single one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Frame = NDArray[np.uint8]


class World(Protocol):
    """`num` simulations of one kind, each with a task of its own."""

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Of one simulation."""

    @property
    def action_space(self) -> gym.spaces.Box:
        """Of one simulation."""

    @property
    def tasks(self) -> Floats:
        """(num, T), read at every step; whoever owns the world writes into it."""

    @property
    def fps(self) -> int:
        """Frames a second at which consecutive steps play in real time."""

    def reset(self, selected: Mask, rng: Callable[[int], np.random.Generator]) -> None:
        """Start the selected simulations anew.

        Args:
            selected: (num,).
            rng: gives the generator of a simulation. Ask only where there is something to draw:
                making generators is what a reset costs.
        """

    def step(self, actions: NDArray[Any], active: Mask) -> tuple[Floats, Mask]:
        """Advance the active simulations by one step.

        Args:
            actions: (num, A), finite; clipped to the action space by the world.
            active: (num,).

        Returns:
            Rewards (num,) and whether each simulation has come to its end (num,); both are
            meaningless where it was not active.
        """

    def observe(self) -> Floats:
        """Observations of all simulations, a new array (num, S)."""

    def render(self, index: int) -> Frame:
        """A picture of one simulation, (height, width, 3)."""

    def close(self) -> None:
        """Release what rendering holds."""


class NativeFamily(Protocol):
    """A task family whose environments are simulations of a world."""

    @property
    def horizon(self) -> int:
        """H, after which an episode is truncated."""

    @property
    def task_size(self) -> int:
        """T."""

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks (num_tasks, T)."""

    def world(self, num: int, num_threads: int = 0) -> World:
        """A world of `num` simulations on `num_threads` threads, 0 for as many as the family's."""


def as_tasks(tasks: object, num: int, size: int) -> Floats:
    """Tasks (num, T), from these or from one task (T,) for all.

    Raises:
        ValueError: if the shape is neither, or a number is not finite.
    """
    array = np.asarray(tasks, dtype=np.float64)
    if array.shape not in ((size,), (num, size)):
        raise ValueError(
            f"options['task'] has shape {array.shape}; give ({size},) for one task, or "
            f"({num}, {size}) for one in each sub-environment"
        )
    if not np.isfinite(array).all():
        raise ValueError("options['task'] holds numbers that are not finite")
    return np.broadcast_to(array, (num, size))


def as_actions(actions: object, space: gym.Space[Any]) -> NDArray[Any]:
    """Actions as an array, once it is sure that they poison no simulation.

    Args:
        actions: as many and as large as in the space, but not necessarily within its bounds.
        space: of all the actions.

    Raises:
        ValueError: if they have another shape, or one is NaN, infinite or no number.
    """
    array = np.asarray(actions)
    if array.shape != space.shape:
        raise ValueError(f"actions must have shape {space.shape}, not {array.shape}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"actions must be real numbers, not elements of type {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(
            "an action is NaN or infinite: the policy has diverged, or its input was not finite"
        )
    return array


def as_mask(selected: object, num: int) -> Mask:
    """What `options["reset_mask"]` selects, (num,).

    Raises:
        ValueError: if it is no boolean array of this shape, or selects nothing. Numbers are
            refused because they would be indices.
    """
    mask = np.asarray(selected)
    if mask.dtype != np.bool_ or mask.shape != (num,):
        raise ValueError(
            f"options['reset_mask'] must be boolean of shape ({num},), not {mask.dtype} of shape "
            f"{mask.shape}"
        )
    if not mask.any():
        raise ValueError("options['reset_mask'] selects nothing; leave out a reset of nothing")
    return mask


def as_seeds(seed: object, num: int) -> list[int | None]:
    """A seed for each of `num` simulations: seed + i of a number, or the i-th of a sequence.

    Raises:
        ValueError: if there is another number of them, or one is no whole number from 0.
    """
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        seeds: list[Any] = [int(seed) + i for i in range(num)]
    elif isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
        seeds = list(seed)
    else:
        raise ValueError(f"seed must be a whole number or one for each environment, not {seed!r}")
    if len(seeds) != num:
        raise ValueError(f"{len(seeds)} seeds were given for {num} environments")
    for one in seeds:
        whole = isinstance(one, int | np.integer) and not isinstance(one, bool)
        if one is not None and not (whole and one >= 0):
            raise ValueError(f"a seed must be a whole number of at least 0, not {one!r}")
    return [None if one is None else int(one) for one in seeds]
