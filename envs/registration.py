"""Registers the families with gymnasium, as single and vector environments."""

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import TimeLimit

from metarl.envs.family import FAMILIES
from metarl.envs.vector import BatchedEnv, TaskEnv

IDS: dict[str, str] = {}  # names of families by gymnasium id


def make_single(family: str, render_mode: str | None = None, **settings: Any) -> gym.Env[Any, Any]:
    """The entry point of `gymnasium.make`; `settings` are passed to the family."""
    tasks = FAMILIES.load(family)(**settings)
    return TimeLimit(TaskEnv(tasks, render_mode), tasks.horizon)


def make_vector(
    family: str,
    num_envs: int,
    max_episode_steps: int | None = None,
    autoreset_mode: str = "NextStep",
    render_mode: str | None = None,
    **settings: Any,
) -> BatchedEnv:
    """The vector entry point of `gymnasium.make_vec`; `settings` are passed to the family."""
    return BatchedEnv(
        FAMILIES.load(family)(**settings), num_envs, max_episode_steps, autoreset_mode, render_mode
    )


def register() -> None:
    """Register the ids of this package's families, such as `metarl/PointNavigation-v0`.

    The time limit is the family's `horizon`, also if it is set: `gymnasium.make(id, horizon=50)`.
    Calling it again has no effect.
    """
    for name, entry in FAMILIES.items():
        if not entry.startswith("metarl.envs."):
            continue
        env_id = f"metarl/{name.title().replace('-', '')}-v0"
        IDS[env_id] = name
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="metarl.envs.registration:make_single",
                vector_entry_point="metarl.envs.registration:make_vector",
                kwargs={"family": name},
            )
