"""How far training is from what the hardware allows: medians over repeats, ratios in one run.

What the machine can do is measured first (`floors`). Then: how fast sampling is beside plain
physics (`sampling`), where a meta-iteration's time goes (`iteration`), how time and memory grow
(`iteration` again, with other sizes), how fast supervised learning is (`supervised`), and what
other work beside it costs (`contention`). Everything is measured in a process of its own, so that
peak memory is its own as well.
"""

import multiprocessing
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from mujoco.batch import Batch

from metarl.envs.mujoco_world import MujocoFamily
from metarl.envs.world import Mask
from metarl.experiment import load_config
from metarl.method import Method, load_method, train
from metarl.optim import TrustRegion
from metarl.parallel import map_chunks
from metarl.params import flatten, repeat
from metarl.rl.config import Config
from metarl.rl.maml import adapt_all, collect
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import GaussianPolicy
from metarl.rl.problem import PolicyProblem
from metarl.rl.sampler import sample
from metarl.rl.trajectories import Trajectories
from metarl.rng import RngKey, make_rng
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.data import Omniglot
from metarl.supervised.datasets.images import ImageSet
from metarl.threads import processors

Result = TypeVar("Result")
Figures = dict[str, float]
Question = tuple[str, tuple[str, ...]]  # a config, and what is changed in it

SAMPLED: dict[str, Question] = {  # what `sampling` is asked about
    f"{robot}, {dynamics}": (config, (f"family.settings.dynamics={dynamics}",))
    for robot, config in (("half-cheetah", "half_cheetah_direction"), ("ant", "ant_direction"))
    for dynamics in ("gymnasium", "paper")
}
# with as many trajectories as all that others measured of it
POINT: Question = ("point_navigation", ("inner.episodes_per_task=20",))
ITERATED: dict[str, Question] = {  # what `iteration` is asked about
    "point navigation": POINT,
    "half-cheetah, paper": SAMPLED["half-cheetah, paper"],
    "half-cheetah, gymnasium": SAMPLED["half-cheetah, gymnasium"],
}
# `iteration` again, for point navigation: N 20, B 20, H 100, and one of them changed
GROWTH: dict[str, Question] = {
    f"{letter} {size}": (POINT[0], (*POINT[1], f"{setting}={size}"))
    for letter, setting, sizes in (
        ("N", "outer.meta_batch", (5, 10, 20, 40, 80, 160)),
        ("B", "inner.episodes_per_task", (10, 20, 40, 80)),
        ("H", "family.settings.horizon", (50, 100, 200, 400)),
    )
    for size in sizes
}
SUPERVISED: dict[str, Question] = {  # what `supervised` is asked about
    "sine, 25 tasks": ("sinusoid", ()),
    "Omniglot 5-way 1-shot, 32 tasks, 1 query": ("omniglot_5way_1shot", ()),
    "Omniglot 5-way 1-shot, 32 tasks, 15 queries": ("omniglot_5way_1shot", ("inner.queries=15",)),
    "MiniImagenet 5-way 1-shot, 4 tasks, 5 steps": ("miniimagenet_5way_1shot", ()),
}
CONTENDED: dict[str, Question] = {  # what `contention` is asked about
    "MAML, point navigation": ITERATED["point navigation"],
    "MAML, half-cheetah": ITERATED["half-cheetah, paper"],
    "ProMP, point navigation": ("point_navigation_promp", ()),
    "RL², point navigation": ("point_navigation_rl2", ()),
    "PPO pretraining, point navigation": (POINT[0], (*POINT[1], "method.name=pretrained")),
    "supervised MAML, Omniglot": SUPERVISED["Omniglot 5-way 1-shot, 32 tasks, 1 query"],
}
# about as many classes and images as there are, of noise: what they show takes no time
NOISE = {"omniglot": ((28, 28, 1), 1200, 20), "miniimagenet": ((84, 84, 3), 64, 100)}


def alone(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function that ran in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def floors(repeats: int) -> Figures:
    """What the processors can do at most, all of them at once.

    Returns:
        `product`: billions of floating-point operations a second in products of large matrices in
        single precision; `memory`: gigabytes a second, read and written, in copies of what no cache
        holds.
    """
    count, size, large = processors(), 1024, 2**25
    factors = [torch.randn(size, size) for _ in range(count)]
    sources = [torch.zeros(large) for _ in range(count)]
    targets = [torch.zeros(large) for _ in range(count)]

    def seconds(function: Callable[[int], object]) -> float:
        return _median(lambda: map_chunks(lambda one: function(one.start), count, 1), repeats)

    def multiply(number: int) -> None:
        for _ in range(10):
            torch.mm(factors[number], factors[number])

    product = seconds(multiply)
    copy = seconds(lambda number: targets[number].copy_(sources[number]))
    return {"product": count * 20e-9 * size**3 / product, "memory": count * 8e-9 * large / copy}


def sampling(source: str, overrides: Sequence[str], repeats: int) -> Figures:
    """Environment steps a second of a MuJoCo family.

    Returns:
        `physics`: plain `Batch.step` with as many simulations and threads and the same actions: the
        floor. `observed`: what observations and rewards need of the new state as well.
        `sampler`: the whole sampler, with a policy of its own for each task. `sync` and `async`:
        gymnasium's vector environments with 16 and as many as processors sub-environments, and
        one policy.
    """
    config = load_config(source, overrides)
    assert isinstance(config, Config)
    problem = PolicyProblem(config)
    (family, _), policy = problem.unscaled_family_and_scale, problem.policy
    assert isinstance(family, MujocoFamily)
    theta = policy.init(problem.generator())
    num_tasks = config.outer.meta_batch
    num_envs = num_tasks * config.inner.episodes_per_task
    tasks = family.sample_tasks(make_rng(0, "benchmark"), num_tasks)
    stacked = repeat(theta, num_tasks)
    envs = problem.env_shards

    def sampled() -> Trajectories:
        return sample(policy, stacked, envs, tasks, family.horizon, RngKey(0))

    # the floor takes the same actions, and steps only whom the sampler steps: who fell over rests
    collected = sampled()
    actions = collected.actions.clamp(-1.0, 1.0).movedim(2, 0).flatten(1, 2).numpy()
    active = collected.mask.movedim(2, 0).flatten(1, 2).numpy()
    steps = int(active.sum())

    world = family.world(num_envs)
    world.reset(np.ones(num_envs, dtype=bool), lambda index: make_rng(0, "start", index))
    starts = {name: world.batch.bind(name).copy() for name in ("qpos", "qvel")}
    plain = Batch(world.batch.model, num_envs, processors())

    def physics(batch: Batch, step: Callable[..., None]) -> float:
        def episodes() -> None:
            for name, start in starts.items():
                batch.bind(name)[:] = start
            for t in range(family.horizon):
                batch.bind("ctrl")[:] = actions[t]
                step(active[t])

        return steps / _median(episodes, repeats)

    def stepped(vectorised: Any, count: int) -> float:
        vector: gym.vector.VectorEnv[Any, Any, Any] = vectorised([family.make] * count)
        observation, _ = vector.reset(seed=0)
        noise = torch.from_numpy(policy.noise(make_rng(0, "noise"), (family.horizon, count)))

        @torch.no_grad()
        def episode() -> None:
            nonlocal observation
            for t in range(family.horizon):
                seen = torch.from_numpy(np.asarray(observation, dtype=np.float32))
                action = policy.act(policy.distribution(theta, seen), noise[t])
                observation, *_ = vector.step(action.numpy())

        rate = count * family.horizon / _median(episode, repeats)
        vector.close()
        return rate

    def observed(active: Mask) -> None:
        world.advance(active)
        world.observe()

    return {
        "physics": physics(plain, partial(plain.step, nstep=family.robot.frame_skip)),
        "observed": physics(world.batch, observed),
        "sampler": steps / _median(sampled, repeats),
        "sync": stepped(SyncVectorEnv, 16),
        "async": stepped(AsyncVectorEnv, processors()),
    }


def iteration(source: str, overrides: Sequence[str], repeats: int) -> Figures:
    """Seconds of a meta-iteration and of its parts, and the peak memory in gigabytes.

    Returns:
        `sampling` and `learning`, medians over whole iterations; `memory`. Of the parts, `adapt`
        belongs to sampling; `gradient`, `curvature` (all products of an outer step) and
        `line search` (a candidate) to learning. `GFLOP adapt` and so on: their arithmetic.
    """
    config = load_config(source, [*overrides, f"outer.iterations={repeats + 1}"])
    assert isinstance(config, Config)
    method = load_method(config)
    metrics = [metrics for _, metrics in train(method, method.initial_state())][1:]
    return {
        "sampling": statistics.median(m["time/sampling"] for m in metrics),
        "learning": statistics.median(m["time/learning"] for m in metrics),
        "memory": _peak_gigabytes(),
        **_parts(config, repeats),
        **{f"GFLOP {part}": count for part, count in arithmetic(config).items()},
    }


def arithmetic(config: Config) -> Figures:
    """Billions of floating-point operations in the matrix products of a meta-iteration's parts.

    Of a network whose layers have weights W in all, W' of them in the first, a forward pass takes
    W multiplications a sample, a backward pass 2 W − W', since nothing asks for the observations'
    gradient; their derivatives along a direction 2 W − W' and 4 W − 3 W'. Biases, activations and
    densities are left out.
    """
    problem, outer = PolicyProblem(config), config.outer
    policy = problem.policy
    assert isinstance(outer, TrustRegion)
    assert isinstance(policy, GaussianPolicy)
    sizes = (policy.observation_size, *policy.hidden_sizes, policy.action_size)
    first, *others = (fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    whole, steps = first + sum(others), config.inner.steps
    forward, backward = whole, 2 * whole - first
    tangent, hessian = 2 * whole - first, 6 * whole - 4 * first
    product = 2 * steps * hessian + tangent + backward
    once = steps * (forward + backward) + forward
    kept = 1 / max(1, round(1 / outer.curvature_fraction))
    samples = problem.steps_per_stage
    return {
        part: 2e-9 * samples * multiplications
        for part, multiplications in {
            "adapt": forward + backward,
            "gradient": once + backward + steps * hessian,
            "curvature": kept * (once + outer.cg_iterations * product),
            "line search": once,
        }.items()
    }


def contention(source: str, overrides: Sequence[str], repeats: int) -> Figures:
    """Seconds of an iteration, `alone` and of two such trainings at once, `beside`."""
    context = multiprocessing.get_context("spawn")
    figures: Figures = {}
    for name, count in (("alone", 1), ("beside", 2)):
        with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
            together = manager.Barrier(count)
            trainings = [
                pool.submit(_iterations, source, overrides, repeats, together) for _ in range(count)
            ]
            figures[name] = statistics.mean(training.result() for training in trainings)
    return figures


def _iterations(
    source: str, overrides: Sequence[str], repeats: int, together: threading.Barrier
) -> float:
    training = train(_method(source, [*overrides, f"outer.iterations={repeats + 2}"]))
    next(training)  # warms up
    together.wait()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        next(training)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _method(source: str, overrides: Sequence[str]) -> Method:
    """The method of a config; images are noise, so that no data set is needed."""
    config = load_config(source, overrides)
    if isinstance(config, SupervisedConfig) and isinstance(config.data, Omniglot):
        config.data.__dict__["images"] = _noise(config.data.name)  # in place of those of a folder
    return load_method(config)


def supervised(source: str, overrides: Sequence[str], repeats: int) -> Figures:
    """Seconds of a meta-iteration, of drawing its tasks, and the peak memory in gigabytes."""
    # an iteration on waves takes milliseconds: a hundred are measured as one
    span = 100 if source == "sinusoid" else 1
    changed = [f"outer.iterations={(repeats + 2) * span}", f"report_every={span}"]
    method = _method(source, [*overrides, *changed])
    training = train(method, method.initial_state())
    metrics = [metrics for _, metrics in training if metrics][2:]
    return {
        "iteration": statistics.median(m["time/iteration"] for m in metrics),
        "drawing": statistics.median(m["time/drawing"] for m in metrics),
        "memory": _peak_gigabytes(),
    }


# by their names in `metarl bench`: what measures, and what it is asked
PARTS: Mapping[str, tuple[Callable[..., Figures], Mapping[str, Question]]] = {
    "sampling": (sampling, SAMPLED),
    "iteration": (iteration, ITERATED),
    "growth": (iteration, GROWTH),
    "supervised": (supervised, SUPERVISED),
    "contention": (contention, CONTENDED),
}


def _noise(name: str) -> ImageSet:
    shape, classes, each = NOISE[name]
    images = make_rng(0, "noise").integers(0, 256, (classes * each, *shape), dtype=np.uint8)
    names = tuple(str(number) for number in range(classes))
    splits = {"train": np.arange(classes)}
    return ImageSet(name, images, np.arange(classes + 1) * each, names, splits, "")


def _parts(config: Config, repeats: int) -> Figures:
    outer, problem = config.outer, PolicyProblem(config)
    assert isinstance(outer, TrustRegion)
    inner, horizon = problem.inner, problem.family.horizon
    theta = inner.init(problem.generator())
    rollouts = collect(
        inner, theta, problem.env_shards, problem.sample_tasks(0), horizon, problem.key(0)
    )
    problem.close()
    objective = MetaObjective(inner, rollouts)

    def adapted() -> object:
        (alpha,) = inner.step_sizes(theta)
        stacked = repeat(theta, config.outer.meta_batch)
        return adapt_all(inner, stacked, rollouts.pre[0], alpha)

    def products() -> None:
        product = objective.curvature(theta, outer.curvature_fraction)
        for _ in range(outer.cg_iterations):
            product(flatten(theta))

    return {
        "adapt": _median(adapted, repeats),
        "gradient": _median(lambda: objective.gradient(theta), repeats),
        "curvature": _median(products, repeats),
        "line search": _median(lambda: objective.value_and_kl(theta), repeats),
    }


def _median(function: Callable[[], object], repeats: int) -> float:
    """Seconds, the median of several runs after one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, kilobytes elsewhere
