"""The tasks of Meta-World by name, and ML10's."""

from metarl.envs.metaworld import fixtures, objects
from metarl.envs.metaworld.reach_push_pick_place import PickPlace, Push, Reach
from metarl.envs.metaworld.sawyer_task import SawyerTask
from metarl.errors import did_you_mean

_TASKS: tuple[SawyerTask, ...] = (
    Reach(),
    Push(),
    PickPlace(),
    fixtures.DoorOpen(),
    fixtures.DrawerClose(),
    fixtures.ButtonPressTopdown(),
    objects.PegInsertSide(),
    fixtures.WindowOpen(),
    objects.Sweep(),
    objects.Basketball(),
    fixtures.DrawerOpen(),
    fixtures.DoorClose(),
    objects.ShelfPlace(),
    objects.SweepInto(),
    fixtures.LeverPull(),
)
TASKS = {task.name: task for task in _TASKS}
# ML10: the first ten are to train on, the others to test on
ML10_TRAIN, ML10_TEST = tuple(TASKS)[:10], tuple(TASKS)[10:]
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
