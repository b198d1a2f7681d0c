"""Searches over ranges of settings."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.launch import search, several
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
    return [float(setting.partition("=")[2]) for [setting] in proposals]


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
        ("inner.step_size=0.5..0.1", "two numbers, the lower one first"),
        ("inner.step_size=low..high", "needs a range"),
        ("seed=1..9", "use --seeds"),
        ("inner.step_size=0.1..0.5 seed=5", "use --seeds"),
        ("inner.step_size=0.1..0.5 inner.step_size=0.3", "given twice"),
    ],
)
def test_an_invalid_range_is_reported(setting: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_ranges(setting.split(" "))


def test_the_error_without_the_package_names_the_extra(monkeypatch, complaint) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    arguments = ["--set", "inner.step_size=0.1..0.5", "--search", "3"]
    assert "metarl-maml[search]" in complaint("sweep", "point_navigation_small", *arguments)


class Trainings:
    """A stand-in for `run_jobs`: each run gets a given score, fails or is pruned."""

    def __init__(self, monkeypatch, scores: dict[str, float | None]) -> None:
        pytest.importorskip("optuna", reason="the extra search is not installed")
        self.trained: list[str] = []
        self.scores = scores  # by the end of a run's name; None for a run that fails
        monkeypatch.setattr(several, "run_jobs", self.run_jobs)
        monkeypatch.setattr(several, "_is_finished", lambda run: (run.path / "score").exists())
        monkeypatch.setattr(search, "compare", self.compare)

    def run_jobs(self, jobs, is_stopped, on_failure, progress, should_prune) -> None:
        for job in jobs:
            self.trained.append(job.name)
            score = next((s for end, s in self.scores.items() if job.name.endswith(end)), 1.0)
            if score is None:
                on_failure(job, "training diverged")
            elif not should_prune(job):
                (job.run / "score").write_text(str(score))

    def compare(self, runs):
        groups: dict[str, list] = {}
        for run in runs:
            groups.setdefault(run.path.parent.name, []).append(run)
        result = []
        for members in groups.values():
            scores = [float((run.path / "score").read_text()) for run in members]
            summary = SimpleNamespace(estimate=np.array([0.0, np.mean(scores)]))
            result.append(SimpleNamespace(runs=members, summary=summary))
        return result


def run_search(out: Path, trials: int, seeds=(1, 2), resume=False, prune=None, config=None):
    limits = {"inner.step_size": as_range("inner.step_size", 0.001, 0.1)}
    options = search.LaunchOptions(resume=resume, should_prune=prune or (lambda run: False))
    values = config or yaml.safe_load(CONFIG)
    return search.search(values, limits, out, trials, seeds, options=options)


def combinations(out: Path) -> list[str]:
    return list(dict.fromkeys(path.parent.name for path in find_runs(out)))


def test_a_combination_is_ranked_if_all_of_its_seeds_are_complete(tmp_path, monkeypatch) -> None:
    proposed_from = []
    propose = search.propose

    def recording(*arguments):
        proposed_from.append((len(arguments[1]), arguments[5]))
        return propose(*arguments)

    monkeypatch.setattr(search, "propose", recording)
    trainings = Trainings(monkeypatch, {})
    run_search(tmp_path, 1)
    (first,) = combinations(tmp_path)
    (tmp_path / first / "seed-1" / "score").unlink()
    trainings.scores = {f"{first}/seed-1": None}
    result = run_search(tmp_path, 2, resume=True)
    assert {run.path.parent.name for run in result.runs} == {*combinations(tmp_path)} - {first}
    assert list(result.failures) == [f"{first}/seed-1"]
    # the proposal knew that the combination had failed, and no score of its other seed
    number_ranked, [(settings, scores)] = proposed_from[-1]
    assert (number_ranked, scores) == (0, {})
    assert f"inner.step_size={settings['inner.step_size']:.10g}" == first


def test_a_search_with_a_pruned_seed_does_not_rank_the_other_one(tmp_path, monkeypatch) -> None:
    Trainings(monkeypatch, {})
    result = run_search(tmp_path, 2, prune=lambda run: run.name == "seed-1")
    assert not result.runs
    assert not result.failures
    assert len(combinations(tmp_path)) == 2


def test_a_resumed_search_adds_seeds_and_has_the_settings_of_its_config(
    tmp_path, monkeypatch
) -> None:
    trainings = Trainings(monkeypatch, {})
    run_search(tmp_path, 2, seeds=(1,))
    trainings.trained.clear()
    run_search(tmp_path, 2, seeds=(1, 2, 3), resume=True)
    names = [f"{name}/seed-{seed}" for name in combinations(tmp_path) for seed in (2, 3)]
    assert sorted(trainings.trained) == sorted(names)
    changed = yaml.safe_load(CONFIG)
    changed["outer"]["meta_batch"] = 3
    with pytest.raises(UserError, match="meta_batch"):
        run_search(tmp_path, 3, seeds=(1, 2, 3), resume=True, config=changed)
    with pytest.raises(UserError, match="already holds 6 runs"):
        run_search(tmp_path, 2)
    limits = {"outer.meta_batch": as_range("outer.meta_batch", 1, 3)}
    options = search.LaunchOptions(resume=True)
    with pytest.raises(UserError, match=r"vary other settings .* than the ranges"):
        search.search(yaml.safe_load(CONFIG), limits, tmp_path, 3, options=options)


def test_a_search_with_failed_combinations_has_a_table_of_the_others(tmp_path, monkeypatch) -> None:
    trained = search.Trained(["a run"], {"inner.step_size=0.1/seed-1": "training diverged"})
    monkeypatch.setattr("metarl.api.launch_search", lambda *arguments, **options: trained)
    monkeypatch.setattr("metarl.api.groups.compare", lambda runs: runs)
    monkeypatch.setattr("metarl.api.SweepTable.of", lambda groups: groups)
    ranges = {"inner.step_size": (0.01, 0.1)}
    with pytest.warns(UserWarning, match=r"not in the table: inner.step_size=0.1/seed-1"):
        assert metarl.search({}, ranges, tmp_path, trials=2) == ["a run"]


@pytest.mark.parametrize("ends", [0.1, (0.1, 0.2, 0.3), ("0.1", "0.2"), (0.2, 0.1), (0.1, None)])
def test_a_range_in_python_is_a_pair_of_numbers(ends, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"inner\.step_size: a range"):
        metarl.search(yaml.safe_load(CONFIG), {"inner.step_size": ends}, tmp_path, trials=1)


def test_a_range_of_a_whole_number_has_whole_ends(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    config = yaml.safe_load(CONFIG)
    with pytest.raises(UserError, match=r"inner\.steps: must be a whole number"):
        metarl.search(config, {"inner.steps": (1, 5.0)}, tmp_path / "out", trials=1)
    assert as_range("inner.steps", np.int64(1), np.int64(5)).is_integer
    with pytest.raises(UserError, match="trials: must be a whole number of at least 1"):
        metarl.search(config, {"inner.steps": (1, 5)}, tmp_path / "out", trials=0)
    assert not (tmp_path / "out").exists()


def test_a_small_range_of_integers_is_searched_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    config, out, ranges = yaml.safe_load(CONFIG), tmp_path / "out", {"inner.steps": (1, 3)}
    table = metarl.search(config, ranges, out, trials=2)
    assert len(table.rows()) == 2
    with pytest.warns(UserWarning, match="ends after 3 of 9 combinations"):
        table = metarl.search(config, ranges, out, trials=9, resume=True)
    assert sorted(row["inner.steps"] for row in table.rows()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("low", "high", "value", "rounded"),
    [
        (0.999, 0.9999, 0.99945678, 0.9994568),
        (0.0, 1.0, 0.12345678, 0.123),
        (0.01, 0.5, 0.12345678, 0.123),  # on a log scale
        (1000, 1009, 1004, 1004),
        (0.9, 1.0, 0.99999999, 1.0),
    ],
)
def test_values_are_rounded_by_the_width_of_their_range(low, high, value, rounded) -> None:
    assert as_range("inner.gamma", low, high).rounded(value) == pytest.approx(rounded, abs=1e-12)


def test_a_search_needs_ranges_by_setting(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    config = yaml.safe_load(CONFIG)
    with pytest.raises(UserError, match="a search needs a range"):
        metarl.search(config, {}, tmp_path / "out", trials=1)
    for function in (metarl.search, metarl.sweep):
        options = {"trials": 1} if function is metarl.search else {}
        with pytest.raises(UserError, match="must be a dict"):
            function(config, [("inner.step_size", 0.1)], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_values_of_other_trials_that_are_no_numbers_are_ignored() -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    ranges = {"inner.clip": as_range("inner.clip", 0.1, 10.0)}
    assert len(propose(ranges, [], 1, 2, True, [({"inner.clip": None}, {})])) == 2


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
    (low / "metrics.jsonl").write_text("{bad\n{}\n")
    assert training_scores(low.parent, RETURN) == {}


def test_a_search_learns_from_pruned_combinations() -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    _, ranges = parse_ranges(["inner.step_size=0.001..1.0"])
    groups = make_groups(0.001, 0.03, best=0.003, number=4)
    pruned = [({"inner.step_size": value}, {3: -9.0}) for value in np.geomspace(0.1, 1.0, 12)]
    proposals = propose(ranges, groups, 16, 6, True, pruned)
    assert sum(float(setting.partition("=")[2]) < 0.1 for [setting] in proposals) >= 5


def test_a_range_by_an_old_name_is_searched_by_the_present_one(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("optuna", reason="the extra search is not installed")
    searched: list[str] = []
    monkeypatch.setattr(
        "metarl.launch.search.propose", lambda ranges, *_: searched.extend(ranges) or []
    )
    limits = as_range("inner.lam", 0.9, 1.0)
    deprecated = pytest.warns(DeprecationWarning, match="gae_lambda")
    with deprecated, pytest.warns(UserWarning, match="ends after 0 of 2 combinations"):
        search.search("point_navigation", {"inner.lam": limits}, tmp_path / "out", 2)
    assert {*searched} == {"inner.gae_lambda"}


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
