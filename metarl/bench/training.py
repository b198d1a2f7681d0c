"""Time and memory of meta-iterations: their parts, their arithmetic, and concurrent trainings."""

import multiprocessing
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

import numpy as np

from metarl.bench.timing import median_seconds, peak_gigabytes
from metarl.experiment import load_config
from metarl.method import Method, load_method, train
from metarl.optim import TrustRegion
from metarl.params import flatten, repeat
from metarl.rl.adaptation import adapt_all, collect
from metarl.rl.config import Config
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.policies import GaussianPolicy
from metarl.rl.problem import PolicyProblem
from metarl.rng import make_rng
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.data import Omniglot
from metarl.supervised.datasets.cache import ImageSet

# shape, classes and images per class of noise in place of the data sets, about as large as they are
NOISE = {"omniglot": ((28, 28, 1), 1200, 20), "miniimagenet": ((84, 84, 3), 64, 100)}


def iteration(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Seconds of a meta-iteration of MAML and of its parts, and the peak memory in gigabytes.

    Returns:
        `sampling` and `learning`: medians over whole iterations. `memory`. `adapt`: part of
        sampling. `gradient`, `curvature` (all products of an outer step) and `line search` (one
        candidate): parts of learning. `GFLOP adapt` and so on: see `count_gflop`.
    """
    config = load_config(source, [*overrides, f"outer.iterations={repeats + 1}"])
    assert isinstance(config, Config)
    method = load_method(config)
    # the first iteration allocates memory and is not counted
    metrics = [metrics for _, metrics in train(method, method.initial_state())][1:]
    return {
        "sampling": statistics.median(m["time/sampling"] for m in metrics),
        "learning": statistics.median(m["time/learning"] for m in metrics),
        "memory": peak_gigabytes(),
        **_time_parts(config, repeats),
        **{f"GFLOP {part}": count for part, count in count_gflop(config).items()},
    }


def _time_parts(config: Config, repeats: int) -> dict[str, float]:
    outer, problem = config.outer, PolicyProblem(config)
    assert isinstance(outer, TrustRegion)
    inner, horizon = problem.inner, problem.family.horizon
    theta = inner.init(problem.generator())
    rollouts = collect(
        inner, theta, problem.env_shards, problem.sample_tasks(0), horizon, problem.key(0)
    )
    problem.close()
    objective = MetaObjective(inner, rollouts)

    def adapt() -> object:
        (alpha,) = inner.step_sizes(theta)
        stacked = repeat(theta, config.outer.meta_batch)
        return adapt_all(inner, stacked, rollouts.pre[0], alpha, {}, 0)

    def curvature_products() -> None:
        product = objective.curvature(theta, outer.curvature_fraction)
        for _ in range(outer.cg_iterations):
            product(flatten(theta))

    return {
        "adapt": median_seconds(adapt, repeats),
        "gradient": median_seconds(lambda: objective.gradient(theta), repeats),
        "curvature": median_seconds(curvature_products, repeats),
        "line search": median_seconds(lambda: objective.value_and_kl(theta), repeats),
    }


def count_gflop(config: Config) -> dict[str, float]:
    """10⁹ floating-point operations in the matrix products of a meta-iteration's parts.

    For W weights, W' of them in the first layer, a forward pass takes W multiplications per sample,
    and a backward pass 2 W − W', because the gradient of the observations is not needed. Their
    directional derivatives take 2 W − W' and 4 W − 3 W'. Biases, activations and densities are not
    counted.
    """
    problem, outer = PolicyProblem(config), config.outer
    policy = problem.policy
    assert isinstance(outer, TrustRegion)
    assert isinstance(policy, GaussianPolicy)
    sizes = (policy.observation_size, *policy.hidden_sizes, policy.action_size)
    first, *others = (fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    total, steps = first + sum(others), config.inner.steps
    # multiplications per sample, where `hessian` is a product with an inner step's second
    # derivative: tangents of a forward and of a backward pass, (2 W − W') + (4 W − 3 W')
    forward, backward = total, 2 * total - first
    tangent, hessian = 2 * total - first, 6 * total - 4 * first
    product = 2 * steps * hessian + tangent + backward
    objective = steps * (forward + backward) + forward
    # `subsample` takes every k-th sample
    curvature_fraction = 1 / max(1, round(1 / outer.curvature_fraction))
    samples = problem.steps_per_stage
    return {
        part: 2e-9 * samples * multiplications
        for part, multiplications in {
            "adapt": forward + backward,
            "gradient": objective + backward + steps * hessian,
            "curvature": curvature_fraction * (objective + outer.cg_iterations * product),
            "line search": objective,
        }.items()
    }


def supervised(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Seconds of a meta-iteration and of drawing its tasks, and the peak memory in gigabytes."""
    # an iteration on waves takes milliseconds: a hundred of them are timed together
    span = 100 if source == "sinusoid" else 1
    length = [f"outer.iterations={(repeats + 2) * span}", f"report_every={span}"]
    method = _load_method(source, [*overrides, *length])
    training = train(method, method.initial_state())
    # two reports to warm up
    metrics = [metrics for _, metrics in training if metrics][2:]
    return {
        "iteration": statistics.median(m["time/iteration"] for m in metrics),
        "drawing": statistics.median(m["time/drawing"] for m in metrics),
        "memory": peak_gigabytes(),
    }


def contention(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Seconds of an iteration: `single`, and `concurrent` with another such training."""
    context = multiprocessing.get_context("spawn")
    figures = {}
    for name, count in (("single", 1), ("concurrent", 2)):
        with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
            start = manager.Barrier(count, timeout=600)  # timed once all have warmed up
            trainings = [
                pool.submit(_time_iterations, source, overrides, repeats, start)
                for _ in range(count)
            ]
            figures[name] = statistics.mean(training.result() for training in trainings)
    return figures


def _time_iterations(
    source: str, overrides: Sequence[str], repeats: int, start: threading.Barrier
) -> float:
    training = train(_load_method(source, [*overrides, f"outer.iterations={repeats + 2}"]))
    next(training)  # warms up
    start.wait()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        next(training)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _load_method(source: str, overrides: Sequence[str]) -> Method:
    """The method of a config, with noise in place of images, so that no data set is needed."""
    config = load_config(source, overrides)
    if isinstance(config, SupervisedConfig) and isinstance(config.data, Omniglot):
        config.data.__dict__["images"] = _noise_images(config.data.name)  # a cached property
    return load_method(config)


def _noise_images(name: str) -> ImageSet:
    shape, num_classes, per_class = NOISE[name]
    size = (num_classes * per_class, *shape)
    images = make_rng(0, "noise").integers(0, 256, size, dtype=np.uint8)
    names = tuple(str(number) for number in range(num_classes))
    splits = {"train": np.arange(num_classes)}
    return ImageSet(images, np.arange(num_classes + 1) * per_class, names, splits, "")
