"""Task families: environments that differ only in a task (a goal, a velocity, a direction).

    family = load_family("half-cheetah-direction", {"dynamics": "gymnasium"})
    tasks = family.sample_tasks(np.random.default_rng(0), 40)         # (40, 1)
    envs = family.make_vec(800)
    observations, _ = envs.reset(seed=0, options={"task": tasks.repeat(20, axis=0)})

Importing this package registers the ids `metarl/PointNavigation-v0` and so on with gymnasium.
"""

import os

from metarl.envs.checker import check_family
from metarl.envs.family import FAMILIES, UNAVAILABLE, TaskFamily, load_family, register_family
from metarl.envs.registration import register
from metarl.envs.vector import BatchedEnv, TaskEnv
from metarl.envs.wrappers import TaskConditioned, vectorise

# families are listed in the order of these imports
# isort: off
from metarl.envs.point_navigation import PointNavigation, Semicircle
from metarl.envs.bandits import Bandit
from metarl.envs.tabular_mdps import TabularMDP
from metarl.envs.gridworld import Gridworld

try:
    from metarl.envs.half_cheetah import half_cheetah_direction, half_cheetah_velocity
    from metarl.envs.ant import ant_direction, ant_goal, ant_velocity
    from metarl.envs.rand_params import (
        half_cheetah_rand_params,
        hopper_rand_params,
        walker_rand_params,
    )
    from metarl.envs.humanoid import humanoid_direction
    from metarl.envs.metaworld.families import (
        metaworld_ml10,
        metaworld_pick_place,
        metaworld_push,
        metaworld_reach,
    )
except ModuleNotFoundError as error:  # supervised learning and other families work without MuJoCo
    if error.name is None or error.name.startswith("metarl"):
        raise
    UNAVAILABLE.append(f"needs {error.name}, which is not installed: pip install {error.name}")
except (AttributeError, ImportError, OSError, RuntimeError) as error:
    # importing mujoco loads the graphics library that MUJOCO_GL names
    if "MUJOCO_GL" not in os.environ:
        raise
    UNAVAILABLE.append(
        f"needs MuJoCo, which cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']} "
        f"({error}): unset it, or set it to egl, osmesa or glfw, and install EGL or OSMesa (on "
        "Debian, libegl1 or libosmesa6) to render without a display"
    )
# isort: on

__all__ = [
    "FAMILIES",
    "Bandit",
    "BatchedEnv",
    "Gridworld",
    "PointNavigation",
    "Semicircle",
    "TabularMDP",
    "TaskConditioned",
    "TaskEnv",
    "TaskFamily",
    "ant_direction",
    "ant_goal",
    "ant_velocity",
    "check_family",
    "half_cheetah_direction",
    "half_cheetah_rand_params",
    "half_cheetah_velocity",
    "hopper_rand_params",
    "humanoid_direction",
    "load_family",
    "metaworld_ml10",
    "metaworld_pick_place",
    "metaworld_push",
    "metaworld_reach",
    "register",
    "register_family",
    "vectorise",
    "walker_rand_params",
]

register()
