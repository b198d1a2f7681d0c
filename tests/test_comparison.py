"""Evaluation, comparison, rendering and reports of several runs."""

import csv
import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import imageio.v2 as imageio
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from stable_baselines3 import PPO

from metarl.cli import main, output
from metarl.config.sections import InitialWeights
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, format_score, mean_over_tasks
from metarl.experiment import load_config
from metarl.intervals import mean_over_runs, summarise
from metarl.method import EPISODES, GRADIENT_STEPS, AdaptationUnit, load_method
from metarl.report.captions import describe_intervals
from metarl.report.comparison import rows, with_steps_to_match
from metarl.report.evaluations import Evaluation, load_or_evaluate
from metarl.report.groups import (
    ExperimentGroup,
    compare,
    group_experiments,
    same_evaluation,
    short_names,
)
from metarl.report.paired import paired_differences, paired_rows
from metarl.report.plots import plot_summary, plot_training
from metarl.report.text_tables import csv_table, latex_table
from metarl.report.training_curves import TrainingCurve, minutes_to_score, training_curves
from metarl.report.verification import verify
from metarl.report.video import _font, write_gif
from metarl.rl.problem import RETURN
from metarl.runs.run import Run

TINY = [
    "--set=family.settings.horizon=10",
    "--set=outer.meta_batch=3",
    "--set=outer.anneal=false",
    "--set=outer.iterations=2",
    "--set=inner.episodes_per_task=4",
    "--set=evaluation.tasks=5",
    "--set=evaluation.episodes_per_task=3",
    "--set=policy.hidden_sizes=[8]",
    "--set=baseline.validation_tasks=2",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run of every method, and a second seed of MAML, by name."""
    folder = tmp_path_factory.mktemp("runs")
    paths = {}
    for name in ("maml", "maml-2", "pretrained", "random", "oracle"):
        paths[name] = str(folder / name)
        seed = "--set=seed=2" if name == "maml-2" else "--set=seed=1"
        command = (
            ["train", "point_navigation_small"]
            if name.startswith("maml")
            else ["baseline", "point_navigation_small", "--kind", name]
        )
        assert main([*command, *TINY, seed, "--out", paths[name]]) == 0
    return paths


def test_the_interval_over_tasks_is_that_of_students_t() -> None:
    returns = np.array([[1.0], [2.0], [6.0]])
    summary = mean_over_tasks(returns)
    assert summary.estimate == pytest.approx(3.0)
    assert summary.high - summary.estimate == pytest.approx(4.3027 * np.sqrt(7.0 / 3.0), rel=1e-4)


def test_several_runs_are_aggregated_by_the_mean_of_their_scores() -> None:
    rng = np.random.default_rng(0)
    returns = [rng.normal(size=(40, 2)) ** 3 + shift for shift in (0.0, 0.5, 1.0)]
    summary, means = mean_over_runs(returns), [mean_over_tasks(run).estimate for run in returns]
    np.testing.assert_allclose(summary.estimate, np.mean(means, axis=0))
    # Student's of three: 4.303 standard errors
    width = 4.303 * np.std(means, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(summary.high - summary.estimate, width, rtol=1e-3)
    np.testing.assert_allclose(summary.estimate - summary.low, width, rtol=1e-3)
    same = mean_over_runs([returns[0]] * 3)
    np.testing.assert_allclose(same.low, same.high)  # other seeds would change nothing


@pytest.mark.slow
def test_runs_that_differ_in_their_seed_count_as_one_experiment(runs) -> None:
    groups = compare([Run.open(Path(path)) for path in runs.values()])
    labels = [group.label for group in groups]
    assert labels == ["MAML", "pretrained", "random", "oracle"]
    assert [len(group.runs) for group in groups] == [2, 1, 1, 1]
    assert groups[0].samples[0] > 0
    assert groups[2].samples == [0]
    tasks = [curve.tasks for group in groups for curve in group.curves]
    assert all(np.array_equal(tasks[0], other) for other in tasks)


def test_compare_writes_a_table_and_both_plots(runs, tmp_path, capsys) -> None:
    assert main(["compare", *runs.values(), "--out", str(tmp_path / "out")]) == 0
    assert "MAML" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {
        f"{plot}.{kind}" for plot in ("adaptation", "training") for kind in ("png", "svg", "pdf")
    }
    assert files == {"comparison.md", "comparison.tex", "comparison.csv", *plots}
    with (tmp_path / "out" / "comparison.csv").open() as file:
        numbers = list(csv.DictReader(file))
    assert {row["method"] for row in numbers} == {"MAML", "pretrained", "random", "oracle"}
    assert all(float(row["low"]) <= float(row["estimate"]) <= float(row["high"]) for row in numbers)
    latex = (tmp_path / "out" / "comparison.tex").read_text()
    assert latex.startswith("% \\usepackage{booktabs}\n\\begin{table}")
    assert "worst 5\\% of tasks & seeds \\\\" in latex
    lines = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert lines[0].startswith(
        "| method | return before adaptation | after 1 step | after 2 steps |"
    )
    assert lines[0].endswith("| step size | seeds | environment steps | budget |")
    assert " | 1, 2 | " in lines[2]
    stages = "before adaptation | after 1 step | after 2 steps | after 3 steps"
    start = lines.index(f"| MAML − | {stages} |")
    assert [line.split(" | ")[0] for line in lines[start + 2 : start + 5]] == [
        "| pretrained",
        "| random",
        "| oracle",
    ]
    caption = (
        "95% interval over 2 runs against 1, assuming equal variance over seeds. Positive values "
        "favour MAML."
    )
    assert caption in lines[-1]


def test_experiments_of_one_method_are_told_apart_by_the_directories_of_their_seeds(
    tmp_path: Path,
) -> None:
    published = Path(__file__).parents[1] / "results"
    for tasks, name in (("20", "trpo-point"), ("40", "point-40")):
        for seed in (2, 3):
            shutil.copytree(published / f"{name}-s{seed}", tmp_path / tasks / f"seed-{seed}")
    groups = compare([Run.open(path) for path in sorted(tmp_path.glob("*/*"))])
    assert [group.label for group in groups] == ["MAML (20)", "MAML (40)"]


def test_a_table_in_latex_has_no_character_that_latex_would_interpret() -> None:
    rows = [{"method": "RL² (50%)", "a_b": "-1.5 ± 0.2"}, {"method": "E-MAML & co", "a_b": "–"}]
    text = latex_table(rows, "95% interval, 1e-3")
    assert r"method & a\_b \\" in text
    assert "RL$^2$ (50\\%) & $-$1.5 $\\pm$ 0.2 \\\\\n" in text
    assert "E-MAML \\& co & -- \\\\\n\\bottomrule" in text
    assert "\\caption{95\\% interval, 1e-3}" in text


def test_the_columns_of_a_csv_are_those_of_all_rows() -> None:
    assert csv_table([{"a": 1}, {"a": "x, y", "b": 2.5}]) == 'a,b\n1,\n"x, y",2.5\n'


def test_the_files_of_an_earlier_comparison_are_removed(tmp_path: Path) -> None:
    for name in ("fits.png", "success_training.svg", "notes.md"):
        (tmp_path / name).touch()
    assert main(["compare", "point_navigation", "--out", str(tmp_path)]) == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert {"notes.md", "adaptation.png"} <= files
    assert not files & {"fits.png", "success_training.svg"}


def test_runs_are_checked_before_they_are_evaluated(complaint, monkeypatch) -> None:
    def evaluate(*_: object) -> None:
        raise AssertionError("it evaluated")

    monkeypatch.setattr(output, "load_or_evaluate", evaluate)
    other = complaint("compare", "point_navigation", "half_cheetah_direction")
    assert "uses different tasks" in other
    few = complaint("compare", "point_navigation_rl2", "--many-steps", "3")
    assert "needs the run of a meta-learner that takes gradient steps" in few


@pytest.mark.parametrize(
    ("command", "out", "reason"),
    [
        ("compare", "file", "Not a directory); choose another directory with --out"),
        ("render", "file/x", "Not a directory); choose another directory with --out"),
        ("report", "folder.md", "Is a directory); choose another file with --out"),
        ("results", "folder.md", "Is a directory); choose another file with --out"),
        ("results", "file.md", "Not a directory); choose another file with --out"),
    ],
)
def test_an_output_that_cannot_be_written_is_reported_before_evaluations(
    command: str, out: str, reason: str, tmp_path: Path, complaint, monkeypatch
) -> None:
    def evaluate(*_: object, **__: object) -> None:
        raise AssertionError("it evaluated")

    for name in ("cli.output.load_or_evaluate", "cli.render.adapt_to_task"):
        monkeypatch.setattr(f"metarl.{name}", evaluate)
    (tmp_path / "file").touch()
    (tmp_path / "folder.md").mkdir()
    before = {*tmp_path.iterdir()}
    place = str(tmp_path / out)
    assert reason in complaint(command, "point_navigation", "--out", place)
    assert {*tmp_path.iterdir()} == before


def stub(label: str, unit: AdaptationUnit | None) -> ExperimentGroup:
    """An experiment with two stages of a method that adapts in a unit."""
    problem = SimpleNamespace(metric=RETURN)
    method = SimpleNamespace(
        adaptation_unit=unit, role="meta-learner", problem=problem, max_samples=0
    )
    scores, run = np.ones((4, 2)), Run.open(Path("point_navigation"))
    curves = [AdaptationCurve(np.zeros((4, 1)), scores, (0.1,))]
    return ExperimentGroup(label, [run], method, curves, summarise([scores]))


def test_columns_are_named_by_the_unit_of_all_methods() -> None:
    rl2, maml, random = stub("RL²", EPISODES), stub("MAML", GRADIENT_STEPS), stub("random", None)
    columns = {
        "return, episode 1, episode 2": [rl2, stub("VariBAD", EPISODES)],
        "return before adaptation, after 1 step": [maml, random],
        "return before adaptation, step 1": [maml, rl2],
    }
    for expected, groups in columns.items():
        names = [*rows(groups)[0]]
        assert ", ".join(names[1:3]) == expected
        assert ("adaptation step" in names) == (groups == [maml, rl2])


def test_steps_to_match_are_those_of_a_method_of_gradient_steps() -> None:
    rl2, anil = stub("RL²", EPISODES), stub("ANIL", GRADIENT_STEPS)
    with pytest.raises(UserError, match="takes gradient steps"):
        with_steps_to_match([rl2], 5)
    assert with_steps_to_match([rl2, anil], 5) == [rl2, anil]
    random = replace(anil, label="random", steps_to_match="3", matched="ANIL")
    assert "steps to match ANIL's return (1 step)" in rows([anil, random])[0]


def test_a_gif_ends_with_the_last_frame(tmp_path: Path) -> None:
    for length in (1, 4, 5):
        frames = [np.full((8, 8, 3), 40 * number, np.uint8) for number in range(length)]
        write_gif(tmp_path / "video.gif", frames, 30.0)
        shown = [int(frame[0, 0, 0]) for frame in imageio.mimread(tmp_path / "video.gif")]
        last = 40 * (length - 1)
        assert shown == pytest.approx([*range(0, last, 80), last], abs=8)


def test_runs_evaluated_on_other_tasks_by_another_version_are_refused(
    runs, tmp_path, complaint
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["random"], copy)
    evaluation = json.loads((copy / "evaluation.json").read_text())
    evaluation["tasks"][0][0] += 0.1
    (copy / "evaluation.json").write_text(json.dumps(evaluation))
    for command in ("compare", "results"):
        out = ("--out", str(tmp_path / "out" / "results.md"))
        error = complaint(command, runs["maml"], str(copy), *out)
        assert f"{copy} was evaluated on other tasks" in error
        assert f"metarl evaluate {copy}" in error


def test_the_reference_is_the_meta_learner_with_the_most_comparable_runs() -> None:
    def group(
        unit: AdaptationUnit | None,
        seeds: int,
        budget: int,
        label: str,
        stages: int = 2,
        init_from: InitialWeights | None = None,
    ) -> ExperimentGroup:
        problem = SimpleNamespace(metric=RETURN, evaluation_settings={})
        method = SimpleNamespace(
            adaptation_unit=unit,
            role="meta-learner" if unit else "baseline",
            max_samples=budget,
            problem=problem,
        )
        scores = np.ones((4, stages))
        curves = [AdaptationCurve(np.zeros((4, 1)), scores, ())] * seeds
        runs = [SimpleNamespace(config=SimpleNamespace(init_from=init_from))] * seeds
        return ExperimentGroup(label, runs, method, curves, summarise([scores] * seeds))

    rl2, oracle = group(EPISODES, 3, 1, "RL²"), group(None, 1, 1, "oracle", stages=1)
    maml, anil = group(GRADIENT_STEPS, 1, 1, "MAML"), group(GRADIENT_STEPS, 1, 1, "ANIL")

    def pairs(*groups: ExperimentGroup) -> list[tuple[str, str]]:
        return [(pair.reference.label, pair.other.label) for pair in paired_differences(groups)]

    assert pairs(rl2, maml, anil, oracle) == [("MAML", "ANIL"), ("MAML", "oracle")]
    assert pairs(anil, maml, oracle)[0] == ("ANIL", "MAML")  # the first of equals
    seeds = group(GRADIENT_STEPS, 2, 1, "two seeds")
    assert pairs(anil, seeds, oracle)[0] == ("two seeds", "ANIL")
    continued = group(GRADIENT_STEPS, 2, 1, "continued", init_from=InitialWeights(run="runs/maml"))
    assert pairs(continued, anil)[0] == ("ANIL", "continued")
    other = group(GRADIENT_STEPS, 1, 2, "more steps")
    assert pairs(other, anil, maml, oracle)[0] == ("ANIL", "more steps")  # budgets
    assert pairs(oracle) == []
    assert list(paired_rows(paired_differences([rl2, oracle]))[0]) == [
        "RL² −",
        "episode 1",
        "episode 2",
    ]


def test_a_copy_of_a_run_is_not_a_further_seed(runs, tmp_path, complaint, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["maml"], copy)
    error = complaint("compare", runs["maml"], str(copy), runs["maml-2"])
    assert "have the same settings and the same seed (1): they count once" in error
    assert main(["evaluate", runs["maml"], str(copy)]) == 0
    assert "all 2 runs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "the score of task 0 after 1 steps is not finite"),
        (np.zeros((1, 2)), "must return scores of shape (N, K + 1) for the N > 1 tasks"),
        (np.zeros(2), "must return scores of shape (N, K + 1)"),
        (np.zeros((2, 4)), "returned scores of 4 stages, but a curve with 2 step sizes"),
    ],
)
def test_scores_that_no_table_can_summarise_are_refused_before_they_are_written(
    runs, tmp_path, complaint, monkeypatch, scores, message
) -> None:
    path = tmp_path / "run"
    shutil.copytree(runs["maml"], path)
    before = (path / "evaluation.json").read_bytes()
    curve = AdaptationCurve(np.zeros((len(scores), 2)), scores, (0.1,))
    monkeypatch.setattr("metarl.rl.maml.MAML.evaluate", lambda *_: curve)
    assert message in complaint("evaluate", str(path))
    assert (path / "evaluation.json").read_bytes() == before


def test_tables_have_the_mean_of_the_worst_tasks(runs, capsys) -> None:
    assert main(["evaluate", runs["maml"]]) == 0
    evaluation = json.loads((Path(runs["maml"]) / "evaluation.json").read_text())
    worst = np.min(evaluation["scores"], axis=0)  # a twentieth of five tasks is one task
    assert evaluation["worst_5_percent"] == worst.tolist()
    printed = capsys.readouterr().out
    assert "worst 5% of tasks" in printed
    assert all(format_score(score) in printed for score in worst)
    (group,) = compare([Run.open(Path(runs["maml"]))])
    assert group.steps()[1]["worst"] == worst[1]


@pytest.mark.slow
def test_compare_reports_the_steps_that_other_methods_need_to_match_maml(
    runs, tmp_path, complaint
) -> None:
    out = tmp_path / "out"
    paths = [runs[name] for name in ("maml", "random", "oracle")]
    assert main(["compare", *paths, "--out", str(out), "--many-steps", "5"]) == 0
    header, _, maml, random, oracle, *_ = (out / "comparison.md").read_text().splitlines()
    assert header.endswith("| steps to match MAML's return (1 step) |")
    assert maml.endswith("| – |")
    assert oracle.endswith("| – |")
    assert random.split("|")[-2].strip() in {*"012345", "more than 5"}
    few = ["--out", str(out), "--many-steps"]
    assert "at least 1" in complaint("compare", *paths, *few, "0")
    assert "needs the run of a meta-learner" in complaint("compare", runs["random"], *few, "5")


def test_runs_of_other_tasks_are_refused(runs, tmp_path, complaint) -> None:
    other = tmp_path / "other"
    tiny = [setting for setting in TINY if "horizon" not in setting]
    wider = ["--set=family.settings.half_width=2", "--set=family.settings.horizon=10"]
    assert main(["train", "point_navigation_small", *tiny, *wider, "--out", str(other)]) == 0
    error = complaint("compare", runs["maml"], str(other), "--out", str(tmp_path / "out"))
    assert "family.settings.half_width: None → 2" in error
    assert "cannot be compared" in error
    assert not (tmp_path / "out").exists()


def test_the_error_for_runs_with_different_evaluation_settings_names_the_command_to_use(
    runs, tmp_path, complaint
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["pretrained"], copy)
    assert main(["evaluate", str(copy), "--set=evaluation.seed=7"]) == 0
    error = complaint("compare", runs["maml"], str(copy))
    assert "evaluation.seed: 1 → 7" in error
    assert f"metarl evaluate {copy} --set evaluation.seed=" in error


@pytest.mark.slow
def test_evaluations_are_reproducible_to_the_byte_and_saved_as_csv(runs) -> None:
    for name in ("maml", "pretrained", "random", "oracle"):
        path = Path(runs[name])
        before = (path / "evaluation.json").read_bytes(), (path / "evaluation.csv").read_bytes()
        assert main(["evaluate", str(path)]) == 0
        after = (path / "evaluation.json").read_bytes(), (path / "evaluation.csv").read_bytes()
        assert before == after
    lines = (Path(runs["maml"]) / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("return_after_3_steps")


@pytest.mark.slow
def test_evaluations_that_select_among_other_step_sizes_are_not_averaged(runs, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["pretrained"], copy)
    other = [f"--set=baseline.{setting}" for setting in ("step_sizes=[0.01]", "validation_tasks=3")]
    assert main(["evaluate", str(copy), *other]) == 0
    first, second = (load_or_evaluate(Run.open(Path(run))) for run in (runs["pretrained"], copy))
    assert second.method.problem.config.baseline.step_sizes == (0.01,)
    assert not same_evaluation(first, second)
    assert verify(second).holds


def test_directories_that_hold_several_experiments_do_not_name_one() -> None:
    curve = AdaptationCurve(np.zeros((2, 2)), np.arange(4.0).reshape(2, 2), (0.1,), (0, 20))

    def evaluation(folder: str, seed: int, step_size: float) -> Evaluation:
        overrides = [f"seed={seed}", f"inner.step_size={step_size}"]
        config = load_config("point_navigation", overrides)
        return Evaluation(Run(Path(f"{folder}-{seed}"), config), load_method(config), curve)

    evaluations = [
        evaluation(folder, seed, step_size)
        for folder, step_size in (("x/a", 0.1), ("x/b", 0.2), ("y/a", 0.3), ("z/a", 0.4))
        for seed in (1, 2)
    ]
    labels = [group.label for group in group_experiments(evaluations)]
    assert labels == ["MAML (x/a-1)", "MAML (b-1)", "MAML (y)", "MAML (z)"]


def test_several_seeds_are_evaluated_together(runs, capsys) -> None:
    assert main(["evaluate", runs["maml"], runs["maml-2"]]) == 0
    assert "all 2 runs" in capsys.readouterr().out


def test_a_run_with_changed_weights_is_evaluated_again(runs, tmp_path) -> None:
    path = tmp_path / "run"
    shutil.copytree(runs["maml"], path)
    old = load_or_evaluate(Run.open(path)).curve
    (path / "evaluation.json").rename(path / "kept")
    assert main(["train", "--resume", str(path), "--set=outer.iterations=4"]) == 0
    shutil.copy(path / "kept", path / "evaluation.json")  # as if it had not been evaluated since
    new = load_or_evaluate(Run.open(path)).curve
    assert not np.array_equal(old.scores, new.scores)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrained", "oracle"])
def test_a_resumed_baseline_is_bit_identical_to_an_uninterrupted_one(tmp_path, kind) -> None:
    command = ["baseline", "point_navigation_small", "--kind", kind, *TINY]
    assert main([*command, "--set=outer.iterations=3", "--out", str(tmp_path / "whole")]) == 0
    assert main([*command, "--out", str(tmp_path / "parts")]) == 0
    resume = ["baseline", "--resume", str(tmp_path / "parts"), "--set=outer.iterations=3"]
    assert main(resume) == 0
    expected, evaluation = (
        json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "parts")
    )
    assert expected == evaluation


@pytest.mark.slow
def test_errors_are_reported(runs, tmp_path, complaint) -> None:
    run, out = runs["maml"], str(tmp_path / "out")
    assert "name a baseline" in complaint("baseline", "point_navigation_small")
    assert "--kind: must be" in complaint("baseline", "point_navigation_small", "--kind", "best")
    assert "contradict" in complaint("baseline", "--resume", run, "--kind", "random")
    absent = ["--model", str(tmp_path / "absent.zip")]
    assert "absent.zip (No such file or directory)" in complaint(
        "baseline", "point_navigation_small", "--kind", "pretrained", "--out", out, *absent
    )
    assert "there is no run in" in complaint("compare", run, str(tmp_path / "none"))
    assert "has shape (2,)" in complaint("render", run, "--task", "0.3")
    assert "between 0 and 3" in complaint("render", run, "--steps", "0", "9")
    assert "the suffix selects" in complaint("export", run, str(tmp_path / "model.bin"))
    (tmp_path / "file").write_text("")
    inside = str(tmp_path / "file" / "x")
    for command in ("compare", "render", "report"):
        assert "cannot write" in complaint(command, run, "--out", inside)
    assert not Path(out).exists()


@pytest.mark.parametrize("command", ["evaluate", "compare", "render", "report", "export"])
def test_a_run_with_other_settings_is_reported(runs, tmp_path, complaint, command) -> None:
    path = tmp_path / "old"
    shutil.copytree(runs["maml"], path)
    with (path / "config.yaml").open("a") as file:
        file.write("no_longer_known: 1\n")
    more = [str(tmp_path / "model.zip")] if command == "export" else []
    error = complaint(command, str(path), *more)
    assert "was made with other settings than this version of metarl knows" in error


def test_an_evaluation_of_another_version_is_reported(runs, tmp_path, complaint) -> None:
    path = tmp_path / "old"
    shutil.copytree(runs["maml"], path)
    (path / "evaluation.json").write_text('{"mean": [1.0]}')
    assert "evaluate again" in complaint("compare", str(path))


@pytest.mark.slow
def test_render_writes_videos_before_and_after_adaptation_and_plots_the_paths(
    runs, tmp_path
) -> None:
    out = tmp_path / "videos"
    arguments = ["render", runs["maml"], "--task", "0.3", "-0.4", "--steps", "0", "1"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert {path.suffix for path in out.iterdir()} == {".mp4", ".gif", ".png"}
    (video,) = out.glob("*.mp4")
    frames = list(imageio.get_reader(video).iter_data())
    assert len(frames) == 11  # the start, and ten steps
    assert frames[0].shape[1] == 2 * 480
    before, after = frames[-1][100:, :480], frames[-1][100:, 480:]
    assert (before != after).any()


@pytest.mark.slow
def test_captions_of_videos_have_the_names_of_all_methods() -> None:
    missing = bytes(_font(20).getmask("\uffff"))
    for character in "RL²−±é":
        assert bytes(_font(20).getmask(character)) != missing


def test_render_writes_a_video_of_a_robot_without_settings(tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    tiny = [setting for setting in TINY if "hidden" not in setting]
    assert main(["train", "half_cheetah_velocity", *tiny, "--out", str(out)]) == 0
    assert main(["render", str(out), "--steps", "1"]) == 0
    frames = list(imageio.get_reader(next(out.glob("*.mp4"))).iter_data())
    assert frames[0].std() > 10


def test_a_window_without_a_display_is_reported(runs, complaint, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "needs a display" in complaint("render", runs["maml"], "--live")


@pytest.mark.slow
def test_the_report_is_one_self_contained_page(runs, tmp_path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", *runs.values(), "--out", str(page)]) == 0
    text = page.read_text()
    assert text.count('<table class="scores">') == 2
    assert "<th>MAML −</th>" in text
    for label in ("MAML", "pretrained", "random", "oracle"):
        assert f"<h3>{label}</h3>" in text
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:"}
    assert text.count("data:video/mp4") == 3 * 3 + 1  # a stage each, of which the oracle has one
    assert str(Path(runs["maml"]).parent) not in text  # runs have short names
    assert "the policy collects 3 episodes of a held-out task" in text
    assert "oracle does not adapt" in text


@pytest.mark.slow
def test_the_report_has_a_section_for_each_family(runs, tmp_path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", runs["maml"], "sinusoid", "--out", str(page)]) == 0
    titles = re.findall(r"<h2>(.*)</h2>", page.read_text())
    assert titles == ["point-navigation", "sinusoid, 5-shot"]


def test_directories_have_the_shortest_unambiguous_names() -> None:
    paths = [Path("/a/one"), Path("/a/b/two"), Path("/a/c/two")]
    assert list(short_names(paths).values()) == ["one", "b/two", "c/two"]
    assert short_names([Path("/a/one"), Path("/a/one")]) == {Path("/a/one"): "one"}


def test_a_footnote_explains_the_intervals() -> None:
    runs, tasks = mean_over_runs([np.eye(2), np.eye(2)]), mean_over_tasks(np.eye(2))
    assert describe_intervals({"MAML": tasks, "random": tasks}) == (
        "mean of 2 tasks, 95% interval over tasks"
    )
    assert describe_intervals({"MAML": runs, "random": tasks, "oracle": tasks}) == (
        "mean of 2 runs × 2 tasks, 95% interval over runs (MAML); "
        "mean of 2 tasks, 95% interval over tasks (random, oracle)"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["point_navigation", "point_navigation_rl2", "half_cheetah_direction", "sinusoid"]
)
def test_a_shipped_policy_has_a_provenance(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.open(Path(name))
    assert run.commit() is not None
    assert "dirty" not in run.commit()
    monkeypatch.setattr(
        "metarl.report.evaluations.evaluate", None
    )  # its evaluation is there, and up to date
    evaluation = load_or_evaluate(run)
    method = evaluation.method
    assert run.load().iteration == method.num_iterations
    assert len(evaluation.curve.tasks) == run.config.evaluation.tasks
    assert method.problem.config == run.config
    assert main(["render", name, "--steps", "1"]) == 0
    pictures = "*.png" if name == "sinusoid" else "*.gif"
    assert list((tmp_path / "runs" / "trained" / name).glob(pictures))
    assert not list(run.path.glob(pictures))


def test_list_shows_every_config_and_every_trained_policy(capsys) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "ant_velocity" in printed
    assert "…" not in printed  # nothing is cut
    names = re.findall(r"^│ (\w+) ", printed, re.MULTILINE)
    assert names.count("half_cheetah_direction") == 2  # the config, and the trained policy


def test_an_exported_model_can_be_loaded_by_ppo(runs, tmp_path, complaint) -> None:
    model = tmp_path / "model.zip"
    assert main(["export", runs["maml"], str(model)]) == 0
    assert PPO.load(model).policy.action_net.weight.shape == (2, 8)
    assert "exists already" in complaint("export", runs["maml"], str(model))
    out = tmp_path / "imported"
    arguments = [
        "baseline",
        "point_navigation_small",
        "--kind",
        "pretrained",
        "--model",
        str(model),
    ]
    assert main([*arguments, *TINY, "--out", str(out)]) == 0
    assert (
        Run.open(out).load().params["weight0"]
        == Run.open(Path(runs["maml"])).load().params["weight0"]
    ).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [(557.31, "557.3"), (-11.437, "-11.44"), (0.5, "0.50"), (0.000868, "0.00087"), (0.0, "0.00")],
)
def test_numbers_have_only_significant_digits(value: float, text: str) -> None:
    assert format_score(value) == text


@pytest.mark.parametrize("steps", [60, 20_000, 160_000])
def test_tick_labels_of_a_short_training_do_not_overlap(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _plotted_summary(monkeypatch, ["MAML"], steps=steps).axes[1]
    low, high = training.get_xlim()
    labels = training.get_xticklabels()
    boxes = [
        label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high
    ]
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_colours_of_methods_are_distinct_and_equal_in_the_panels_of_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [["MAML", *(f"method {4 * row + n}" for n in range(4))] for row in range(2)]
    published = {0: 0.0, 1: 40.0}
    figure = _plotted_summary(monkeypatch, *rows, steps=1000, published=published)
    panels = figure.axes
    assert len(panels) == 6
    for row, *axes_of_row in zip(rows, panels[::3], panels[1::3], panels[2::3], strict=True):
        looks = [
            [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
            for axes in axes_of_row
        ]
        assert looks[0][: len(row)] == looks[1] == looks[2]
        assert len({colour for colour, _ in looks[0]}) == len(looks[0]) == 6


def test_training_is_drawn_by_samples_and_by_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, samples, minutes = _plotted_summary(monkeypatch, ["MAML"], steps=1000).axes
    assert samples.get_lines()[0].get_xdata().tolist() == [1000.0, 2000.0]
    assert minutes.get_lines()[0].get_xdata().tolist() == [0.5, 1.5]
    assert minutes.get_xlabel() == "minutes of training"


def test_published_scores_lie_within_the_axis_and_have_a_label(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figure = _plotted_summary(monkeypatch, ["MAML"], steps=1000, published={0: 0.0, 1: 40.0})
    adaptation, _, training = figure.axes
    assert adaptation.get_ylim()[1] >= 40.0
    legend = [text.get_text() for text in training.get_legend().get_texts()]
    assert legend == ["MAML", "published"]
    box = training.get_legend().get_window_extent()
    assert box.x1 <= figure.bbox.x1  # not cut


def training_log(slope: float, reports: int = 100) -> list[dict[str, float]]:
    """100 iterations of a minute, whose return is `slope` times their number, from 0."""
    every = 100 // reports
    return [
        {
            "iteration": end,
            "return/after_1_steps": slope * (end - 1 - (every - 1) / 2),  # the mean
            "environment_steps": 7.0 * every,
            "time/sampling": 40.0,
            "time/learning": 20.0,
            "time/communication": 15.0,  # a part of learning
        }
        for end in range(every, 101, every)
    ]


def runs_of(*logs: list[dict[str, float]]) -> list[SimpleNamespace]:
    return [SimpleNamespace(metrics=lambda log=log: log, path=Path("run")) for log in logs]


@pytest.mark.parametrize(
    ("score", "slopes", "minutes"),
    [
        (2.9, [1.0], 6.0),  # the mean of 1 ... 5 is 3, that of 0 ... 4 is 2
        (2.0, [1.0], 5.0),
        (98.0, [1.0], None),  # the mean of the last five is 97
        (2.9, [1.0, 0.0, 1.0], 6.0),  # one of three seeds never reaches it
        (2.9, [1.0, 0.0, 1.0, 0.0], None),  # two of four do not
    ],
)
def test_the_time_to_a_score_is_the_median_over_seeds(
    score: float, slopes: list[float], minutes: float | None
) -> None:
    found = minutes_to_score(runs_of(*map(training_log, slopes)), RETURN, score)
    assert found == (None if minutes is None else pytest.approx(minutes))


@pytest.mark.parametrize("reports", [20, 50])
def test_the_time_to_a_score_does_not_depend_on_the_number_of_reports(reports: int) -> None:
    # within the iterations of a report, of which only the mean is known
    few = minutes_to_score(runs_of(training_log(1.0, reports)), RETURN, 60.0)
    every = minutes_to_score(runs_of(training_log(1.0)), RETURN, 60.0)
    assert every == pytest.approx(63.0)
    assert few == pytest.approx(every, abs=100 / reports)


def test_the_training_curves_of_seeds_with_different_reports_have_one_axis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    curves = training_curves(runs_of(training_log(1.0), training_log(1.0, 20)), RETURN)
    plot_training({"MAML": curves}, RETURN, "x", Path("x.png"))
    for axes, end in zip(figures[0].axes, (700.0, 100.0), strict=True):
        x, y = axes.get_lines()[0].get_data()
        assert x[-1] == pytest.approx(end)
        expected = 99 * x / x[-1]
        assert np.abs(y - expected)[x > 0.1 * end].max() < 4.0  # the lag of a running mean


def _plotted_summary(
    monkeypatch: pytest.MonkeyPatch,
    *rows: list[str],
    steps: int,
    published: dict[int, float] | None = None,
    units: dict[str, AdaptationUnit] | None = None,
) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    curve = TrainingCurve(np.arange(1.0, 3.0) * steps, np.array([0.5, 1.5]), np.zeros(2))
    scores = np.random.default_rng(0).normal(size=(4, 3))
    labels = {label for row in rows for label in row}
    plot_summary(
        {label: summarise([scores]) for label in labels},
        {label: {"before": [curve], "after": []} for label in labels},
        RETURN,
        "x",
        Path("x.png"),
        rows=rows,
        units=dict.fromkeys(labels, GRADIENT_STEPS) | (units or {}),
        episodes=dict.fromkeys(labels, (0, 20, 40)),
        published=published,
    )
    FigureCanvasAgg(figures[0]).draw()
    return figures[0]


def test_published_stages_that_the_first_curve_lacks_are_not_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = {0: 1.0, 1: 2.0, 2: 3.0, 3: 1000.0}
    figure = _plotted_summary(
        monkeypatch, ["MAML", "RL²"], steps=10, published=published, units={"RL²": EPISODES}
    )
    axes = figure.axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_label() == "published"]
    np.testing.assert_array_equal(line.get_data(), [(0, 20, 40), (1.0, 2.0, 3.0)])
    assert axes.get_ylim()[1] < 1000.0
    assert "over seeds" not in figure.get_supxlabel()  # there is one
    assert {"0", "1", "10"} <= {label.get_text() for label in axes.get_xticklabels()}
