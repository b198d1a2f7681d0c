"""The benchmark measures what it says; the figures themselves are the machine's."""

from collections import defaultdict
from itertools import count
from types import SimpleNamespace

import pytest
from rich.console import Console

from metarl.cli.bench import PARTS, _table
from metarl.processors import processors
from metarl.runs import benchmark
from metarl.runs.benchmark import SUPERVISED, alone, iteration, sampling, supervised

TINY = ("outer.meta_batch=2", "inner.trajectories=3", "family.settings.horizon=5")


@pytest.mark.slow
def test_the_parts_of_an_iteration_are_measured_in_a_process_of_its_own() -> None:
    figures = alone(iteration, "point_navigation", TINY, 1)
    parts = {"sampling", "learning", "adapt", "gradient", "curvature", "line search"}
    assert figures.keys() == {*parts, "memory"}
    assert all(value > 0 for value in figures.values())
    assert figures["memory"] < 2.0


def test_sampling_is_measured_beside_physics_and_gymnasiums_own(monkeypatch) -> None:
    # a clock by which whatever is measured takes a second, so that rates are numbers of steps
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=count().__next__))
    figures = sampling("half_cheetah_direction", TINY, 1)
    ours, theirs = 2 * 3 * 5, 16 * 5
    assert figures == {
        "physics": ours,
        "observed": ours,
        "sampler": ours,
        "sync": theirs,
        "async": processors() * 5,
    }


@pytest.mark.slow
@pytest.mark.parametrize("question", SUPERVISED)
def test_supervised_learning_is_measured_without_any_data(question, monkeypatch) -> None:
    monkeypatch.delenv("METARL_DATA", raising=False)
    source, overrides = SUPERVISED[question]
    figures = supervised(source, [*overrides, "outer.meta_batch=2"], 1)
    assert figures.keys() == {"iteration", "drawing", "memory"}
    assert all(value > 0 for value in figures.values())


def test_what_cannot_be_measured_is_answered_in_a_sentence(complaint) -> None:
    assert "there is no part 'smapling'" in complaint("bench", "smapling")
    assert "at least 1" in complaint("bench", "--repeats", "0")


@pytest.mark.parametrize("part", PARTS)
def test_a_terminal_of_80_columns_cuts_no_heading(part: str) -> None:
    _, questions = PARTS[part]
    figures = {name: defaultdict(lambda: 12.345) for name in questions}
    table, console = _table(part, figures), Console(width=80)
    with console.capture() as captured:
        console.print(table)
    assert "…" not in captured.get()
    assert {word for c in table.columns for word in str(c.header).split()} <= {
        *captured.get().split()
    }
