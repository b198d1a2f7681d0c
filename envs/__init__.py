"""Task families: environments that differ only in a task (a goal, a velocity, a direction).

    family = load_family("half-cheetah-direction", {"dynamics": "gymnasium"})
    tasks = family.sample_tasks(np.random.default_rng(0), 40)         # (40, 1)
    envs = family.make_vec(800)
    observations, _ = envs.reset(seed=0, options={"task": tasks.repeat(20, axis=0)})

Importing this package registers the ids `metarl/PointNavigation-v0` and so on with gymnasium.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metarl.envs.checker import check_family
from metarl.envs.family import FAMILIES, TaskFamily, load_family
from metarl.envs.point_navigation import PointNavigation
from metarl.envs.registration import register
from metarl.envs.vector import BatchedEnv, TaskEnv
from metarl.envs.wrappers import TaskConditioned, vectorise

if TYPE_CHECKING:
    from metarl.envs.ant import ant_direction, ant_goal, ant_velocity
    from metarl.envs.half_cheetah import half_cheetah_direction, half_cheetah_velocity

__all__ = [
    "FAMILIES",
    "BatchedEnv",
    "PointNavigation",
    "TaskConditioned",
    "TaskEnv",
    "TaskFamily",
    "ant_direction",
    "ant_goal",
    "ant_velocity",
    "check_family",
    "half_cheetah_direction",
    "half_cheetah_velocity",
    "load_family",
    "register",
    "vectorise",
]

# imported on first use: other families do not need MuJoCo
_MUJOCO = {
    "ant_direction": "metarl.envs.ant",
    "ant_goal": "metarl.envs.ant",
    "ant_velocity": "metarl.envs.ant",
    "half_cheetah_direction": "metarl.envs.half_cheetah",
    "half_cheetah_velocity": "metarl.envs.half_cheetah",
}


def __getattr__(name: str) -> Any:
    if name not in _MUJOCO:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MUJOCO[name]), name)


register()
