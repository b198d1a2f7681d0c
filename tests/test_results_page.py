"""The page of results is generated from runs, and that of the documentation is current."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from metarl.cli import main
from metarl.evaluation import Metric
from metarl.experiment import differences, load_config
from metarl.method import load_method, resolve
from metarl.report.evaluations import load_or_evaluate
from metarl.report.groups import same_experiment, seed_independent_fields
from metarl.report.publish import thin_metrics
from metarl.report.published import Published, find_published
from metarl.report.reproduce_command import reproduce_command
from metarl.runs.metrics import training_minutes
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


@pytest.mark.slow
def test_the_page_in_the_documentation_matches_the_runs(page: Path) -> None:
    # made by the command that it shows
    assert page.read_text() == (DOCS / "results.md").read_text()
    pictures = {file.name for file in (page.parent / "results").iterdir()}
    assert pictures == {file.name for file in (DOCS / "results").iterdir()}


@pytest.mark.slow
def test_tables_have_all_seeds_both_schedules_and_published_results(page: Path) -> None:
    lines = page.read_text().splitlines()
    sections = {part.split("\n")[0]: part for part in page.read_text().split("\n## ")[1:]}
    rows = sections["half-cheetah-direction"]
    assert re.findall(r"^\| MAML, seed (\d) \|", rows, re.MULTILINE) == list("12345")
    assert "half-cheetah-direction, dynamics gymnasium" in sections
    (point,) = (n for n, line in enumerate(lines) if line == "## point-navigation")
    of_one = [line for line in lines[point:] if line.startswith("| MAML (trpo-point-s1), seed 1 |")]
    # by episodes and steps that halve, and by time steps and the paper's step sizes
    assert [line.split(" | ")[1:3] for line in of_one] == [
        ["episodes", "0.5, 0.25, 0.125"],
        ["steps", "0.5, 0.25, 0.25"],
    ]
    # 40 trajectories a stage, and what training took
    assert of_one[0].split(" | ")[3] == "40"
    assert of_one[0].endswith(" | 10.77 M | 7.88 |")
    assert all(line.split(" | ")[5] == "400" for line in of_one)
    published_returns = "−40.4 | −11.7 | −3.33 | −3.23 ± 0.58"
    assert f"| *published: MAML* |  |  |  |  | 40 | {published_returns} |  |  |  |" in lines


@pytest.mark.slow
def test_a_column_has_the_paired_differences_after_one_step(page: Path) -> None:
    section = page.read_text().split("\n## half-cheetah-velocity\n")[1].split("\n## ")[0]
    header, *table = [line.split(" | ") for line in section.splitlines() if " | " in line]
    column = header.index("MAML − method (1 step)")
    differences = {row[0]: row[column] for row in table if len(row) == len(header)}
    assert differences["| MAML"] == "– (reference)"
    assert differences["| MAML, seed 1"] == differences["| *published: MAML*"] == ""
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
def test_every_evaluation_has_a_row_and_data_sets_with_several_sections_have_an_overview(
    page: Path,
) -> None:
    text = page.read_text()
    sections = {part.split("\n")[0]: part for part in text.split("\n## ")[1:]}
    titles = [title for title in sections if title.startswith("omniglot, ")]
    assert titles[0] == "omniglot, every method"
    assert set(titles[1:]) == {
        "omniglot, 5-way 1-shot",
        "omniglot, 5-way 5-shot",
        "omniglot, 20-way 1-shot",
        "omniglot, 20-way 5-shot",
    }
    start = list(sections).index(titles[0])
    assert list(sections)[start : start + 5] == titles  # one after the other
    for title in titles[1:]:
        rows = re.findall(r"^\| matching networks \| (\d+) \| (\w+) \|", sections[title], re.M)
        shots = "5" if title.endswith("5-shot") else "1"
        assert rows == [(shots, "true"), ("15", "true"), (shots, "false")]
        assert sections[title].count("| matching-s1 |") == 1
    (overview,) = re.findall(r"^\| matching networks \|.*", sections[titles[0]], re.M)
    cells = [cell.strip() for cell in overview.split("|")[2:-1]]
    assert cells[1::3] == ["98.1", "98.9", "93.8", "98.5"]
    assert len(set(cells[2::3])) == 1  # the same weights took the same minutes


@pytest.mark.slow  # where observations are scaled, they are measured
@pytest.mark.parametrize("path", [*PUBLISHED, *SHIPPED], ids=lambda path: path.name)
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
    for override in overrides:
        assert _published("half_cheetah_direction", override) is None
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
    places = [text.index(words) for words in ("What this is.", "Of waves.", "## Something else")]
    assert places == sorted(places)
    assert "![sinusoid, 5-shot: adaptation and training]" in text
    assert (tmp_path / re.findall(r"\]\((.*?\.png)\)", text)[0]).exists()
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
    titles = re.findall(r"^## (.*)", (tmp_path / "page.md").read_text(), re.MULTILINE)
    assert titles == ["sinusoid, every method", "sinusoid, 5-shot", "sinusoid, 7-shot"]
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


def test_runs_on_different_images_are_in_separate_sections(tmp_path: Path, complaint) -> None:
    runs = [tmp_path / name for name in ("matching-s1", "siamese-s1")]
    for run in runs:
        shutil.copytree(ROOT / "results" / run.name, run)
    state = (runs[1] / "state.json").read_text()
    hashed = json.loads(state)["provenance"]["data_sha256"]
    (runs[1] / "state.json").write_text(state.replace(hashed, "0" * 64))
    error = complaint("results", *map(str, runs), "--out", str(tmp_path / "page.md"))
    assert "siamese-s1 was trained on other data" in error


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
    titles = re.findall(r"^## (.*)", page.read_text(), re.MULTILINE)
    assert titles == ["half-cheetah-direction", "half-cheetah-direction, dynamics gymnasium"]


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
        assert np.allclose(curve.scores, expected.scores, rtol=1e-7, atol=0.0)
    assert json.loads((folder / "evaluation-paper.json").read_text())["tasks"] == "evaluation.json"
    assert training_minutes(run.metrics()) == pytest.approx(training_minutes(source.metrics()))
    assert main(["results", str(folder), "--out", str(tmp_path / "page.md")]) == 0
    for command in (["evaluate", str(folder)], ["train", "--resume", str(folder)]):
        message = complaint(*command)
        assert "was published without its weights" in message
        assert f"metarl train {folder / 'config.yaml'} --out" in message
    again = complaint("results", "point_navigation", "--publish", str(tmp_path))
    assert f"{folder} is not empty" in again


def test_thinned_metrics_equal_those_of_less_frequent_reports() -> None:
    metric = Metric("return", "return", "environment steps")
    lines = [
        {
            "iteration": 2 * number,
            "return/after_0_steps": float(number),
            "return/after_1_steps": float(number**2),
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
    assert all("outer/kl" not in line for line in short)
    assert training_minutes(short) == pytest.approx(training_minutes(lines), rel=1e-5)
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
