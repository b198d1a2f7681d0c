"""The page of results is generated from runs, and that of the documentation is current."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metarl.cli import main
from metarl.errors import StorageError
from metarl.evaluation import AdaptationCurve, Metric
from metarl.experiment import differences, load_config
from metarl.method import load_method, resolve
from metarl.report.comparison import in_millions
from metarl.report.evaluations import Evaluation, load_or_evaluate
from metarl.report.groups import (
    ExperimentGroup,
    group_experiments,
    same_experiment,
    seed_independent_fields,
)
from metarl.report.publish import thin_metrics
from metarl.report.published import Published, find_published
from metarl.report.reproduce_command import reproduce_command
from metarl.report.results_overview import overview_rows
from metarl.report.results_page import _plot_rows, _same_protocol, _write
from metarl.report.training_curves import format_minutes
from metarl.runs.metrics import minutes_of_training
from metarl.runs.run import Run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PUBLISHED = [path.parent for path in sorted(ROOT.glob("results/*/state.json"))]
SHIPPED = [path.parent for path in sorted(ROOT.glob("configs/trained/*/state.json"))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PUBLISHED:
        pytest.skip("a source distribution has no published runs")
    out = tmp_path_factory.mktemp("docs") / "results.md"
    runs = map(str, [*PUBLISHED, *SHIPPED])
    assert main(["results", *runs, "--out", str(out), "--notes", str(DOCS / "notes")]) == 0
    return out


def family_page(page: Path, name: str) -> tuple[str, str]:
    """The visible part of the page of a family, and what is folded away."""
    text = (page.parent / page.stem / f"{name}.md").read_text()
    folded = "".join(re.findall(r"<details.*?</details>", text, re.DOTALL))
    return re.sub(r"<details.*?</details>", "", text, flags=re.DOTALL), folded


@pytest.mark.slow
def test_the_pages_in_the_documentation_match_the_runs(page: Path) -> None:
    # made by the command that the first page shows
    assert page.read_text() == (DOCS / "results.md").read_text()
    made = {file.name: file for file in (page.parent / "results").iterdir()}
    assert made.keys() == {file.name for file in (DOCS / "results").iterdir()}
    for name, file in made.items():
        if file.suffix == ".md":
            assert file.read_text() == (DOCS / "results" / name).read_text()


@pytest.mark.slow
def test_the_first_page_has_every_method_on_every_family_beside_published_scores(
    page: Path,
) -> None:
    policies, *others = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]
    assert policies.startswith("Policies\n")
    header, _, maml, *methods = [
        line.split(" | ") for line in policies.splitlines() if line.startswith("|")
    ]
    families = {re.sub(r".*\[(.*)\].*", r"\1", cell): column for column, cell in enumerate(header)}
    assert maml[0] == "| MAML"
    direction = maml[families["half-cheetah-direction"]].split("<br>")
    assert direction == ["**453.9**", "[368.6, 539.2]", "*published 293.2*"]
    assert "published" not in maml[families["half-cheetah-direction, dynamics gymnasium"]]
    assert {"| pretrained", "| random", "| oracle", "| RL²"} <= {row[0] for row in methods}
    titles = [title.split("\n")[0] for title in others]
    assert titles == ["omniglot", "sinusoid", "How these pages are made"]
    (matching,) = re.findall(r"^\| matching networks \|.*", others[0], re.MULTILINE)
    assert sorted(re.findall(r"published ([\d.]+)", matching)) == ["93.8", "98.1", "98.5", "98.9"]


@pytest.mark.slow
def test_tables_have_all_seeds_both_schedules_and_published_results(page: Path) -> None:
    visible, folded = family_page(page, "half-cheetah-direction")
    assert re.findall(r"^\| MAML, seed (\d) \|", folded, re.MULTILINE) == [*"12345", *"123"]
    assert not re.search(r"^\|.*, seed ", visible, re.MULTILINE)
    (title,) = re.findall(r"^## (.*)", visible, re.MULTILINE)  # the first section has none
    assert title == "half-cheetah-direction, dynamics gymnasium"
    visible, folded = family_page(page, "point-navigation")
    lines = folded.splitlines()
    of_one = [line for line in lines if line.startswith("| MAML (trpo-point-s1), seed 1 |")]
    # by episodes and steps that halve, and by time steps and the paper's step sizes
    assert [line.split(" | ")[1:3] for line in of_one] == [
        ["episodes", "0.5, 0.25, 0.125"],
        ["steps", "0.5, 0.25, 0.25"],
    ]
    # 40 trajectories a stage, and what training took
    assert of_one[0].split(" | ")[3] == "40"
    assert of_one[0].endswith(" | 10.77 M | 7.88 | 2.2 |")  # minutes to −11.7
    assert all(line.split(" | ")[5] == "400" for line in of_one)
    published_returns = "−40.4 | −11.7 | −3.33 | −3.23 ± 0.58"
    assert f"| *published: MAML* |  |  |  |  | 40 | {published_returns} |  |  |  |  |" in lines
    assert "https://github.com/cbfinn/maml_rl" in visible


@pytest.mark.slow
def test_a_column_has_the_paired_differences_after_one_step(page: Path) -> None:
    visible, _ = family_page(page, "half-cheetah-velocity")
    section = visible.split("\n## ")[0]
    header, *table = [line.split(" | ") for line in section.splitlines() if " | " in line]
    column = header.index("MAML − method (1 step)")
    differences = {row[0]: row[column] for row in table if len(row) == len(header)}
    assert differences["| MAML"] == "– (reference)"
    assert differences["| *published: MAML*"] == ""
    scores = {
        name: np.array(json.loads((DOCS.parent / path / "evaluation.json").read_text())["scores"])
        for name, path in {
            "one": "configs/trained/half_cheetah_velocity",
            "two": "results/half-cheetah-velocity-s2",
            "three": "results/half-cheetah-velocity-s3",
            "pretrained": "results/pretrained-hcv-s1",
        }.items()
    }
    pretrained = scores.pop("pretrained")
    mean = np.mean([(maml - pretrained)[:, 1].mean() for maml in scores.values()])
    assert differences["| pretrained"].startswith(f"{mean:.2f} [")


@pytest.mark.slow
def test_every_evaluation_of_a_data_set_has_a_row(page: Path) -> None:
    visible, folded = family_page(page, "omniglot")
    titles = re.findall(r"^## (.*)", visible, re.MULTILINE)
    assert set(titles) == {
        "omniglot, 5-way 1-shot",
        "omniglot, 5-way 5-shot",
        "omniglot, 20-way 1-shot",
        "omniglot, 20-way 5-shot",
    }
    for title, section in zip(titles, visible.split("\n## ")[1:], strict=True):
        rows = re.findall(r"^\| matching networks \| (\d+) \| (\w+) \|", section, re.M)
        shots = "5" if title.endswith("5-shot") else "1"
        assert rows == [(shots, "true"), ("15", "true"), (shots, "false")]
    assert folded.count("| matching-s1 |") == len(titles)


def test_a_row_of_a_plot_has_maml_and_at_most_four_others() -> None:
    methods = ["pretrained", "random", "oracle", "promp", "cavia", "maml", "e_maml"]
    groups = []
    for name in methods:
        adam = ["outer.algorithm=adam"] if name == "promp" else []
        method = load_method(load_config("point_navigation", [f"method={name}", *adam]))
        groups.append(ExperimentGroup(method.label, [], method, [], None))
    rows = _plot_rows(groups)
    assert rows == [
        ["MAML", "pretrained", "random", "oracle", "ProMP"],
        ["MAML", "CAVIA", "E-MAML"],
    ]
    assert _plot_rows(groups[:1]) == [["pretrained"]]


# where observations are scaled, they are measured, which takes seconds
FURTHER_SEED = re.compile(r".*-s[2-9]")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [path for path in [*PUBLISHED, *SHIPPED] if not FURTHER_SEED.fullmatch(path.name)],
    ids=lambda path: path.name,
)
def test_the_reproduce_command_gives_the_config_of_the_run(path: Path) -> None:
    config = Run.open(path).config
    program, verb, name, *options = shlex.split(reproduce_command(config))
    assert program == "metarl"
    assert verb == ("baseline" if "--kind" in options else "train")
    overrides = [
        f"method={value}" if option == "--kind" else value
        for option, value in zip(options[::2], options[1::2], strict=True)
    ]
    expected = resolve(load_config(name, overrides))
    assert expected.seed == config.seed
    assert differences(expected, config, seed_independent_fields(config)) == []


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_the_config_of_a_published_run_can_be_trained(path: Path) -> None:
    assert load_config(str(path / "config.yaml")) == Run.open(path).config


def test_the_command_of_a_run_with_stages_is_quoted_for_the_shell() -> None:
    stages = [{"until": 10, "set": {"outer.meta_batch": 10, "inner.gae_lambda": 0.98}}]
    config = load_config("point_navigation", [f"stages={json.dumps(stages)}", "seed=3"])
    command = reproduce_command(config)
    printed = subprocess.run(
        ["bash", "-c", f"metarl() {{ printf '%s\\n' \"$@\"; }}; {command}"],
        capture_output=True,
        text=True,
        check=True,
    )
    _, name, *options = printed.stdout.splitlines()
    assert load_config(name, options[1::2]) == config


def test_the_command_for_tasks_without_a_shipped_config_names_that_of_the_run() -> None:
    config = load_config("point_navigation", ["family.name=metarl.envs:PointNavigation"])
    assert reproduce_command(config, Path("runs/mine")) == "metarl train runs/mine/config.yaml"


def test_the_command_of_a_baseline_names_its_kind() -> None:
    config = load_config("point_navigation", ["method=pretrained", "seed=3"])
    expected = "metarl baseline point_navigation --kind pretrained --set seed=3"
    assert reproduce_command(config) == expected


def test_settings_of_baselines_do_not_distinguish_experiments_of_a_meta_learner() -> None:
    overrides = ["baseline.selection_step=0"]
    maml, other = load_config("point_navigation"), load_config("point_navigation", overrides)
    assert same_experiment(maml, other)
    assert reproduce_command(other) == "metarl train point_navigation"
    pretrained = [
        load_config("point_navigation", ["method=pretrained", *more]) for more in ([], overrides)
    ]
    assert not same_experiment(*pretrained)
    assert reproduce_command(pretrained[1]).endswith("--set baseline.selection_step=0")


def _published(name: str, *changes: str) -> Published | None:
    return find_published(load_method(load_config(name, changes)).problem)


def test_published_results_are_listed_only_with_runs_of_the_same_protocol() -> None:
    figures = _published("half_cheetah_direction")
    assert figures is not None
    assert figures.rows["MAML"][1] == 293.2
    overrides = ["family.settings.dynamics=gymnasium", "family.settings.horizon=100"]
    overrides += ["family.settings.scales={opt.gravity: 1.2}", "evaluation.deterministic=true"]
    for override in overrides:
        assert _published("half_cheetah_direction", override) is None
    assert _published("half_cheetah_direction", "family.settings.num_threads=1") is not None
    for name in ("point_navigation", "half_cheetah_velocity", "ant_velocity", "ant_direction"):
        assert _published(name) is not None
    assert _published("ant_goal") is None


def test_notes_without_a_section_get_a_new_one_and_errors_are_reported(
    tmp_path: Path, complaint
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "introduction.md").write_text("What this is.\n")
    (notes / "sinusoid-5-shot.md").write_text("Of waves.\n")
    (notes / "else.md").write_text("## Something else\n")
    out = tmp_path / "page.md"
    arguments = ["results", "sinusoid", "--out", str(out), "--notes"]
    assert main([*arguments, str(notes)]) == 0
    text = out.read_text()
    family = (tmp_path / "page" / "sinusoid.md").read_text()
    assert "Of waves." in family
    places = [text.index(words) for words in ("What this is.", "## sinusoid", "## Something else")]
    assert places == sorted(places)
    assert "![sinusoid, 5-shot: adaptation and training]" in family
    assert (tmp_path / "page" / re.findall(r"\]\((.*?\.png)\)", family)[0]).exists()
    assert "there is no folder" in complaint(*arguments, str(tmp_path / "none"))
    assert "must end in .md" in complaint("results", "sinusoid", "--out", str(tmp_path / "x"))


def test_a_named_evaluation_is_listed_with_that_of_the_config(tmp_path: Path, complaint) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "configs" / "trained" / "sinusoid", run)
    before = (run / "evaluation.json").read_bytes()
    evaluate = ["evaluate", str(run), "--set=evaluation.tasks=9", "--set=evaluation.shots=7"]
    assert main([*evaluate, "--name", "7-shot"]) == 0
    assert (run / "evaluation.json").read_bytes() == before
    assert json.loads((run / "evaluation-7-shot.json").read_text())["settings"]["shots"] == 7
    assert main(["results", str(run), "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page" / "sinusoid.md").read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["sinusoid, 5-shot", "sinusoid, 7-shot"]
    assert "must be small letters" in complaint(*evaluate, "--name", "../7")
    # it cannot be evaluated again without its settings
    state = json.loads((run / "evaluation-7-shot.json").read_text())
    state["weights_sha256"] = "0" * 64
    (run / "evaluation-7-shot.json").write_text(json.dumps(state))
    error = complaint("results", str(run), "--out", str(tmp_path / "page.md"))
    assert "is of other weights than the run has" in error
    (run / "evaluation-7-shot.json").write_text("{}")
    error = complaint("results", str(run), "--out", str(tmp_path / "page.md"))
    assert "(evaluation-7-shot.json.weights_sha256: Field required); delete it" in error


def test_an_evaluation_that_replaces_one_with_other_settings_says_so(tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "configs" / "trained" / "sinusoid", run)
    for tasks, told in ((9, True), (9, False), (8, True)):
        assert main(["evaluate", str(run), f"--set=evaluation.tasks={tasks}"]) == 0
        output = " ".join(capsys.readouterr().out.split())
        assert ("replaced an evaluation with tasks=" in output) == told


def test_runs_on_different_images_are_in_separate_sections(tmp_path: Path, complaint) -> None:
    runs = [tmp_path / name for name in ("matching-s1", "siamese-s1")]
    for run in runs:
        shutil.copytree(ROOT / "results" / run.name, run)
    state = (runs[1] / "state.json").read_text()
    hashed = json.loads(state)["provenance"]["data_sha256"]
    (runs[1] / "state.json").write_text(state.replace(hashed, "0" * 64))
    error = complaint("results", *map(str, runs), "--out", str(tmp_path / "page.md"))
    assert "siamese-s1 was trained on other data" in error


def test_the_leaderboard_has_each_score_with_what_it_took(tmp_path: Path) -> None:
    names = ("point-cavia-s1", "point-40-s2", "point-40-s3")
    runs = [str(ROOT / "results" / name) for name in names]
    assert main(["results", *runs, "--out", str(tmp_path / "page.md")]) == 0
    entries = json.loads((tmp_path / "page" / "leaderboard.json").read_text())
    entry = next(entry for entry in entries if entry["seeds"] == [2, 3])
    curves = [load_or_evaluate(Run.open(Path(run))).curve for run in runs[1:]]
    assert (entry["method"], entry["tasks"]) == ("MAML", "point-navigation")
    described = [Run.open(Path(run)).description() for run in runs[1:]]
    assert entry["samples"] == round(np.mean([run.samples for run in described]))
    assert len(entry["scores"]) == len(curves[0].episodes)
    score = entry["scores"][1]
    mean = np.mean([curve.scores[:, 1].mean() for curve in curves])
    assert score["estimate"] == pytest.approx(mean, rel=1e-4)
    assert score["low"] < score["estimate"] < score["high"]
    assert (entry["unit"], score["episodes"], score["published"]) == ("gradient step", 40, -11.7)
    shipped = json.loads((ROOT / "docs" / "results" / "leaderboard.json").read_text())
    names = ("tasks", "settings", "method", "evaluation")
    for several in (entries, shipped):
        keys = [json.dumps([entry[name] for name in names]) for entry in several]
        assert len({*keys}) == len(keys)
    with (tmp_path / "page" / "leaderboard.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == sum(len(entry["scores"]) for entry in entries)
    row = next(row for row in table if row["seeds"] == "2 3" and row["step"] == "1")
    assert float(row["estimate"]) == score["estimate"]


def test_a_verification_compares_stored_scores_with_new_ones(tmp_path, capsys, complaint) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "configs" / "trained" / "sinusoid", run)
    for file in run.glob("evaluation*"):
        file.unlink()
    assert "has no evaluation of its weights" in complaint("results", str(run), "--verify")
    assert main(["evaluate", str(run), "--set=evaluation.tasks=5"]) == 0
    before = (run / "evaluation.json").read_text()
    assert main(["results", str(run), "--verify"]) == 0
    assert "holds: all 55 scores are bitwise identical" in capsys.readouterr().out
    state = json.loads(before)
    state["scores"] = [[score + 0.1 for score in row] for row in state["scores"]]
    (run / "evaluation.json").write_text(json.dumps(state))
    assert main(["results", str(run), "--verify"]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    state["tasks"] = [[part + 0.1 for part in task] for task in state["tasks"]]
    (run / "evaluation.json").write_text(json.dumps(state))
    assert main(["results", str(run), "--verify"]) == 1
    assert "the tasks are not those of the evaluation's seed" in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text()) == state  # nothing is overwritten
    published = ROOT / "results" / "sinusoid-cavia-s1"
    assert "without its weights" in complaint("results", str(published), "--verify")


def test_the_schedule_of_the_paper_is_evaluated_separately(tmp_path: Path, complaint) -> None:
    run = tmp_path / "run"
    shutil.copytree(ROOT / "configs" / "trained" / "point_navigation", run)
    (run / "evaluation-paper.json").unlink()
    before = (run / "evaluation.json").read_bytes()
    few = ["--set=evaluation.tasks=3", "--set=evaluation.episodes_per_task=5"]
    assert main(["evaluate", str(run), "--schedule", "paper", *few]) == 0
    assert (run / "evaluation.json").read_bytes() == before
    evaluation = json.loads((run / "evaluation-paper.json").read_text())
    assert evaluation["step_sizes"] == [0.5, 0.25, 0.25]
    # 500 time steps a batch: few episodes end before adaptation, most do after it
    assert evaluation["settings"]["batch_unit"] == "steps"
    batches = np.diff(evaluation["episodes"])
    assert 5 <= batches[0] < batches[-1]
    assert (run / "evaluation-paper.csv").exists()
    message = "is the paper's already"
    assert message in complaint("evaluate", "half_cheetah_direction", "--schedule", "paper")
    assert "has no policy" in complaint("evaluate", "sinusoid", "--schedule", "paper")
    assert "takes no gradient steps" in complaint(
        "evaluate", "point_navigation_rl2", "--schedule", "paper"
    )


def test_published_tasks_of_a_family_come_first_and_have_the_plain_title(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    runs = ["half_cheetah_direction_gymnasium", "half_cheetah_direction"]
    assert main(["results", *runs, "--out", str(page)]) == 0
    text = (tmp_path / "page" / "half-cheetah-direction.md").read_text()
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles == ["half-cheetah-direction, dynamics gymnasium"]


def test_a_published_run_has_no_weights_and_the_same_scores_samples_and_minutes(
    tmp_path: Path, complaint
) -> None:
    source = Run.open(Path("point_navigation"))
    assert main(["results", "point_navigation", "--publish", str(tmp_path)]) == 0
    folder = tmp_path / "point_navigation"
    assert {file.name for file in folder.iterdir()} == {
        "config.yaml",
        "state.json",
        "evaluation.json",
        "evaluation-paper.json",
        "metrics.jsonl",
    }
    run = Run.open(folder)
    assert run.description().sha256 == source.weights_sha256()
    assert run.description().samples == source.load().samples
    for name in ("", "paper"):  # the second names the file with its tasks
        curve, expected = (load_or_evaluate(source_run, name).curve for source_run in (run, source))
        assert np.array_equal(curve.tasks, expected.tasks)
        rounded = [[float(f"{score:.5g}") for score in task] for task in expected.scores]
        assert np.allclose(curve.scores, rounded, rtol=1e-7, atol=0.0)
    assert json.loads((folder / "evaluation-paper.json").read_text())["tasks"] == "evaluation.json"
    assert minutes_of_training(run.metrics())[-1] == pytest.approx(
        minutes_of_training(source.metrics())[-1]
    )
    assert main(["results", str(folder), "--out", str(tmp_path / "page.md")]) == 0
    for command in (["evaluate", str(folder)], ["train", "--resume", str(folder)]):
        message = complaint(*command)
        assert "was published without its weights" in message
        assert f"metarl train {folder / 'config.yaml'} --out" in message
    again = complaint("results", "point_navigation", "--publish", str(tmp_path))
    assert f"{folder} is not empty" in again


def test_a_published_run_can_be_published_again(tmp_path: Path, complaint) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["results", "point_navigation", "--publish", str(first), "--weights"]) == 0
    published = first / "point_navigation"
    assert main(["results", str(published), "--publish", str(second), "--weights"]) == 0
    for file in published.iterdir():
        assert (second / published.name / file.name).read_bytes() == file.read_bytes()
    both = ["results", str(published), str(second / published.name)]
    error = complaint(*both, "--publish", str(tmp_path / "third"))
    assert f"would both be published to {tmp_path / 'third' / published.name}" in error
    assert not (tmp_path / "third").exists()


def test_a_page_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "page.md").touch()
    with pytest.raises(StorageError, match=f"cannot write to {tmp_path}"):
        _write(tmp_path / ("long" * 99 + ".md"), "")


def test_a_second_experiment_of_a_method_has_a_row_in_the_overview() -> None:
    def group(label: str, step_size: float = 0.1) -> SimpleNamespace:
        summary = SimpleNamespace(estimate=[0.0, 1.0], format_step=lambda k: f"{label}: [0, 1]")
        config = load_config("point_navigation", [f"inner.step_size={step_size}"])
        run = SimpleNamespace(config=config, path=Path("runs/other"))
        method = SimpleNamespace(label=label.split(" (")[0])
        return SimpleNamespace(
            label=label, method=method, summary=summary, runs=[run], success=None
        )

    several = [group(label) for label in ("MAML (a)", "MAML (b)", "RL²", "MAML (a)")]
    rows = overview_rows([("one", several, None), ("other", [group("MAML")], None)])
    assert [row[""] for row in rows] == ["MAML", "MAML (b)", "RL²"]
    assert rows[0]["one"].endswith("<br>MAML (a)")
    assert "(b)" in rows[1]["one"]
    assert [row["other"] == "–" for row in rows] == [False, True, True]
    # another experiment of another protocol, with the same label
    rows = overview_rows([("one", [group("MAML"), group("MAML", 0.2), group("MAML")], None)])
    assert [row[""] for row in rows] == ["MAML", "MAML (other)"]


@pytest.mark.parametrize(
    ("minutes", "text"), [(2.34, "2.3"), (99.7, "100"), (120.0, "120"), (1234.0, "1234")]
)
def test_minutes_have_no_exponent(minutes: float, text: str) -> None:
    assert format_minutes(minutes, 2) == text


def test_few_samples_are_not_rounded_to_zero_millions() -> None:
    numbers = [in_millions(samples) for samples in (0, 3000, 12_345, 2_500_000)]
    assert numbers == ["0", "3000", "0.01 M", "2.50 M"]


def test_a_run_published_with_its_weights_can_be_loaded_and_verified(
    tmp_path: Path, complaint
) -> None:
    source = Run.open(Path("point_navigation"))
    command = ["results", "point_navigation", "--publish", str(tmp_path), "--weights"]
    assert main(command) == 0
    run = Run.open(tmp_path / "point_navigation")
    state, expected = run.load(), source.load()
    assert (state.iteration, state.samples) == (expected.iteration, expected.samples)
    assert list(state.params) == list(expected.params)
    assert all(torch.equal(leaf, expected.params[name]) for name, leaf in state.params.items())
    assert "add --publish" in complaint("results", "point_navigation", "--weights")
    for more in (["--verify"], ["--notes", str(tmp_path)]):
        assert "without it" in complaint(*command, *more)


def test_thinned_metrics_equal_those_of_less_frequent_reports() -> None:
    metric = Metric("return", "return", "environment steps")
    lines = [
        {
            "iteration": 2 * number,
            "return/after_0_steps": float(number),
            "return/after_1_steps": float(number**2),
            "success/after_1_steps": number / 10,
            "environment_steps": 10.0 * number,
            "outer/kl": 0.1,
            "time/sampling": 1.0 * number,
            "time/learning": 2.0,
        }
        for number in range(1, 8)
    ]
    short = thin_metrics(lines, metric, max_lines=3)
    assert [line["iteration"] for line in short] == [6, 12, 14]
    assert [line["environment_steps"] for line in short] == [60, 150, 70]
    assert short[0]["return/after_1_steps"] == pytest.approx((1 + 4 + 9) / 3, rel=1e-5)
    assert short[0]["success/after_1_steps"] == pytest.approx(0.2)
    assert all("outer/kl" not in line for line in short)
    assert minutes_of_training(short)[-1] == pytest.approx(minutes_of_training(lines)[-1], rel=1e-5)
    assert thin_metrics(lines, metric, max_lines=7)[-1]["return/after_0_steps"] == 7
    assert thin_metrics([], metric) == []


def test_an_evaluation_that_refers_to_a_file_without_tasks_is_an_error(
    tmp_path: Path, complaint
) -> None:
    main(["results", "point_navigation", "--publish", str(tmp_path)])
    file = tmp_path / "point_navigation" / "evaluation-paper.json"
    values = json.loads(file.read_text())
    for name in ("evaluation-paper.json", "../evaluation.json"):
        file.write_text(json.dumps(values | {"tasks": name}))
        message = complaint("results", str(file.parent), "--out", str(tmp_path / "page.md"))
        assert "evaluation-paper.json is damaged" in message


def test_seeds_that_were_evaluated_with_other_step_sizes_are_not_averaged() -> None:
    def evaluation(seed: int, *step_sizes: float) -> Evaluation:
        config = load_config(
            "point_navigation", [f"seed={seed}", f"evaluation.step_sizes={[*step_sizes]}"]
        )
        curve = AdaptationCurve(np.zeros((2, 1)), np.zeros((2, 2)), step_sizes, (0, 20))
        return Evaluation(Run(Path(f"seed-{seed}"), config), load_method(config), curve)

    first, second, other = evaluation(1, 0.5), evaluation(2, 0.5), evaluation(3, 0.1)
    assert _same_protocol([first], second)
    assert not _same_protocol([first], other)
    sizes = [len(group.runs) for group in group_experiments([first, second, other])]
    assert sizes == [2, 1]


def test_a_command_does_not_keep_settings_of_the_shipped_config_that_the_run_lacks() -> None:
    config = load_config("half_cheetah_velocity_gymnasium", ["family.settings={}", "seed=4"])
    name, *options = shlex.split(reproduce_command(config))[2:]
    assert same_experiment(load_config(name, options[1::2]), config)
