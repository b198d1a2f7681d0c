"""The benchmark: its figures, their arithmetic, and its tables."""

import math
from io import StringIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from metarl.bench import parts, timing
from metarl.bench import target as targets
from metarl.bench.parts import SUPERVISED
from metarl.bench.sampling import sampling
from metarl.bench.tables import TABLES
from metarl.bench.target import target
from metarl.bench.timing import run_in_subprocess
from metarl.bench.training import contention, count_gflop, iteration, supervised
from metarl.cli import bench
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.params import flatten
from metarl.report.published import find_published
from metarl.rl.adaptation import collect
from metarl.rl.meta_objective import MetaObjective
from metarl.rl.problem import PolicyProblem
from metarl.threads import processors

PARTS = dict.fromkeys(
    ("sampling", "learning", "adapt", "gradient", "curvature", "line search"), 9.9
)
COUNTED = {f"GFLOP {part}": 44.5 for part in ("adapt", "gradient", "curvature", "line search")}
TINY = ("outer.meta_batch=2", "inner.episodes_per_task=3", "family.settings.horizon=5")


@pytest.mark.slow
def test_the_parts_of_an_iteration_are_measured_in_a_subprocess() -> None:
    figures = run_in_subprocess(iteration, "point_navigation", TINY, 1)
    assert figures.keys() == {*PARTS, *COUNTED, "memory"}
    assert all(value > 0 for value in figures.values())
    assert figures["memory"] < 2.0


def test_sampling_is_compared_with_physics_and_gymnasium(monkeypatch) -> None:
    # a clock by which whatever is measured takes a second, so that rates are numbers of steps
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=count().__next__))
    figures = sampling("half_cheetah_direction", TINY, 1)
    samples, sync_steps = 2 * 3 * 5, 16 * 5
    assert figures == {
        "physics": samples,
        "observed": samples,
        "sampler": samples,
        "sync": sync_steps,
        "async": processors() * 5,
    }


def test_the_operations_of_an_iteration_are_those_of_its_matrix_products(monkeypatch) -> None:
    config = load_config("point_navigation", [*TINY, "outer.curvature_fraction=0.5"])
    problem = PolicyProblem(config)
    inner, theta, key = problem.inner, problem.inner.init(problem.generator()), problem.key(0)
    rollouts = collect(inner, theta, problem.envs, problem.sample_tasks(0), 4, key)
    objective = MetaObjective(inner, rollouts)

    def product() -> None:
        product = objective.curvature(theta, 0.5)
        for _ in range(config.outer.cg_iterations):
            product(flatten(theta))

    def map_in_this_thread(function, num_tasks, size):
        return [function(slice(start, start + size)) for start in range(0, num_tasks, size)]

    for module in ("metarl.rl.inner_loop", "metarl.rl.meta_objective"):
        monkeypatch.setattr(
            f"{module}.map_chunks", map_in_this_thread
        )  # the counter sees one thread
    monkeypatch.setattr(PolicyProblem, "steps_per_stage", 2 * 3 * 4)
    for part, function in (
        ("gradient", lambda: objective.gradient(theta)),
        ("curvature", product),
        ("line search", lambda: objective.value_and_kl(theta)),
    ):
        mapping = {torch.ops.aten.baddbmm_: lambda _, a, b, **__: 2 * math.prod(a) * b[-1]}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            function()
        assert counter.get_total_flops() == pytest.approx(1e9 * count_gflop(config)[part])


@pytest.mark.slow
def test_two_concurrent_trainings_are_compared_with_a_single_one() -> None:
    figures = contention("point_navigation", TINY, 1)
    assert figures.keys() == {"single", "concurrent"}
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize(
    ("part", "figures"),
    [
        ("sampling", dict.fromkeys(("physics", "observed", "sampler", "sync", "async"), 407500.0)),
        ("supervised", {"iteration": 1.64, "drawing": 0.011, "memory": 1.5}),
        ("contention", {"single": 19.5, "concurrent": 41.5}),
        ("target", {"published": 293.2, "seed 1": 40.5, "seed 2": math.inf, "median": math.inf}),
        *((part, {**PARTS, **COUNTED, "memory": 1.23}) for part in ("iteration", "growth")),
    ],
)
def test_headings_of_tables_are_not_truncated_on_a_narrow_terminal(part, figures) -> None:
    console = Console(width=80, record=True, file=StringIO())
    case = max(parts.PARTS[part].cases, key=len)
    table = TABLES[part]({case: figures}, {"product": 167.0, "memory": 20.0})
    console.print(table)
    printed = console.export_text()
    assert "…" not in printed
    headings = {word for column in table.columns for word in str(column.header).split()}
    assert headings <= {*printed.split()}


@pytest.mark.slow
@pytest.mark.parametrize("question", SUPERVISED)
def test_supervised_learning_is_measured_without_data_sets(question, monkeypatch) -> None:
    monkeypatch.delenv("METARL_DATA", raising=False)
    source, overrides = SUPERVISED[question]
    figures = supervised(source, [*overrides, "outer.meta_batch=2"], 1)
    assert figures.keys() == {"iteration", "drawing", "memory"}
    assert all(value > 0 for value in figures.values())


def test_training_is_timed_until_the_published_return_is_reached(monkeypatch) -> None:
    # whatever is measured takes a second: a reading before training and one after it
    monkeypatch.setattr(targets, "time", SimpleNamespace(perf_counter=count().__next__))
    published = find_published(load_method(load_config("point_navigation")).problem)
    returns = iter([-30.0, -11.0, -11.0, -11.0, -11.0, -11.0] + [-30.0] * 9)

    def train(method, state):
        for number in range(method.problem.config.outer.iterations):
            score = next(returns)
            yield number, {"return/after_0_steps": 0.0, "return/after_1_steps": score}

    monkeypatch.setattr(targets, "train", train)
    overrides = ["outer.iterations=7"]
    assert target("point_navigation", overrides, 2) == {
        "published": published.target,
        "seed 1": 1.0,
        "seed 2": math.inf,
        "median": math.inf,
    }
    assert next(returns) == -30.0


def test_invalid_measurements_are_reported(complaint) -> None:
    assert "there is no part 'smapling'" in complaint("bench", "smapling")
    assert "at least 1" in complaint("bench", "--repeats", "0")


def test_an_output_that_cannot_be_written_is_reported_before_measurements(
    complaint, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(bench, "run_in_subprocess", lambda *_: pytest.fail("it measured"))
    assert "cannot write" in complaint("bench", "--out", str(tmp_path))
