"""Training from the weights of a run, callbacks, and videos during training."""

import re
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl import UserError
from metarl.cli import main
from metarl.launch import recording
from metarl.launch.train import resume_run
from metarl.runs.run import Run

TINY = {
    "family": {"name": "point-navigation", "settings": {"horizon": 5}},
    "policy": {"hidden_sizes": [4]},
    "inner": {"episodes_per_task": 2},
    "outer": {"algorithm": "adam", "iterations": 2, "meta_batch": 2},
    "evaluation": {"tasks": 2, "episodes_per_task": 2, "step_sizes": [0.1]},
}
WAVES = {
    "data": "sinusoid",
    "network": {"kind": "mlp", "hidden_sizes": [4]},
    "inner": {"shots": 2, "queries": 2},
    "outer": {"iterations": 2, "meta_batch": 2},
    "evaluation": {"tasks": 2, "steps": 1},
}


def changed(values: dict, **sections) -> dict:
    """A config with changed settings in its sections."""
    result = dict(values)
    for name, value in sections.items():
        old = values.get(name)
        result[name] = {**old, **value} if isinstance(old, dict) else value
    return result


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return metarl.train(TINY, tmp_path_factory.mktemp("source") / "run")


def test_a_training_starts_from_the_weights_of_a_run(source: Run, tmp_path: Path) -> None:
    run = metarl.train(
        {**TINY, "seed": 2, "checkpoint_every": 1},
        tmp_path / "run",
        init_from=source,
        callbacks=[lambda state, metrics: False],
    )
    start = run.config.init_from
    assert start.run == str(source.path)
    assert (start.iteration, start.sha256) == (2, source.weights_sha256())
    assert run.load().iteration == 1
    learning_rate = run.config.outer.learning_rate
    for name, leaf in source.load().params.items():
        moved = (run.load().params[name] - leaf).abs().max()
        assert 0.0 < moved < 2.0 * learning_rate  # one step of Adam away from the run


def test_the_weights_of_a_run_are_kept_exactly_when_training_is_resumed(
    source: Run, tmp_path: Path
) -> None:
    config = {**TINY, "seed": 2, "init_from": str(source.path)}
    whole = metarl.train(config, tmp_path / "whole").load()
    stop = [lambda state, metrics: state.iteration < 1]
    metarl.train(config, tmp_path / "parts", callbacks=stop)
    parts = metarl.train(config, tmp_path / "parts", resume=True).load()
    assert all(torch.equal(parts.params[name], leaf) for name, leaf in whole.params.items())
    assert Run.open(tmp_path / "parts").config.init_from.sha256 == source.weights_sha256()


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_same_weights(
    source: Run, tmp_path: Path
) -> None:
    run = metarl.train({**TINY, "init_from": str(source.path)}, tmp_path / "run")
    for file in [*tmp_path.glob("run/weights-*"), *tmp_path.glob("run/*.json*")]:
        file.unlink()
    with resume_run(run.path) as session:
        assert session.state.iteration == 0
        for name, leaf in source.load().params.items():
            assert torch.equal(session.state.params[name], leaf)


def test_a_run_with_a_checkpoint_does_not_need_the_run_that_it_started_from(
    source: Run, tmp_path: Path, monkeypatch
) -> None:
    start = Path(shutil.copytree(source.path, tmp_path / "start"))
    stop = [lambda state, metrics: False]
    metarl.train(TINY, tmp_path / "run", init_from=start, callbacks=stop)
    shutil.rmtree(start)
    run = metarl.train(TINY, tmp_path / "run", init_from=start, resume=True)
    assert run.load().iteration == 2
    # as torchrun does after a failure
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = ["--from", str(start), "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "tiny.yaml"), *again]) == 0


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"policy": {"hidden_sizes": [5]}}, "has shape"),
        ({"policy": {"hidden_sizes": [4, 4]}}, "only the config has a tensor"),
        ({"policy": {"activation": "tanh"}}, "policy.activation: relu → tanh"),
        ({"policy": {"observation_scale": [2.0, 2.0]}}, "policy.observation_scale: None → "),
        ({"family": {"name": "half-cheetah-velocity", "settings": {}}}, "has shape"),
        (
            {"inner": {"learned_step_sizes": "meta_sgd"}, "evaluation": {"step_sizes": None}},
            "only the config has a tensor",
        ),
        ({"method": "rl2", "evaluation": {"step_sizes": None}}, "has a tensor"),
    ],
)
def test_weights_of_another_network_are_refused(
    sections: dict, reason: str, source: Run, tmp_path: Path
) -> None:
    config = changed(TINY, **sections)
    with pytest.raises(UserError, match=f"do not fit this config: .*{re.escape(reason)}"):
        metarl.train(config, tmp_path / "run", init_from=source)
    assert not (tmp_path / "run").exists()


def test_weights_that_changed_since_the_start_are_refused(source: Run, tmp_path: Path) -> None:
    config = {**TINY, "init_from": {"run": str(source.path), "sha256": "0" * 64}}
    with pytest.raises(UserError, match="have changed since they were read"):
        metarl.train(config, tmp_path / "run")
    with pytest.raises(UserError, match="there is no run in nowhere"):
        metarl.train({**TINY, "init_from": "nowhere"}, tmp_path / "run")


@pytest.mark.parametrize("choice", [{"iteration": 1}, {"commit": "0" * 40}])
def test_a_checkpoint_of_a_run_cannot_be_chosen(choice: dict, source: Run, tmp_path: Path) -> None:
    config = {**TINY, "init_from": {"run": str(source.path), **choice}}
    with pytest.raises(UserError, match="init_from: iteration and commit are recorded by training"):
        metarl.train(config, tmp_path / "run")


def test_measured_factors_of_observations_are_those_of_the_run(tmp_path: Path) -> None:
    first = changed(TINY, policy={"observation_scale": [0.5, 3.0]})
    source = metarl.train(first, tmp_path / "source")
    measured = changed(TINY, policy={"observation_scale": "measured"})
    run = metarl.train(measured, tmp_path / "run", init_from=source)
    assert run.config.policy.observation_scale == (0.5, 3.0)


def test_a_network_of_waves_starts_from_a_run(tmp_path: Path, complaint, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = metarl.train(WAVES, "source")
    Path("waves.yaml").write_text(yaml.safe_dump(WAVES))
    assert main(["train", "waves.yaml", "--from", "source", "--out", "one"]) == 0
    assert Run.open(Path("one")).config.init_from.sha256 == source.weights_sha256()
    # of several seeds, the weights are checked before the first directory is created
    wide = ["--set", "network.hidden_sizes=[5]", "--from", "source", "--out", "wide"]
    assert "do not fit this config" in complaint("train", "waves.yaml", "--seeds", "2", *wide)
    assert not Path("wide").exists()


def run_advice(error: str) -> int:
    """Run the command that a message advises."""
    (command,) = re.findall(r"metarl (train .*NEW_DIRECTORY)", error)
    return main(shlex.split(command))


@pytest.mark.parametrize("section", ["inner: {step_size: 0.05", "policy: {hidden_sizes: [6]"])
def test_the_advice_for_an_edited_config_works(
    section: str, complaint: Callable[..., str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metarl.train(TINY, "run")
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    edit = yaml.safe_load(section + "}")
    Path("run/config.yaml").write_text(yaml.safe_dump(changed(config, **edit)))
    error = complaint("train", "--resume", "run")
    assert "is not what the run was trained with" in error
    assert run_advice(error) == 0
    assert ("--from run" in error) == ("policy" not in edit)


@pytest.mark.parametrize("override", ["outer.learning_rate=0.002", "policy.hidden_sizes=[3, 3]"])
def test_the_advice_for_another_setting_works(
    override: str, complaint: Callable[..., str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metarl.train(TINY, "run")
    assert run_advice(complaint("train", "--resume", "run", "--set", override)) == 0
    config = yaml.safe_load(Path("NEW_DIRECTORY/config.yaml").read_text())
    section, _, name = override.partition("=")[0].partition(".")
    assert config[section][name] == yaml.safe_load(override.partition("=")[2])


def test_the_advice_for_a_complete_run_with_a_schedule_works(
    complaint: Callable[..., str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metarl.train(changed(TINY, outer={"anneal": True}), "run")
    assert run_advice(complaint("train", "--resume", "run")) == 0


def test_the_advice_for_a_complete_baseline_counts_iterations(
    complaint: Callable[..., str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {name: value for name, value in TINY.items() if name != "outer"}
    shorter = {"iterations": 2, "meta_batch": 2}
    metarl.train({**config, "outer": shorter, "method": "pretrained"}, "run")
    error = complaint("train", "--resume", "run")
    assert "(4 updates); to train for longer add --iterations 4" in error


def test_a_run_of_another_domain_is_not_resumed(source: Run, complaint) -> None:
    error = complaint("train", "sinusoid", "--resume", str(source.path))
    sentence = "is of reinforcement learning, the config of few-shot learning; train it in another"
    assert sentence in error
    assert "family" not in error


def test_a_callback_sees_every_iteration_and_stops_the_training(tmp_path: Path) -> None:
    calls: list[tuple[int, bool]] = []

    def first(state, metrics):
        calls.append((state.iteration, "return/before" in metrics or bool(metrics)))
        return state.iteration < 3

    config = changed({**TINY, "report_every": 2}, outer={"iterations": 9})
    others: list[int] = []
    run = metarl.train(config, tmp_path, callbacks=[first, lambda s, m: others.append(1)])
    assert calls == [(1, False), (2, True), (3, False)]
    assert len(others) == 3  # also after the one that stops the training
    assert run.load().iteration == 3
    assert (run.path / "evaluation.json").exists()
    assert metarl.train(config, tmp_path, resume=True).load().iteration == 9


@pytest.mark.parametrize(
    ("result", "iterations"),
    [(False, 1), (np.False_, 1), (0, 2), (None, 2), (np.zeros(2), 2), (True, 2)],
)
def test_only_false_stops_the_training(result, iterations: int, tmp_path: Path) -> None:
    run = metarl.train(WAVES, tmp_path, callbacks=[lambda state, metrics: result])
    assert run.load().iteration == iterations


def test_an_exception_of_a_callback_ends_the_training_after_the_state_is_saved(
    tmp_path: Path,
) -> None:
    def fail(state, metrics):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        metarl.train(TINY, tmp_path, callbacks=[fail])
    assert Run.open(tmp_path).load().iteration == 1


def test_the_old_argument_for_progress_still_works(tmp_path: Path) -> None:
    reported: list[int] = []
    with pytest.warns(DeprecationWarning, match="use train\\(callbacks"):
        metarl.train(TINY, tmp_path, report=lambda iteration, metrics: reported.append(iteration))
    assert reported == [1, 2]


def test_videos_are_logged_and_do_not_change_the_training(tmp_path: Path) -> None:
    videos = metarl.train({**TINY, "record_every": 2}, tmp_path / "videos")
    plain = metarl.train(TINY, tmp_path / "plain")
    for name, leaf in plain.load().params.items():
        assert torch.equal(videos.load().params[name], leaf)
    (file,) = (videos.path / "videos").iterdir()
    assert file.name == "000002.gif"
    events = EventAccumulator(str(videos.path), {"images": 0})
    events.Reload()
    (image,) = events.Images("policy")
    assert image.step == 2
    assert image.encoded_image_string == file.read_bytes()
    assert image.width > image.height > 100


def test_training_goes_on_where_nothing_can_be_rendered(tmp_path: Path, monkeypatch) -> None:
    def unable(*arguments):
        raise RuntimeError("MuJoCo cannot render without a display")

    monkeypatch.setattr(recording, "compose_frames", unable)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = metarl.train({**TINY, "record_every": 1}, tmp_path)
    messages = [str(w.message) for w in caught if "record_every" in str(w.message)]
    assert messages == [
        "record_every: no video is recorded: MuJoCo cannot render without a display"
    ]
    assert run.load().iteration == 2
    assert not (tmp_path / "videos").exists()


def test_few_shot_learning_has_no_policy_to_record() -> None:
    with pytest.raises(UserError, match="record_every: there is no such setting"):
        metarl.SupervisedConfig(**WAVES, record_every=1)


@pytest.mark.parametrize("callbacks", [print, [print, None], "print"])
def test_callbacks_are_checked_before_the_run_is_created(callbacks, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="callbacks: must be a list of functions"):
        metarl.train(TINY, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_what_is_one_process_is_refused_under_torchrun(tmp_path, monkeypatch, complaint) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="torchrun --nproc-per-node 4 -m metarl train"):
        metarl.train(TINY, tmp_path / "run")
    assert "metarl evaluate is one process" in complaint("evaluate", "point_navigation")


def test_a_training_that_is_continued_in_python_has_the_checks_of_the_command(
    source: Run, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    stop = [lambda state, metrics: False]
    metarl.train({**TINY, "init_from": str(source.path)}, path, callbacks=stop)
    config = {**TINY, "init_from": str(source.path)}
    for section, name, value in (
        ("inner", "step_size", 0.3),
        ("early_stopping", "patience", 3),
    ):
        other = changed({**config, section: config.get(section, {})}, **{section: {name: value}})
        with pytest.raises(UserError, match=f"was started with other settings .*{name}"):
            metarl.train(other, path, resume=True)
    more = changed(config, evaluation={"tasks": 3})
    run = metarl.train(more, path, resume=True)
    assert Run.open(path).config.evaluation.tasks == 3
    assert len(metarl.load(run).evaluate().tasks) == 3
    fewer = changed(more, outer={"iterations": 1})
    with pytest.raises(UserError, match=r"outer.iterations=1: .* has had 2 iterations already"):
        metarl.train(fewer, path, resume=True)


def test_the_progress_of_a_training_in_python_is_printed_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metarl.train(TINY, tmp_path / "quiet")
    assert not capsys.readouterr().out
    metarl.train(TINY, tmp_path / "run", progress=True)
    assert "2/2" in capsys.readouterr().out


def test_a_run_from_an_address_with_a_colon_names_no_code(source: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    shutil.copytree(source.path, folder)
    run = metarl.train(TINY, tmp_path / "run", init_from=folder)
    assert Run.open(run.path).config.init_from.run == str(folder)
