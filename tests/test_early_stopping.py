"""Early stopping: the end of a training, the best parameters, exact resume."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import best_state, is_trained, load_method, train
from metarl.runs.run import Run

SINE = ("outer.meta_batch=3", "network.hidden_sizes=[8]", "outer.iterations=12", "report_every=5")
STOP = ("early_stopping.every=2", "early_stopping.patience=2", "early_stopping.tasks=3")
TINY = [f"--set={setting}" for setting in (*SINE, *STOP, "evaluation.tasks=2")]


def scored(scores: list[float], *settings: str):
    """A method whose validations have these scores, and the states of its training."""
    method = load_method(load_config("sinusoid", [*SINE, *STOP, *settings]))
    results = iter(scores)
    method.validation_score = lambda params, number: next(results)
    return method, list(train(method))


@pytest.mark.parametrize(
    ("scores", "iterations", "best"),
    [
        ([3.0, 2.0, 2.5, 2.1, 0.0, 0.0], 8, 4),
        ([3.0, 4.0, 2.9, 2.8, 2.7, 2.6], 12, 12),
        ([float("nan"), 5.0, float("nan"), float("nan"), 0.0, 0.0], 8, 4),
        ([3.0, 3.0, 3.0, 0.0, 0.0, 0.0], 6, 2),
    ],
)
def test_training_ends_after_validations_without_a_better_score(scores, iterations, best) -> None:
    method, states = scored(scores)
    state, last_metrics = states[-1]
    assert state.iteration == len(states) == iterations
    assert is_trained(method, state)
    assert last_metrics["validation/error"] == pytest.approx(
        scores[iterations // 2 - 1], nan_ok=True
    )
    kept = best_state(state)
    assert kept.iteration == best
    for name, leaf in states[best - 1][0].params.items():
        assert torch.equal(kept.params[name], leaf)


def test_without_patience_training_validates_to_its_last_iteration() -> None:
    _, states = scored([2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "early_stopping.patience=null")
    scores = [metrics["validation/error"] for _, metrics in states if "validation/error" in metrics]
    assert scores == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert best_state(states[-1][0]).iteration == 2


def test_a_resumed_training_stops_where_an_uninterrupted_one_does() -> None:
    scores = [3.0, 2.0, 2.5, 2.1, 0.0, 0.0]
    _, states = scored(scores)
    for stop in (3, 4, 7):
        method = load_method(load_config("sinusoid", [*SINE, *STOP]))
        results = iter(scores[stop // 2 :])
        method.validation_score = lambda params, number, results=results: next(results)
        *_, (state, _) = train(method, replace(states[stop - 1][0]))
        assert state.iteration == 8
        for part in ("params", "opt_state", "extra"):
            for name, leaf in getattr(states[-1][0], part).items():
                assert torch.equal(getattr(state, part)[name], leaf)


def test_validations_of_one_training_have_the_same_settings(tmp_path: Path, complaint) -> None:
    out, folder = tmp_path / "seed-1", str(tmp_path)
    config = load_config("sinusoid", [*SINE, *STOP, "evaluation.tasks=2"])
    metarl.train(config, out, callbacks=[lambda state, _: state.iteration < 3])
    changed = "--set=evaluation.shots=3"
    sentence = "has been validated with other settings (evaluation.shots: 5 → 3); keep them"
    for run in (str(out), folder):
        assert sentence in complaint("train", "--resume", run, changed)
    more = ["--seeds", "1", "--resume", folder]
    assert sentence in complaint("train", "sinusoid", *TINY, changed, *more)
    other = load_config("sinusoid", [*SINE, *STOP, "evaluation.tasks=2", "evaluation.shots=3"])
    with pytest.raises(UserError, match="has been validated with other settings"):
        metarl.train(other, out, resume=True)
    assert Run.open(out).config == config
    assert main(["evaluate", str(out), changed]) == 0
    assert metarl.train(config, out, resume=True).load().iteration > 3
    assert main(["train", "--resume", str(out), changed]) == 0  # it has ended


def test_the_best_parameters_are_evaluated_and_loaded_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([2.0, 1.0, 3.0, 3.0])
    monkeypatch.setattr(
        "metarl.supervised.maml.MAML.validation_score", lambda *_: next(scores), raising=False
    )
    run = tmp_path / "run"
    assert main(["train", "sinusoid", *TINY, "--out", str(run)]) == 0
    assert "stopped early" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--checkpoint", "best"]) == 0
    last, best = (
        json.loads((run / f"{name}.json").read_text()) for name in ("evaluation", "evaluation-best")
    )
    assert (last["iteration"], best["iteration"]) == (8, 4)
    assert last["scores"] != best["scores"]
    assert Run.open(run).at("best").load().iteration == 4
    with pytest.raises(UserError, match="leave out either the name or the checkpoint"):
        metarl.evaluate(run, checkpoint="best", name="other")
    curve = metarl.evaluate(run, checkpoint="best")
    assert curve.scores.tolist() == best["scores"]
    chosen = Run.open(run).at("best")
    assert metarl.evaluate(chosen).scores.tolist() == best["scores"]
    assert metarl.load_network(chosen).evaluate().scores.tolist() == best["scores"]
    assert metarl.load_network(run, checkpoint="best").evaluate().scores.tolist() == best["scores"]
    assert metarl.load_network(run).evaluate().scores.tolist() == last["scores"]
    network = metarl.load_network(run, checkpoint="best").adapt([0.0, 1.0], [0.5, 0.2])
    other = metarl.load_network(run).adapt([0.0, 1.0], [0.5, 0.2])
    assert network.predict([0.3]).tolist() != other.predict([0.3]).tolist()
    assert main(["train", "--resume", str(run)]) == 2
    assert "is complete" in capsys.readouterr().err

    for options, sentence in {
        ("--checkpoint", "best", "--name", "x"): "has an evaluation of its own",
        ("--name", "best"): "--name best is the name of --checkpoint best",
        ("--set", "outer.iterations=7"): "has no effect on an evaluation",
    }.items():
        assert main(["evaluate", str(run), *options]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert main(["results", str(run), "--verify"]) == 0  # each evaluation, with its own weights
    assert capsys.readouterr().out.count("holds: all") == 2
    assert main(["results", str(run), "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text() + (tmp_path / "page" / "sinusoid.md").read_text()
    assert "| MAML, best checkpoint |" in page

    (run / "evaluation-best.json").unlink()  # evaluated again, not read from the last weights
    assert metarl.load_network(run, checkpoint="best").evaluate().scores.tolist() == best["scores"]


def test_an_evaluation_of_earlier_weights_does_not_complete_a_run(tmp_path: Path, capsys) -> None:
    run, settings = tmp_path / "run", ["--set", "outer.iterations=1", "--set", "evaluation.tasks=2"]
    assert main(["train", "sinusoid", *settings, "--out", str(run)]) == 0
    stale = (run / "evaluation.json").read_bytes()
    assert main(["train", "--resume", str(run), "--iterations", "2"]) == 0
    (run / "evaluation.json").write_bytes(stale)  # as if the second evaluation had been stopped
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "evaluation.json").read_bytes() != stale


@pytest.mark.parametrize(
    "config", ["sinusoid", "point_navigation", "point_navigation_rl2", "point_navigation_cavia"]
)
def test_a_validation_does_not_depend_on_what_came_before(config: str) -> None:
    settings = ["early_stopping.tasks=3", "outer.meta_batch=2"]
    if config != "sinusoid":
        settings += ["family.settings.horizon=5", "evaluation.episodes_per_task=2"]
    method = load_method(load_config(config, settings))
    params = method.initial_state().params
    first = method.validation_score(params, 3)
    assert first == method.validation_score(params, 3) != method.validation_score(params, 4)


def test_a_policy_is_validated_after_the_inner_steps_of_training() -> None:
    settings = ["inner.steps=2", "family.settings.horizon=5", "outer.meta_batch=2"]
    method = load_method(load_config("point_navigation", settings))
    params = method.initial_state().params
    curve = method.curve(params, *method.problem.validation_tasks(3), (0.5, 0.5))
    assert method.validation_score(params, 3) == curve.scores[:, 2].mean()


def test_a_run_without_validations_has_no_best_checkpoint() -> None:
    with pytest.raises(UserError, match="train with early_stopping=true"):
        Run.open(Path("sinusoid")).at("best")
    with pytest.raises(UserError, match="must be last or best"):
        Run.open(Path("sinusoid")).at("first")


@pytest.mark.parametrize("setting", ["early_stopping=true", "early_stopping.patience=3"])
def test_baselines_use_the_whole_budget(setting: str) -> None:
    for config in ("sinusoid", "point_navigation"):
        with pytest.raises(UserError, match="pretrained, which uses the whole budget"):
            load_config(config, ["method=pretrained", setting])
