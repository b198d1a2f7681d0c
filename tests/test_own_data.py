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
from metarl.experiment import override_config, validate_config
from metarl.method import load_method, train
from metarl.report.evaluations import load_or_evaluate
from metarl.report.groups import are_seeds, group_by_tasks
from metarl.report.predictions import predict_curve
from metarl.supervised.data import Dataset, Folder
from metarl.supervised.datasets.folder import split
from metarl.supervised.datasets.pixels import to_pixels

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
        # the baselines of a config for MAML
        run = metarl.train(override_config(values, [f"method={kind}"]), kind)
        assert np.isfinite(metarl.evaluate(run).scores).all()


@pytest.mark.parametrize("method", ["prototypical", "matching", "siamese"])
def test_embeddings_are_trained_with_the_number_of_classes_of_the_tasks(
    workspace: Path, method: str
) -> None:
    inner = {name: value for name, value in BLOBS["inner"].items() if name != "step_size"}
    values = {**BLOBS, "inner": inner}
    run = metarl.train({**values, "method": {"name": method, "ways": 3}}, "fits")
    adapted = metarl.load_network(run).adapt([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [0, 1, 2])
    assert adapted.predict([[1.0, 0.0]]).argmax() == 0  # the very same point
    with pytest.raises(UserError, match=r"has 3 classes, not method\.ways=60; set method\.ways"):
        metarl.train({**values, "method": method}, "other")
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


def test_the_plot_of_custom_tasks_has_the_predictions_of_the_adapted_network(
    workspace: Path,
) -> None:
    run = metarl.train(LINES, "lines")
    fit = predict_curve(run, steps=[1])
    x, y = fit.points[:, :1], fit.points[:, 1:]
    assert len(x) == run.config.inner.shots
    slope, offset = load_or_evaluate(run).curve.tasks[0]
    assert np.allclose(fit.truth[:, 1], slope * fit.truth[:, 0] + offset, atol=1e-6)
    grid = fit.curves[1][:, :1]
    assert grid.min() == min(x.min(), fit.truth[:, 0].min())
    adapted = metarl.load_network(run).adapt(x, y, steps=1)
    assert np.allclose(fit.curves[1][:, 1:], adapted.predict(grid), atol=1e-6)
    assert fit.description == f"{slope:.2f} x + {offset:.2f}"


@pytest.mark.slow
def test_all_commands_support_custom_data(workspace: Path, complaint) -> None:
    assert main(["train", *config_of(FOLDER), "--out", "run"]) == 0
    assert main(["evaluate", "run", "--set", "evaluation.tasks=4"]) == 0
    assert main(["render", "run"]) == 0
    assert Path("run/episode.png").exists()
    assert main(["train", *config_of(LINES), "--out", "lines"]) == 0
    for kind in ("random", "oracle"):
        assert main(["baseline", *config_of(LINES), "--kind", kind, "--out", kind]) == 0
    runs = ["lines", "random", "oracle"]
    assert main(["compare", *runs, "--out", "compared", "--trust-code"]) == 0
    assert Path("compared/fits.png").exists()
    assert main(["render", "lines", "--trust-code"]) == 0
    assert Path("lines/fit.png").exists()
    assert "--task is for policies and sine waves" in complaint(
        "render", "lines", "--trust-code", "--task", "1", "0"
    )
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


def test_runs_on_the_same_images_in_other_folders_are_compared(workspace: Path) -> None:
    for copy in ("disk/pictures", "changed/pictures"):
        shutil.copytree("pictures", workspace / "data" / copy)
    file = next((workspace / "data" / "changed").rglob("*.png"))
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(file)
    runs = [
        metarl.train(
            {**FOLDER, "seed": seed, "data": {**FOLDER["data"], "path": path}}, f"run-{seed}"
        )
        for seed, path in enumerate(("pictures", "data/disk/pictures", "data/changed/pictures"))
    ]
    (group,) = metarl.compare(*runs[:2]).groups
    assert len(group.runs) == 2
    assert group_by_tasks(runs) == [runs[:2], runs[2:]]
    assert are_seeds(runs[:2])
    assert not are_seeds(runs)
    with pytest.raises(UserError, match="was trained on other data"):
        metarl.compare(*runs)


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


BYTES = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
FLOATS = torch.from_numpy(np.float32(BYTES) / 255.0)
DEEP = np.uint16(BYTES[..., 0]) * 257  # 16 bits


@pytest.mark.parametrize(
    ("form", "channels"),
    [
        (Image.fromarray(BYTES), 3),
        (Image.fromarray(BYTES).convert("RGBA"), 3),  # opaque
        (BYTES, 3),
        (FLOATS.numpy(), 3),
        (FLOATS.movedim(-1, 0), 3),
        (FLOATS.double().requires_grad_(), 3),
        (Image.fromarray(DEEP), 1),
        (Image.fromarray(DEEP.astype(">u2")), 1),
        (Image.fromarray(FLOATS[..., 0].numpy()), 1),  # Pillow mode F
        (FLOATS[None, ..., 0], 1),
    ],
)
def test_an_image_has_the_same_pixels_in_every_form(form, channels: int) -> None:
    np.testing.assert_array_equal(to_pixels(form, 6, channels, "it"), BYTES[..., :channels])


@pytest.mark.parametrize("form", ["1", "P", "boolean", "bfloat16"])
def test_black_and_white_images_keep_their_contrast(form: str) -> None:
    bits = BYTES[..., 0] > 128
    images = {
        "1": lambda: Image.fromarray(bits),
        "P": lambda: Image.fromarray(255 * np.uint8(bits)).convert("P"),
        "boolean": lambda: bits,
        "bfloat16": lambda: torch.from_numpy(bits).bfloat16(),
    }
    np.testing.assert_array_equal(to_pixels(images[form](), 6, 1, "it")[..., 0], 255 * bits)


def transparent(mode: str) -> Image.Image:
    image = Image.fromarray(BYTES).convert("RGBA")
    image.putalpha(Image.fromarray(BYTES[..., 1]))
    if mode == "P":
        image = Image.fromarray(BYTES[..., 0]).convert("P")
        image.info["transparency"] = int(np.asarray(image)[0, 0])
    return image.convert(mode)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        *(
            (transparent(mode), "has transparent pixels; draw it on")
            for mode in ("RGBA", "LA", "P")
        ),
        (Image.fromarray(255 * FLOATS[..., 0].numpy()), "floats in 0...1 .before any norm"),
        (Image.fromarray(np.int32(BYTES[..., 0])), "Pillow mode I"),
        (Image.fromarray(BYTES).convert("RGBA").convert("La"), "Pillow mode La; convert it to L"),
        (DEEP, "not uint16 of shape"),
        (BYTES[..., :2], r"not uint8 of shape \(6, 6, 2\)"),
        (FLOATS * np.nan, "floats in 0...1"),
        (FLOATS[0, 0], r"not float32 of shape \(3,\)"),
        (np.resize(BYTES, (3, 400)), "it is 3x400, .* for series or features"),
        (np.resize(BYTES, (1, 200)), "it is 1x200"),
    ],
)
def test_an_image_of_ambiguous_values_is_refused(image, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        to_pixels(image, 6, 1, "it")


def test_deep_images_of_a_folder_are_scaled(workspace: Path) -> None:
    for file in Path("pictures").glob("*/*.png"):
        Image.fromarray(np.uint16(np.asarray(Image.open(file))) * 257).save(file)
    deep = Folder(path="pictures", size=8, channels=1).images
    again = Dataset.of(my_data.Shapes(), size=9, channels=1).images
    assert abs(deep.images.mean() - again.images.mean()) < 2.0


def test_labels_are_names_of_classes_in_their_order() -> None:
    labels = [torch.tensor(12), 3, np.int64(3), torch.tensor([100])]
    images = Dataset.of([(BYTES, label) for label in labels], size=6).images
    assert (images.starts.tolist(), images.classes) == ([0, 2, 3, 4], ("003", "012", "100"))


def test_folders_may_have_a_published_split(workspace: Path) -> None:
    parts = {"train": range(5), "val": range(5, 7), "test": range(7, 10)}
    for part, numbers in parts.items():
        for number in numbers:
            (target := Path("split") / part).mkdir(parents=True, exist_ok=True)
            shutil.copytree(f"pictures/kind {number}", target / f"kind {number}")
    images = Folder(path="split", size=8, channels=1).images
    together = Folder(path="pictures", size=8, channels=1).images
    assert images.checksum == together.checksum
    names = {part: [images.classes[i] for i in ids] for part, ids in images.splits.items()}
    assert names == {
        part.replace("val", "validation"): [f"kind {number}" for number in numbers]
        for part, numbers in parts.items()
    }
    with pytest.raises(UserError, match=r"data\.split_seed: the data define their own split"):
        Folder(path="split", size=8, split_seed=1).images  # noqa: B018
    shutil.copytree("pictures/kind 0", "split/test/kind 0")
    with pytest.raises(UserError, match="class kind 0 is in both test and train"):
        Folder(path="split", size=8).images  # noqa: B018
    shutil.move("split/val", "elsewhere")
    with pytest.raises(UserError, match="has the folders test, train; a split consists of"):
        Folder(path="split", size=8).images  # noqa: B018


def test_data_sets_may_have_a_published_split() -> None:
    def part(first: int) -> list:
        return [(BYTES, first + number) for number in range(2)]

    parts = {"train": part(4), "validation": part(0), "test": part(2)}
    splits = Dataset.of(parts, size=6).images.splits
    assert {name: numbers.tolist() for name, numbers in splits.items()} == {
        "train": [4, 5],
        "validation": [0, 1],
        "test": [2, 3],
    }
    with pytest.raises(UserError, match="class 4 is in both train and test"):
        Dataset.of({**parts, "test": part(3)}, size=6).images  # noqa: B018
    with pytest.raises(UserError, match="needs the keys train, validation, test, not train, dev"):
        Dataset.of({"train": part(0), "dev": part(2)}, size=6).images  # noqa: B018


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
    "a class twice": (
        type(
            "Lines",
            (my_data.Blobs,),
            {
                "__init__": lambda s, spread: None,
                "sample_tasks": lambda s, r, n, split: np.array([[0, 2, 0]] * n),
            },
        ),
        r"has a class twice; draw .* replace=False",
    ),
    "noise of another generator": (
        lines(sample=lambda s, r, t, k: (np.zeros((len(t), k, 1)), np.random.rand(len(t), k, 1))),  # noqa: NPY002
        "must use only the generator that is passed",
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
    "another format": (
        lambda f: (f / "pictures/kind 4/x.tif").touch(),
        {},
        "x.tif is not a PNG or JPEG; convert or remove",
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


class Augmented:
    """Returns other images whenever it is read."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.rng.random((4, 4)), index


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield BYTES, 0


GREY = np.zeros((4, 4))


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ([3], "element 0 of the data set must be a pair"),
        ([(GREY, 0), (GREY, 0, 5)], "element 1 .* must be a pair .*, not a tuple of length 3"),
        ([{"pixels": GREY, "class": 0}], "a pair .*, not a dict with the keys pixels, class"),
        ([torch.zeros(2, 4, 4)], "must be a pair"),
        ([(np.zeros((4, 4, 2)), 0)], "must be a PIL image or an array"),
        ([(np.full((4, 4), -1.0), 0)], "before any normalisation"),
        ([(GREY, 0.5)], "an integer or a string"),
        ([(GREY, np.eye(3)[0])], r"the label of element 0 .* has shape \(3,\)"),
        ([(GREY, 0), (GREY, "a")], "all integers, or all strings"),
        ([(np.ones((4, 4), np.uint8), label) for label in range(3)], "no pixel of list is above 1"),
        ([], "is empty"),
        (torch.utils.data.Subset([(GREY, 0)], [0, 7]), r"element 1 .* it raised IndexError"),
        (torch.utils.data.DataLoader([(GREY, 0)]), "element 0 .* it raised TypeError"),
        (Augmented(), "element 0 .* differs when it is read again; remove random augmentation"),
        (Stream(), "must have a length"),
    ],
)
def test_an_invalid_data_set_is_reported(elements, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Dataset.of(elements, size=4, channels=1).images  # noqa: B018
