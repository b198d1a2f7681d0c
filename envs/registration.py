"""Registers the families with gymnasium, as single and vector environments."""

from typing import Any

import gymnasium as gym

from metarl.envs.family import FAMILIES
from metarl.envs.vector import BatchedEnv, TaskEnv

IDS = {
    "metarl/PointNavigation-v0": ("point-navigation", 100),
    "metarl/HalfCheetahVelocity-v0": ("half-cheetah-velocity", 200),
    "metarl/HalfCheetahDirection-v0": ("half-cheetah-direction", 200),
    "metarl/AntVelocity-v0": ("ant-velocity", 200),
    "metarl/AntDirection-v0": ("ant-direction", 200),
    "metarl/AntGoal-v0": ("ant-goal", 200),
}


def make_single(family: str, render_mode: str | None = None, **settings: Any) -> TaskEnv:
    """The entry point of `gymnasium.make`; `settings` are passed to the family."""
    return TaskEnv(FAMILIES.load(family)(**settings), render_mode)


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
        FAMILIES.load(family)(**settings),
        num_envs,
        max_episode_steps,
        autoreset_mode,
        render_mode,
    )


def register() -> None:
    """Register the ids; calling it again has no effect."""
    for env_id, (family, horizon) in IDS.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="metarl.envs.registration:make_single",
                vector_entry_point="metarl.envs.registration:make_vector",
                max_episode_steps=horizon,
                kwargs={"family": family},
            )
