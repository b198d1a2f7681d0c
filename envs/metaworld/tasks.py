"""The tasks of Meta-World by name, and ML10's."""

from metarl.envs.metaworld.reach_push_pick_place import PickPlace, Push, Reach
from metarl.envs.metaworld.task import SawyerTask
from metarl.errors import did_you_mean

TASKS: dict[str, SawyerTask] = {task.name: task for task in (Reach(), Push(), PickPlace())}
ML10_TRAIN = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "sweep",
    "basketball",
)
ML10_TEST = ("drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull")
DIFFERENT_PHYSICS = ("stick-push", "stick-pull")


def task_named(name: str) -> SawyerTask:
    """A task by its name in Meta-World, without the version.

    Raises:
        ValueError: if it has no implementation here.
    """
    if name in DIFFERENT_PHYSICS:
        raise ValueError(
            f"{name} is not the same task in MuJoCo 4, in which its thermos slides without being "
            "touched; in MuJoCo 3.3, which metaworld 3.1.1 uses, it stands"
        )
    if name not in TASKS:
        raise ValueError(
            f"there is no implementation of Meta-World's task {name!r}{did_you_mean(name, TASKS)}; "
            f"there are {', '.join(TASKS)}"
        )
    return TASKS[name]
