"""Custom data: class folders, data sets of (image, label), and plain classes of tasks."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import validate_config
from metarl.method import load_method, train
from metarl.supervised.datasets.folder import load_labelled, split

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("my_data", HERE / "my_data.py")
my_data = importlib.util.module_from_spec(spec)
spec.loader.exec_module(my_data)
MLP = {"kind": "mlp", "hidden_sizes": [8]}
SMALL = {
    "network": MLP,
    "inner": {"step_size": 0.1, "shots": 2, "queries": 2},
    "outer": {"iterations": 2, "meta_batch": 3},
    "evaluation": {"tasks": 3},
    "baseline": {"step_sizes": [0.1], "validation_tasks": 3},
}
LINES = {"data": {"name": "my_data:Lines", "settings": {"spread": 2.0}}, **SMALL}
BLOBS = {"data": {"name": "my_data:Blobs"}, **SMALL}
SHAPES = {
    "data": {"name": "dataset", "dataset": "my_data:Shapes", "size": 8, "channels": 1, "ways": 2},
    **SMALL,
}
FOLDER = {"data": {"name": "folder", "path": "pictures", "size": 8, "ways": 2}, **SMALL}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's module and ten class folders of images."""
    shutil.copy(HERE / "my_data.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    shapes = my_data.Shapes()
    for index in range(len(shapes)):
        picture, label = shapes[index]
        place = tmp_path / "pictures" / f"kind {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * picture[0]).astype(np.uint8)).save(place / f"{index}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("values", [LINES, BLOBS, SHAPES, FOLDER], ids=lambda v: v["data"]["name"])
def test_custom_data_can_be_used_for_training_evaluation_and_loading(
    workspace: Path, values
) -> None:
    run = metarl.train(values, "run")
    assert metarl.evaluate(run).scores.shape[0] == 3
    network = metarl.load_network("run", trust_code=True)
    problem = network.method.problem
    episodes = next(problem.evaluation_episodes("test", 1))
    (x, y), (queries, _) = episodes.support, episodes.query
    predicted = network.adapt(x[0].numpy(), y[0].numpy()).predict(queries[0].numpy())
    assert predicted.shape == (queries.shape[1], problem.tasks("test").outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (LINES, ["pretrained", "random", "oracle"]),
        (BLOBS, ["pretrained", "random", "nearest_neighbour"]),
        (FOLDER, ["pretrained", "random", "nearest_neighbour"]),
    ],
    ids=["regression", "classification", "images"],
)
def test_all_baselines_support_custom_data(workspace: Path, values, kinds) -> None:
    for kind in kinds:
        run = metarl.train({**values, "method": kind}, kind)
        assert np.isfinite(metarl.evaluate(run).scores).all()


@pytest.mark.parametrize("method", ["prototypical", "matching", "siamese"])
def test_embeddings_are_trained_with_the_number_of_classes_of_the_tasks(
    workspace: Path, method: str
) -> None:
    run = metarl.train({**BLOBS, "method": {"name": method, "ways": 3}}, "fits")
    adapted = metarl.load_network(run).adapt([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [0, 1, 2])
    assert adapted.predict([[1.0, 0.0]]).argmax() == 0  # the very same point
    with pytest.raises(UserError, match=r"has 3 classes, not 60; set method\.ways"):
        metarl.train({**BLOBS, "method": method}, "other")
    assert not Path("other").exists()


def test_maml_learns_custom_regression_tasks(workspace: Path) -> None:
    config = validate_config(
        {
            "data": {"name": "my_data:Lines"},
            "network": {"kind": "mlp", "hidden_sizes": [16]},
            "inner": {"step_size": 0.1, "shots": 5},
            "outer": {"iterations": 150, "meta_batch": 10, "learning_rate": 1e-2},
            "evaluation": {"tasks": 20, "steps": 2},
        }
    )
    method = load_method(config)
    *_, (state, _) = train(method)
    before, after = method.evaluate(state.params).summary.estimate[[0, 2]]
    assert after < 0.3 * before


@pytest.mark.slow
def test_all_commands_support_custom_data(workspace: Path, complaint) -> None:
    assert main(["train", *config_of(FOLDER), "--out", "run"]) == 0
    assert main(["evaluate", "run", "--set", "evaluation.tasks=4"]) == 0
    assert main(["render", "run"]) == 0
    assert Path("run/episode.png").exists()
    assert main(["train", *config_of(LINES), "--out", "lines"]) == 0
    assert main(["baseline", *config_of(LINES), "--kind", "random", "--out", "random"]) == 0
    assert main(["compare", "lines", "random", "--out", "compared", "--trust-code"]) == 0
    assert "for which there is no plot" in complaint("render", "lines", "--trust-code")
    assert "names code that is not of this package" in complaint("evaluate", "lines")


def config_of(values) -> list[str]:
    Path("my.yaml").write_text(yaml.safe_dump(values))
    return ["my.yaml"]


def test_a_run_finds_its_images_in_another_folder_and_refuses_other_images(
    workspace: Path, complaint
) -> None:
    metarl.train(FOLDER, "run")
    shutil.move("pictures", "elsewhere")
    assert "there is no folder pictures" in complaint("evaluate", "run")
    assert main(["evaluate", "run", "--set", "data.path=elsewhere"]) == 0
    next(Path("elsewhere").glob("*/*.png")).unlink()
    message = complaint("evaluate", "run", "--set", "data.path=elsewhere")
    assert "was trained on other data" in message


def test_a_data_set_object_can_be_passed_in_python(workspace: Path) -> None:
    data = metarl.Dataset.of(my_data.Shapes(), size=8, channels=1, ways=2)
    config = metarl.SupervisedConfig(data=data, **SMALL)
    run = metarl.train(config, "run")
    with pytest.raises(UserError, match="pass it again"):
        metarl.load_network("run")
    again = metarl.Dataset.of(my_data.Shapes(), size=8, channels=1, ways=2)
    assert metarl.load_network("run", data=again).evaluate().scores.shape[0] == 3
    assert run.data_hashes().keys() == {"data_sha256", "split_sha256"}
    other = metarl.Dataset.of(my_data.Shapes(7), size=8, channels=1, ways=2)
    with pytest.raises(UserError, match="was trained on other data"):
        metarl.load_network("run", data=other)


def test_images_are_the_same_in_all_supported_formats() -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    floats = np.float32(bytes_) / 255.0
    forms = [
        Image.fromarray(bytes_),
        bytes_,
        floats,
        torch.from_numpy(floats).movedim(-1, 0),
    ]
    for form in forms:
        images, starts, names, _ = load_labelled([(form, 3), (form, 12)], 6, 3)
        np.testing.assert_array_equal(images, [bytes_, bytes_])
        assert (starts.tolist(), names) == ([0, 1, 2], ("03", "12"))


@pytest.mark.parametrize("count", [3, 4, 7, 100])
def test_the_split_depends_on_its_seed_and_has_no_empty_part(count: int) -> None:
    names = [str(number) for number in range(count)]
    parts = split(names, 0, (0.64, 0.16, 0.2))
    assert sorted(np.concatenate([*parts.values()])) == list(range(count))
    assert all(len(part) for part in parts.values())
    again, other = split(names, 0, (0.64, 0.16, 0.2)), split(names, 1, (0.64, 0.16, 0.2))
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    assert count < 7 or any(not np.array_equal(parts[name], other[name]) for name in parts)


def lines(**members):
    return type("Lines", (my_data.Lines,), members)


WRONG_TASKS = {
    "kind": (lines(kind="clustering"), "must be regression or classification, not 'clustering'"),
    "no count": (lines(kind="classification"), "must have an attribute `classes`"),
    "one axis": (lines(sample_tasks=lambda s, r, n, split: r.normal(size=n)), "a row for each"),
    "no pair": (lines(sample=lambda s, r, t, k: np.zeros((len(t), k, 1))), "must return a pair"),
    "flat": (
        lines(sample=lambda s, r, t, k: (np.zeros((len(t), k, 1)), np.zeros((len(t), k)))),
        r"targets \(\d, \d, outputs\)",
    ),
    "not finite": (
        lines(sample=lambda s, r, t, k: (np.full((len(t), k, 1), np.nan), np.zeros((1, 1, 1)))),
        "must return finite numbers",
    ),
    "other draws": (
        lines(sample_tasks=lambda s, r, n, split: np.random.default_rng().normal(size=(n, 2))),
        "must use only the generator that is passed",
    ),
}


@pytest.mark.parametrize("name", WRONG_TASKS)
def test_invalid_tasks_are_refused_before_training(name: str, workspace: Path, monkeypatch) -> None:
    custom_class, sentence = WRONG_TASKS[name]
    monkeypatch.setattr(importlib.import_module("my_data"), "Lines", custom_class)
    with pytest.raises(UserError, match=sentence):
        metarl.train(LINES, "run")
    assert not Path("run").exists()


def test_the_error_for_a_data_set_in_place_of_tasks_names_the_right_setting(
    workspace: Path,
) -> None:
    with pytest.raises(UserError, match="name: dataset, dataset: 'my_data:Shapes'"):
        metarl.train({**SMALL, "data": {"name": "my_data:Shapes"}}, "run")


def broken_picture(folder: Path) -> None:
    next((folder / "pictures" / "kind 3").glob("*.png")).write_bytes(b"GIF89a")


WRONG_FOLDERS = {
    "no folder": (lambda f: shutil.rmtree(f / "pictures"), {}, "there is no folder pictures"),
    "no class": (
        lambda f: [shutil.rmtree(place) for place in (f / "pictures").iterdir()],
        {},
        "has no class folders",
    ),
    "an empty class": (
        lambda f: (f / "pictures/none").mkdir(),
        {},
        "class none in pictures has no",
    ),
    "two classes": (
        lambda f: [shutil.rmtree(f / f"pictures/kind {number}") for number in range(2, 10)],
        {},
        "there are 2 classes, but training",
    ),
    "a damaged image": (broken_picture, {}, "is corrupt or not a PNG or JPEG"),
    "too many ways": (lambda f: None, {"ways": 5}, "more than the 2 classes for test"),
    "shares": (lambda f: None, {"shares": [0.5, 0.1, 0.1]}, "must sum to 1, not 0.7"),
    "a size": (lambda f: None, {"size": 2}, "data.size: must be greater than or equal to 4"),
}


@pytest.mark.parametrize("name", WRONG_FOLDERS)
def test_invalid_folders_are_reported(name: str, workspace: Path) -> None:
    damage, settings, sentence = WRONG_FOLDERS[name]
    damage(workspace)
    with pytest.raises(UserError, match=sentence):
        metarl.train({**FOLDER, "data": {**FOLDER["data"], **settings}}, "run")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ([3], "must be a pair"),
        ([(np.zeros((4, 4, 2)), 0)], "must be a PIL image or an array"),
        ([(np.full((4, 4), -1.0), 0)], "before any normalisation"),
        ([(np.zeros((4, 4)), 0.5)], "an integer or a string"),
        ([(np.zeros((4, 4)), 0), (np.zeros((4, 4)), "a")], "all integers, or all strings"),
        ([], "is empty"),
    ],
)
def test_an_invalid_data_set_is_reported(elements, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_labelled(elements, 4, 1)
