"""The parts of the benchmark: which function is measured on which configs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metarl.bench.metaworld import metaworld
from metarl.bench.sampling import sampling
from metarl.bench.target import target
from metarl.bench.timing import run_in_subprocess
from metarl.bench.training import contention, iteration, supervised

Case = tuple[str, tuple[str, ...]]  # a config, and overrides


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: `measure` returns figures by name for each of the `cases`.

    It receives a config, its overrides and a number of repeats. A part that is not `by_default`,
    or whose optional `package` is not installed, is measured only if it is named.
    """

    measure: Callable[[str, Sequence[str], int], dict[str, float]]
    cases: Mapping[str, Case]
    in_subprocess: bool = True  # not where `measure` starts processes itself
    package: str | None = None
    by_default: bool = True

    def run(self, name: str, repeats: int) -> dict[str, float]:
        """The figures of a case."""
        source, overrides = self.cases[name]
        # the peak memory of a process never falls: each case has a process of its own
        if self.in_subprocess:
            return run_in_subprocess(self.measure, source, overrides, repeats)
        return self.measure(source, overrides, repeats)


SAMPLING: dict[str, Case] = {
    f"{robot}, {dynamics}": (config, (f"family.settings.dynamics={dynamics}",))
    for robot, config in (("half-cheetah", "half_cheetah_direction"), ("ant", "ant_direction"))
    for dynamics in ("gymnasium", "paper")
}
# 20 episodes per task, as in published measurements
POINT: Case = ("point_navigation", ("inner.episodes_per_task=20",))
ITERATION: dict[str, Case] = {
    "point navigation": POINT,
    "half-cheetah, paper": SAMPLING["half-cheetah, paper"],
    "half-cheetah, gymnasium": SAMPLING["half-cheetah, gymnasium"],
}
# N 20, B 20 and H 100, with one of them changed
GROWTH: dict[str, Case] = {
    f"{letter} {size}": (POINT[0], (*POINT[1], f"{setting}={size}"))
    for letter, setting, sizes in (
        ("N", "outer.meta_batch", (5, 10, 20, 40, 80, 160)),
        ("B", "inner.episodes_per_task", (10, 20, 40, 80)),
        ("H", "family.settings.horizon", (50, 100, 200, 400)),
    )
    for size in sizes
}
SUPERVISED: dict[str, Case] = {
    "sine, 25 tasks": ("sinusoid", ()),
    "Omniglot 5-way 1-shot, 32 tasks, 1 query": ("omniglot_5way_1shot", ()),
    "Omniglot 5-way 1-shot, 32 tasks, 15 queries": ("omniglot_5way_1shot", ("inner.queries=15",)),
    "MiniImagenet 5-way 1-shot, 4 tasks, 5 steps": ("miniimagenet_5way_1shot", ()),
}
CONTENTION: dict[str, Case] = {
    "MAML, point navigation": ITERATION["point navigation"],
    "MAML, half-cheetah": ITERATION["half-cheetah, paper"],
    "ProMP, point navigation": ("point_navigation_promp", ()),
    "RL², point navigation": ("point_navigation_rl2", ()),
    "PPO pretraining, point navigation": (POINT[0], (*POINT[1], "method.name=pretrained")),
    "supervised MAML, Omniglot": SUPERVISED["Omniglot 5-way 1-shot, 32 tasks, 1 query"],
}
METAWORLD: dict[str, Case] = {
    "Meta-World reach": ("metaworld_reach", ()),
    "Meta-World pick-place": ("metaworld_pick_place", ()),
}
# those that reach it within minutes
TARGET: dict[str, Case] = {
    name.replace("_", " "): (name, ()) for name in ("point_navigation", "half_cheetah_direction")
}
PARTS = {
    "sampling": Part(sampling, SAMPLING),
    "metaworld": Part(metaworld, METAWORLD, package="metaworld"),
    "iteration": Part(iteration, ITERATION),
    "growth": Part(iteration, GROWTH),
    "supervised": Part(supervised, SUPERVISED),
    "contention": Part(contention, CONTENTION, in_subprocess=False),
    "target": Part(target, TARGET, by_default=False),
}
