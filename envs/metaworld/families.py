"""Task families of Meta-World: ML1 for reach, push and pick-place, and ML10."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from metarl.envs.family import register_family
from metarl.envs.metaworld.assets import asset_directory
from metarl.envs.metaworld.goals import benchmark_goals
from metarl.envs.metaworld.sawyer_task import SawyerTask
from metarl.envs.metaworld.task_registry import ML10_TEST, ML10_TRAIN, task_named
from metarl.envs.metaworld.world import SawyerWorld
from metarl.envs.vector import NativeTaskFamily
from metarl.envs.world import Floats
from metarl.threads import check_num_threads, processors

Split = Literal["train", "test"]


@dataclass(frozen=True)
class MetaWorld(NativeTaskFamily):
    """A benchmark of Meta-World (Yu et al. 2019; version 3), with hidden goals.

    A task is a goal (P,) of the benchmark's only task, or the index of one of several tasks, in the
    order of `train` and then `test`, and a goal, padded with zeros.

    Attributes:
        train: names of the training tasks, such as "reach".
        test: names of the test tasks; the same, or others.
        seed: of the benchmark's goals, as in `metaworld.ML1("reach-v3", seed=seed)`.
        horizon: H.
        num_threads: threads of the physics; 0 uses all processors of this process.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    seed: int = 1
    horizon: int = 500
    num_threads: int = 0

    def __post_init__(self) -> None:
        self.check_horizon()
        check_num_threads(self.num_threads)
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32 - 1:
            raise ValueError(f"seed must be an integer from 0 to 2^32 - 2, not {self.seed!r}")
        _ = self.members  # names are checked

    @cached_property
    def members(self) -> tuple[SawyerTask, ...]:
        """The tasks, each once."""
        return tuple(task_named(name) for name in dict.fromkeys(self.train + self.test))

    @property
    def has_index(self) -> bool:
        """Whether the first number of a task is the index of its member."""
        return len(self.members) > 1

    @property
    def task_size(self) -> int:
        return self.has_index + max(len(member.low) for member in self.members)

    def member(self, tasks: Floats) -> Floats:
        """The index of the member of each of the tasks (n, T), integers (n,)."""
        return tasks[:, 0].astype(int) if self.has_index else np.zeros(len(tasks), dtype=int)

    def goals(self, tasks: Floats, member: SawyerTask) -> Floats:
        """The goals (n, P) of tasks (n, T) of one member."""
        return tasks[:, self.has_index : self.has_index + len(member.low)]

    @cached_property
    def benchmark_tasks(self) -> dict[Split, list[Floats]]:
        """The 50 tasks (50, T) of each training task and of each test task."""
        # with one task, training and test differ in their goals, which have seeds of their own
        test_seed = self.seed + (self.train == self.test)
        return {
            "train": self._tasks(self.train, self.seed),
            "test": self._tasks(self.test, test_seed),
        }

    def _tasks(self, names: Sequence[str], seed: int) -> list[Floats]:
        members = [task_named(name) for name in names]
        order = [member.name for member in self.members]
        tasks = []
        for member, goals in zip(members, benchmark_goals(members, seed), strict=True):
            rows = np.zeros((len(goals), self.task_size))
            if self.has_index:
                rows[:, 0] = order.index(member.name)
            rows[:, self.has_index : self.has_index + goals.shape[1]] = goals
            tasks.append(rows)
        return tasks

    def sample_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Training tasks, equally many of each member, with random goals among its 50."""
        tasks = self._sample("train", rng, num_tasks)
        # tasks of one member stand together: a worker that has some of them steps fewer models
        return tasks[np.argsort(self.member(tasks), kind="stable")]

    def sample_test_tasks(self, rng: np.random.Generator, num_tasks: int) -> Floats:
        """Tasks for an evaluation, equally many of each member, with different goals up to 50."""
        return self._sample("test", rng, num_tasks)

    def _sample(self, split: Split, rng: np.random.Generator, num_tasks: int) -> Floats:
        members = self.benchmark_tasks[split]
        # rounds: each has every member once, and no goal is repeated within 50 rounds
        rounds = -(-num_tasks // len(members))
        goals = [[rng.permutation(len(m)) for _ in range(-(-rounds // len(m)))] for m in members]
        order = [[np.concatenate(g)[n] for g in goals] for n in range(rounds)]
        rows = [
            members[member][order[n][member]]
            for n in range(rounds)
            for member in rng.permutation(len(members))
        ]
        return np.stack(rows[:num_tasks])

    def validate_task(self, task: Floats) -> None:
        """Raise ValueError if a task (T,) has no such member or goal."""
        if self.has_index and task[0] not in range(len(self.members)):
            raise ValueError(
                f"its first number must be the index of a task from 0 to {len(self.members) - 1}, "
                f"not {task[0]:g}"
            )
        member = self.members[int(self.member(task[None])[0])]
        goal = self.goals(task[None], member)[0]
        if (goal < member.low).any() or (goal > member.high).any() or not member.accepts(goal):
            raise ValueError(
                f"the goal {goal.tolist()} of {member.name} must lie between {list(member.low)} "
                f"and {list(member.high)}, with the object away from the target"
            )

    def describe(self, task: Floats) -> str:
        member = self.members[int(self.member(task[None])[0])]
        return member.describe(self.goals(task[None], member)[0])

    @property
    def releases_gil(self) -> bool:
        """Whether tasks may be sampled in chunks, on one thread each; see `MujocoFamily`."""
        return self.num_threads == 0

    def world(self, num: int, num_threads: int = 0) -> SawyerWorld:
        """Create simulations.

        Raises:
            UserError: if Meta-World's models are not installed; a config can be read without them.
        """
        asset_directory()
        return SawyerWorld(self, num, num_threads or self.num_threads or processors())


@register_family("metaworld-reach")
def metaworld_reach(seed: int = 1, horizon: int = 500, num_threads: int = 0) -> MetaWorld:
    """ML1 reach: move the gripper to a hidden point."""
    return MetaWorld(("reach",), ("reach",), seed, horizon, num_threads)


@register_family("metaworld-push")
def metaworld_push(seed: int = 1, horizon: int = 500, num_threads: int = 0) -> MetaWorld:
    """ML1 push: push a puck to a hidden point of the table."""
    return MetaWorld(("push",), ("push",), seed, horizon, num_threads)


@register_family("metaworld-pick-place")
def metaworld_pick_place(seed: int = 1, horizon: int = 500, num_threads: int = 0) -> MetaWorld:
    """ML1 pick-place: lift a puck to a hidden point."""
    return MetaWorld(("pick-place",), ("pick-place",), seed, horizon, num_threads)


@register_family("metaworld-ml10")
def metaworld_ml10(seed: int = 1, horizon: int = 500, num_threads: int = 0) -> MetaWorld:
    """ML10: ten training tasks, such as door-open and sweep, and five others for the test."""
    return MetaWorld(ML10_TRAIN, ML10_TEST, seed, horizon, num_threads)
