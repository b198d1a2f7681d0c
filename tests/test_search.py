"""Searches over ranges of settings."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metarl.cli import main
from metarl.errors import UserError
from metarl.launch import search
from metarl.launch.search import (
    as_range,
    is_below_median,
    parse_ranges,
    propose,
    training_scores,
)
from metarl.launch.several import PRUNED, find_runs
from metarl.rl.problem import RETURN

CONFIG = """
data: sinusoid
network: {kind: mlp, hidden_sizes: [8]}
inner: {step_size: 0.01, shots: 2, queries: 2}
outer: {iterations: 1, meta_batch: 2}
evaluation: {tasks: 5, steps: 1}
"""


def group(value: float, score: float) -> SimpleNamespace:
    """An experiment with a step size and a score."""
    config = SimpleNamespace(model_dump=lambda mode: {"inner": {"step_size": value}})
    summary = SimpleNamespace(estimate=np.array([0.0, score]))
    return SimpleNamespace(runs=[SimpleNamespace(config=config)], summary=summary)


def make_groups(low: float, high: float, best: float, number: int = 30) -> list[SimpleNamespace]:
    values = np.geomspace(low, high, number)
    return [group(value, -abs(float(np.log(value / best)))) for value in values]


def propose_values(higher_is_better: bool, groups: list[SimpleNamespace]) -> list[float]:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    _, ranges = parse_ranges(["inner.step_size=0.001..1.0"])
    proposals = propose(ranges, groups, len(groups), 8, higher_is_better)
    return [float(values["inner.step_size"]) for values in proposals]


def test_a_search_concentrates_on_good_scores() -> None:
    groups = make_groups(0.001, 1.0, best=0.01)
    near = [abs(np.log10(value / 0.01)) < 0.7 for value in propose_values(True, groups)]
    assert sum(near) >= 6
    far = [abs(np.log10(value / 0.01)) < 0.7 for value in propose_values(False, groups)]
    assert sum(far) <= 2


def test_a_resumed_search_proposes_the_same_settings() -> None:
    groups = make_groups(0.001, 1.0, best=0.01)
    assert propose_values(True, groups) == propose_values(True, groups)
    assert propose_values(True, groups) != propose_values(True, groups[:-1])


def test_settings_outside_the_range_are_ignored() -> None:
    values = propose_values(True, [group(5.0, 1.0), *make_groups(0.001, 1.0, 0.1)])
    assert all(0.001 <= value <= 1.0 for value in values)


def test_ranges_distinguish_integers_and_log_scales() -> None:
    fixed, ranges = parse_ranges(
        ["inner.steps=1..3", "data.path=../images", "inner.step_size=1e-3..1"]
    )
    assert fixed == ["data.path=../images"]
    assert ranges["inner.steps"].is_integer
    assert not ranges["inner.steps"].uses_log_scale
    assert ranges["inner.step_size"].uses_log_scale
    assert not ranges["inner.step_size"].is_integer
    assert ranges["inner.step_size"].rounded(0.0012345) == 0.00123
    assert ranges["inner.step_size"].rounded(0.0009999) == 0.001


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("inner.step_size=0.1,0.2", "needs a range"),
        ("inner.step_size=0.5..0.1", "the lower end of a range comes first"),
        ("inner.step_size=low..high", "needs a range"),
        ("seed=1..9", "use --seeds"),
    ],
)
def test_an_invalid_range_is_reported(setting: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_ranges([setting])


def test_the_error_without_the_package_names_the_extra(monkeypatch, complaint) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    arguments = ["--set", "inner.step_size=0.1..0.5", "--search", "3"]
    assert "metarl-maml[search]" in complaint("sweep", "point_navigation_small", *arguments)


def write_scores(run: Path, scores: list[float]) -> Path:
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("inner: {step_size: 0.5}")
    lines = [{"iteration": n, "return/after_1_steps": score} for n, score in enumerate(scores, 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_combination_below_the_median_is_pruned(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    for number in range(6):
        write_scores(tmp_path / f"a={number}" / "seed-1", [0.0, number, number, number])
    low = write_scores(tmp_path / "a=low" / "seed-1", [9.0, 1.0, 2.0])
    assert training_scores(tmp_path / "a=low", RETURN) == {1: 9.0, 2: 1.0, 3: 2.0}
    assert not is_below_median(low, tmp_path, RETURN, 0)  # its best score is above the median

    low = write_scores(tmp_path / "a=lower" / "seed-1", [1.0, 1.0])
    assert is_below_median(low, tmp_path, RETURN, 0)
    assert not is_below_median(low, tmp_path, RETURN, 3)  # too early
    assert not is_below_median(low, tmp_path, replace(RETURN, higher_is_better=False), 0)
    # a second seed raises the mean of the iterations that both have reached
    write_scores(low.parent / "seed-2", [30.0])
    assert training_scores(low.parent, RETURN) == {1: 15.5}
    assert not is_below_median(low, tmp_path, RETURN, 0)
    (low / PRUNED).touch()
    assert is_below_median(low.parent / "seed-2", tmp_path, RETURN, 0)


def test_a_search_learns_from_pruned_combinations() -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    _, ranges = parse_ranges(["inner.step_size=0.001..1.0"])
    groups = make_groups(0.001, 0.03, best=0.003, number=4)
    pruned = [({"inner.step_size": value}, {3: -9.0}) for value in np.geomspace(0.1, 1.0, 12)]
    proposals = propose(ranges, groups, 16, 6, True, pruned)
    assert sum(float(values["inner.step_size"]) < 0.1 for values in proposals) >= 5


def test_a_range_by_an_old_name_is_searched_by_the_present_one(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    searched: list[str] = []
    monkeypatch.setattr(
        "metarl.launch.search.propose", lambda ranges, *_: searched.extend(ranges) or []
    )
    limits = as_range("inner.lam", 0.9, 1.0)
    with pytest.warns(DeprecationWarning, match="gae_lambda"):
        search.search("point_navigation", {"inner.lam": limits}, tmp_path / "out", 2)
    assert searched == ["inner.gae_lambda"]


@pytest.mark.slow
def test_a_search_resumes_from_its_directory(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(CONFIG)
    command = ["sweep", str(config), "--set", "inner.step_size=0.001..0.1", "--search"]
    assert main([*command, "2", "--out", str(out)]) == 0
    first = find_runs(out)
    assert len(first) == 2
    assert main([*command, "3", "--resume", str(out)]) == 0
    assert {*first} < {*find_runs(out)}
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert len(rows) == len(find_runs(out)) == 3
    assert all(0.001 <= float(row["inner.step_size"]) <= 0.1 for row in rows)
