"""The world: many simulations of a task family that are stepped together.

A world is the only implementation of a family's dynamics and rewards. `metarl.envs.vector` builds
both the single environment (one simulation) and the vector environment on it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Frame = NDArray[np.uint8]
SimulationRng = Callable[[int], np.random.Generator]  # of a simulation, given its index


class World(Protocol):
    """A set of `num` simulations, each with its own task.

    An attribute `success`, boolean (num,), is optional: whether the goal of each simulation is
    reached at the present state. Environments report it as `info["success"]`.
    """

    @property
    def observation_space(self) -> gym.spaces.Box:
        """The observation space of one simulation."""

    @property
    def action_space(self) -> gym.Space[Any]:
        """The action space of one simulation, a Box or Discrete."""

    @property
    def tasks(self) -> Floats:
        """The tasks (num, T). The environment writes them before `reset`; `step` reads them."""

    @property
    def fps(self) -> int:
        """Steps per second of simulated time, the frame rate of a video in real time."""

    def reset(self, selected: Mask, rng: SimulationRng) -> None:
        """Start a new episode in the selected simulations.

        Args:
            selected: (num,).
            rng: the generator of each simulation. Call it only if there is something to draw:
                creating generators is the main cost of a reset.
        """

    def step(self, actions: NDArray[Any], active: Mask, rng: SimulationRng) -> tuple[Floats, Mask]:
        """Advance the active simulations by one step.

        Args:
            actions: (num, A) of a Box, finite, clipped to its bounds by the world; (num,) integers
                of a Discrete space.
            active: (num,). Inactive simulations must not change.
            rng: as in `reset`; draw for active simulations only. A simulation then has the same
                random numbers whether it is stepped by itself or with others.

        Returns:
            Rewards (num,) and terminated (num,). Both are undefined for inactive simulations.
        """

    def observe(self) -> Floats:
        """Observations of all simulations, as a new array (num, S)."""

    def render(self, index: int) -> Frame:
        """An RGB image of one simulation, (height, width, 3)."""

    def close(self) -> None:
        """Release the rendering resources."""


class NativeFamily(Protocol):
    """A task family that implements its environments as a `World`."""

    @property
    def horizon(self) -> int:
        """H, the number of steps after which an episode is truncated."""

    @property
    def task_size(self) -> int:
        """T."""

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks (num_tasks, T)."""

    def world(self, num: int, num_threads: int = 0) -> World:
        """Create `num` simulations, stepped on `num_threads` threads; 0 is the family's default."""


def as_tasks(tasks: object, num: int, size: int) -> Floats:
    """Validate tasks, and repeat a single task (T,) to (num, T).

    Raises:
        ValueError: if the shape is neither (T,) nor (num, T), or a value is not finite.
    """
    array = np.asarray(tasks, dtype=np.float64)
    # numpy would broadcast a column (num, 1) silently into other tasks
    if array.shape not in ((size,), (num, size)):
        raise ValueError(
            f"options['task'] has shape {array.shape}; pass ({size},) for one task, or "
            f"({num}, {size}) for one in each sub-environment"
        )
    if not np.isfinite(array).all():
        raise ValueError("options['task'] contains values that are not finite")
    return np.broadcast_to(array, (num, size))


def as_actions(actions: object, space: gym.Space[Any]) -> NDArray[Any]:
    """Validate actions, which would otherwise silently corrupt a simulation.

    Args:
        actions: of the space's shape; values of a Box may lie outside its bounds.
        space: the action space: Box or Discrete, or the batched MultiDiscrete.

    Raises:
        ValueError: if the shape or the type is wrong, a value is not finite, or a discrete action
            does not exist.
    """
    array = np.asarray(actions)
    if array.shape != space.shape:
        raise ValueError(f"actions must have shape {space.shape}, not {array.shape}")
    # gymnasium batches Discrete(n) to MultiDiscrete([n, n, ...])
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        size = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
        if array.dtype.kind not in "iu":
            raise ValueError(f"actions must be integers, not elements of type {array.dtype}")
        if ((array < space.start) | (array >= space.start + size)).any():
            raise ValueError(f"an action is outside {space}: {array.tolist()}")
        return array
    if array.dtype.kind not in "fiu":
        raise ValueError(f"actions must be real numbers, not elements of type {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(
            "an action is NaN or infinite: the policy has diverged, or its input was not finite"
        )
    return array


def as_mask(selected: object, num: int) -> Mask:
    """Validate `options["reset_mask"]`, a boolean array (num,).

    Raises:
        ValueError: if the type or the shape is wrong, or no simulation is selected. Integers are
            an error because they could be meant as indices.
    """
    mask = np.asarray(selected)
    if mask.dtype != np.bool_ or mask.shape != (num,):
        raise ValueError(
            f"options['reset_mask'] must be boolean of shape ({num},), not {mask.dtype} of shape "
            f"{mask.shape}"
        )
    if not mask.any():
        raise ValueError("options['reset_mask'] selects no environment; select at least one")
    return mask


def as_seeds(seed: object, num: int) -> list[int | None]:
    """One seed per simulation: seed + i if `seed` is an integer, else the i-th of the sequence.

    Raises:
        ValueError: if the number of seeds is not `num`, or a seed is not a non-negative integer.
    """
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        seeds: list[Any] = [int(seed) + i for i in range(num)]
    elif isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
        seeds = list(seed)
    else:
        raise ValueError(
            f"seed must be an integer or a sequence with one per environment, not {seed!r}"
        )
    if len(seeds) != num:
        raise ValueError(f"got {len(seeds)} seeds for {num} environments")
    for value in seeds:
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and not (is_integer and value >= 0):
            raise ValueError(f"a seed must be a non-negative integer, not {value!r}")
    return [None if value is None else int(value) for value in seeds]
