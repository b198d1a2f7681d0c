"""Omniglot and MiniImagenet: every file format, the conversion, and corrupt files."""

import codecs
import contextlib
import io
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from metarl.cli import data
from metarl.cli.parser import make_parser
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.progress import Progress
from metarl.supervised.datasets import cache as cache_module
from metarl.supervised.datasets import miniimagenet, omniglot
from metarl.supervised.datasets.cache import ImageSet
from metarl.supervised.datasets.images import Name, load_images
from metarl.supervised.datasets.unpickling import unpickle

SPLIT_HASH = "e2000c5d237fa256906f013025ff86166727c39b437485216a45d03b47956bb4"
FEW = omniglot.Published(
    characters={"images_background": 6, "images_evaluation": 4},
    drawings=3,
    split={"train": 5, "validation": 2, "test": 3},
)
PHOTOGRAPHS = {  # (2, 84, 84, 3) for each class
    name: np.random.default_rng(seed).integers(0, 256, (2, 84, 84, 3), np.uint8)
    for seed, name in enumerate(["n01", "n02", "n03", "n04"])
}
CLASSES = {"train": ["n04", "n01"], "val": ["n03"], "test": ["n02"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache other than the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("METARL_CACHE", str(folder))
    return folder


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ten characters in the two archives, and the clutter of a Mac."""
    monkeypatch.setattr(omniglot, "PUBLISHED", FEW)
    folder = tmp_path / "data" / "omniglot"
    folder.mkdir(parents=True)
    for part, characters in FEW.characters.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            archive.writestr(f"__MACOSX/{part}/Greek/character01/._1_01.png", b"clutter")
            archive.writestr(f"{part}/.DS_Store", b"clutter")
            archive.mkdir(f"{part}/Greek of {part}")
            for number in reversed(range(characters)):
                place = f"{part}/Greek of {part}/character{number + 1:02d}"
                archive.mkdir(place)
                for copy in range(FEW.drawings):
                    archive.writestr(f"{place}/{number}_{copy}.png", drawing(number, copy))
    return folder.parent


def drawing(number: int, copy: int, mode: str = "1", size: tuple[int, int] = (105, 105)) -> bytes:
    """A PNG of a black bar on white; its place depends on the character, its width on the copy."""
    page = Image.new("L", size, 255)
    page.paste(0, (20, 5 + 8 * number, 80 + copy, 12 + 8 * number))
    return png(page.convert(mode))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def unpack(folder: Path) -> None:
    """Replace the archives by their content."""
    for part in FEW.characters:
        with zipfile.ZipFile(folder / f"{part}.zip") as archive:
            archive.extractall(folder)
        (folder / f"{part}.zip").unlink()


def drawings(folder: Path) -> list[Path]:
    return sorted((folder / "omniglot").glob("images_*/*/*/*.png"))


def class_folders(folder: Path) -> None:
    for split, names in CLASSES.items():
        for name in names:
            place = folder / split / name
            place.mkdir(parents=True)
            for number, photograph in enumerate(PHOTOGRAPHS[name]):
                (place / f"{number}.png").write_bytes(png(Image.fromarray(photograph)))


def tables(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for split, names in CLASSES.items():
        rows = ["filename,label"]
        for name in names:
            for number, photograph in enumerate(PHOTOGRAPHS[name]):
                file = f"{name}{number}.png"
                (folder / "images" / file).write_bytes(png(Image.fromarray(photograph)))
                rows.insert(1, f"{file},{name}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def caches(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, names in CLASSES.items():
        content = {"image_data": stacked(names), "class_dict": members(names)}
        (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content))


def old_caches(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, names in CLASSES.items():
        content = {"image_data": stacked(names), "class_dict": members(names)}
        (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(python2(content) + b".")


def category_splits(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, names in CLASSES.items():
        labels = {name: 7 + int(name[1:]) for name in names}
        content = {
            "data": stacked(names),
            "labels": [labels[name] for name in names for _ in PHOTOGRAPHS[name]],
            "catname2label": labels,
        }
        phase = "train_phase_train" if split == "train" else split
        file = folder / f"miniImageNet_category_split_{phase}.pickle"
        file.write_bytes(python2(content) + b".")


def stacked(names: list[str]) -> Any:
    return np.concatenate([PHOTOGRAPHS[name] for name in names])


def members(names: list[str]) -> dict[str, list[int]]:
    ends = np.cumsum([len(PHOTOGRAPHS[name]) for name in names])
    starts = [0, *ends[:-1].tolist()]
    return {
        name: list(range(start, end))
        for name, start, end in zip(names, starts, ends.tolist(), strict=True)
    }


def python2(value: Any) -> bytes:
    """A pickle as written by Python 2 and its numpy: arrays as strings of bytes."""
    match value:
        case dict():
            return b"(" + b"".join(python2(x) for item in value.items() for x in item) + b"d"
        case list():
            return b"(" + b"".join(map(python2, value)) + b"l"
        case int():
            return b"I%d\n" % value
        case str():
            return b"U" + bytes([len(value)]) + value.encode()
        case _:
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
            kind = b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntb"
            shape = b"(" + b"".join(map(python2, value.shape)) + b"t"
            pixels = b"T" + value.nbytes.to_bytes(4, "little") + value.tobytes()
            return empty + b"(I1\n" + shape + kind + b"I00\n" + pixels + b"tb"


FORMS = [class_folders, tables, caches, old_caches, category_splits]


def load_error(name: Name, folder: Path) -> str:
    """The error message for a data set, one sentence."""
    with pytest.raises(UserError) as caught:
        load_images(name, folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not re.search(r"\. [A-Z]", sentence)
    return sentence


def check(*arguments: str | Path) -> tuple[int, str]:
    """The status of `metarl data check`, and its output."""
    console = Console(file=io.StringIO(), width=100)
    status = data.run(make_parser().parse_args(["data", "check", *map(str, arguments)]), console)
    return status, " ".join(console.file.getvalue().split())


# contents


def test_strokes_are_255_on_0_and_are_filtered_when_resized(few: Path) -> None:
    image_set = load_images("omniglot", few)
    assert image_set.images.shape == (30, 28, 28, 1)
    assert image_set.images.dtype == np.uint8
    page = np.asarray(Image.open(io.BytesIO(drawing(0, 0))).convert("L").resize((28, 28), 1))
    assert np.array_equal(image_set.images[0, :, :, 0], 255 - page)
    assert image_set.images.max() == 255
    assert image_set.images[:, 27].max() == 0
    assert len(np.unique(image_set.images)) > 2  # Pillow does not filter images of one bit


def test_classes_and_images_are_sorted_for_any_order_of_the_files(few: Path) -> None:
    image_set = load_images("omniglot", few)
    assert list(image_set.classes) == sorted(image_set.classes)
    assert image_set.starts.tolist() == list(range(0, 31, 3))
    assert image_set.classes[6] == "Greek of images_evaluation/character01"
    strokes = image_set.images.astype(int).sum((1, 2, 3))
    assert all(np.diff(strokes.reshape(10, 3)).ravel() > 0)  # copies have ever wider bars


@given(seed=st.integers(0, 2**32))
def test_splits_of_omniglot_are_a_partition_of_its_classes(seed: int) -> None:
    names = [str(number) for number in range(1623)]
    split = omniglot.split(names, seed)
    assert {name: len(numbers) for name, numbers in split.items()} == {
        "train": 1100,
        "validation": 100,
        "test": 423,
    }
    assert np.array_equal(np.sort(np.concatenate(list(split.values()))), np.arange(1623))


def test_another_split_seed_gives_another_split_of_the_same_images(few: Path) -> None:
    first, same, second = (load_images("omniglot", few, seed) for seed in (0, 0, 1))
    assert first.split_hash == same.split_hash != second.split_hash
    assert first.checksum == second.checksum


def test_the_split_hash_depends_on_names_and_not_on_indices() -> None:
    def split(classes: tuple[str, ...], **splits: list[int]) -> str:
        numbers = {name: np.array(classes) for name, classes in splits.items()}
        nothing = np.zeros((0, 1, 1, 1), np.uint8), np.zeros(1, np.int64)
        return ImageSet(*nothing, classes, numbers, "").split_hash

    hashed = split(("a", "b", "c"), train=[0, 1], test=[2])
    assert split(("a", "b", "c"), test=[2], train=[1, 0]) == hashed
    assert split(("c", "a", "b"), train=[1, 2], test=[0]) == hashed
    assert split(("a", "b", "c"), train=[0], test=[1, 2]) != hashed


@pytest.mark.parametrize("form", FORMS)
def test_all_formats_of_miniimagenet_give_the_same_bytes(
    form: Callable[[Path], None], tmp_path: Path
) -> None:
    form(tmp_path / "data" / "mini-imagenet")
    image_set = load_images("miniimagenet", tmp_path / "data")
    assert image_set.classes == ("n01", "n02", "n03", "n04")
    assert np.array_equal(image_set.images, np.concatenate(list(PHOTOGRAPHS.values())))
    splits = {name: numbers.tolist() for name, numbers in image_set.splits.items()}
    assert splits == {"train": [0, 3], "validation": [2], "test": [1]}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_training_on_every_format_of_miniimagenet_learns(
    form: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    names = [f"n{number:02d}" for number in range(12)]
    patterns = rng.integers(0, 2, (12, 1, 7, 7, 3)).repeat(12, axis=2).repeat(12, axis=3)
    noisy = (150 * patterns + rng.integers(0, 100, (12, 3, 84, 84, 3))).astype(np.uint8)
    photographs = dict(zip(names, noisy, strict=True))
    monkeypatch.setitem(globals(), "PHOTOGRAPHS", photographs)
    classes = {"train": names[:6], "val": names[6:8], "test": names[8:]}
    monkeypatch.setitem(globals(), "CLASSES", classes)
    form(tmp_path / "data" / "miniimagenet")
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "data"))
    overrides = [
        "data.ways=2",
        "network.filters=8",
        "inner.queries=2",
        "inner.steps=2",
        "inner.step_size=0.2",
        "outer.learning_rate=1e-2",
        "outer.iterations=30",
        "evaluation.tasks=40",
        "evaluation.steps=2",
    ]
    config = load_config("miniimagenet_5way_1shot", overrides)
    method = load_method(config)
    method.problem.check()
    *_, (state, metrics) = train(method, method.initial_state())
    assert metrics["accuracy/after_2_steps"] > 85
    assert method.evaluate(state.params).scores[:, -1].mean() > 80


def test_photographs_are_converted_to_84x84_in_colour(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "val").rename(tmp_path / "validation")
    ramp = Image.linear_gradient("L").resize((300, 200))
    ramp.save(tmp_path / "train" / "n01" / "0.png")
    ramp.convert("CMYK").save(tmp_path / "train" / "n01" / "1.JPEG")
    image_set = load_images("miniimagenet", tmp_path)
    expected = np.asarray(ramp.convert("RGB").resize((84, 84), Image.Resampling.LANCZOS))
    assert np.array_equal(image_set.images[0], expected)
    assert np.abs(image_set.images[1].astype(int) - expected).max() <= 5  # a JPEG loses a little


def test_labels_without_names_are_separate_classes(tmp_path: Path) -> None:
    for split, labels in {"train_phase_train": [0, 10, 9], "val": [64], "test": [80]}.items():
        content = {"data": np.zeros((len(labels), 84, 84, 3), np.uint8), "labels": labels}
        file = tmp_path / f"miniImageNet_category_split_{split}.pickle"
        file.write_bytes(pickle.dumps(content))
    image_set = load_images("miniimagenet", tmp_path)
    assert image_set.classes == ("00000", "00009", "00010", "00064", "00080")


# conversion


def test_two_passes_give_the_same_bytes(few: Path, tmp_path: Path, monkeypatch: Any) -> None:
    load_images("omniglot", few)
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "another"))
    load_images("omniglot", few)
    first, second = sorted((tmp_path / "cache").iterdir()), sorted((tmp_path / "another").iterdir())
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.parametrize("place", [".", "omniglot", "omniglot/python", "omniglot-py"])
def test_archives_and_unpacked_folders_give_the_same_bytes(few: Path, place: str) -> None:
    zipped = load_images("omniglot", few)
    unpack(few / "omniglot")
    target = few.parent / "moved" / place
    target.mkdir(parents=True)
    for part in FEW.characters:
        (few / "omniglot" / part).rename(target / part)
    unpacked = load_images("omniglot", few.parent / "moved")
    assert unpacked.checksum == zipped.checksum
    assert unpacked.classes == zipped.classes
    assert np.array_equal(unpacked.images, zipped.images)


def test_converted_images_are_memory_mapped_and_not_decoded_again(
    few: Path, monkeypatch: Any
) -> None:
    first = load_images("omniglot", few)
    monkeypatch.setattr(omniglot, "read_zip", None)
    monkeypatch.setattr(omniglot, "decode", None)
    second = load_images("omniglot", few)
    assert isinstance(first.images, np.memmap)
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert np.array_equal(first.images, second.images)
    assert first.checksum == second.checksum


def test_changed_data_is_converted_again(few: Path) -> None:
    unpack(few / "omniglot")
    before = load_images("omniglot", few)
    source, target = drawings(few)[1:3]
    content = source.read_bytes()
    assert len(content) == len(target.read_bytes())  # so that only the contents differ
    target.write_bytes(content)
    os.utime(target, (0, 0))  # the clock of the file system may be too coarse for a test
    after = load_images("omniglot", few)
    assert before.checksum != after.checksum


def test_a_conversion_reports_its_progress(few: Path) -> None:
    console = Console(file=io.StringIO())
    with Progress(console) as progress:
        load_images("omniglot", few, progress=progress)
    assert "converting omniglot: image 30/30" in console.file.getvalue()


def test_several_processes_may_convert_at_the_same_time(few: Path, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        image_sets = list(pool.map(lambda _: load_images("omniglot", few), range(4)))
    assert len({image_set.checksum for image_set in image_sets}) == 1
    assert len(list(cache.iterdir())) == 2


def test_a_failed_conversion_leaves_no_files(few: Path, cache: Path) -> None:
    unpack(few / "omniglot")
    drawings(few)[-1].write_bytes(b"torn")
    load_error("omniglot", few)
    assert list(cache.iterdir()) == []


def test_a_truncated_converted_file_is_refused(few: Path, cache: Path) -> None:
    load_images("omniglot", few)
    file = next(cache.glob("*.npy"))
    file.write_bytes(file.read_bytes()[:-1])
    sentence = load_error("omniglot", few)
    assert str(file) in sentence
    assert "23,647 of 23,648 bytes" in sentence
    file.unlink()  # as the sentence says
    assert len(load_images("omniglot", few).images) == 30


def test_a_converted_file_with_one_wrong_byte_is_refused(few: Path, cache: Path) -> None:
    load_images("omniglot", few)
    flip_a_bit(next(cache.glob("*.npy")))
    assert "checksum" in load_error("omniglot", few)


def test_the_checksum_of_a_large_set_is_verified_on_demand(
    few: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ALWAYS_VERIFIED", 0)
    load_images("omniglot", few)
    flip_a_bit(next(cache.glob("*.npy")))
    load_images("omniglot", few)
    with pytest.raises(UserError, match="checksum"):
        load_images("omniglot", few, verify=True)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        {"splits": {"train": ["n01"]}},
        {"starts": []},
        {"starts": [0, 1, 2, 3, 4]},
        {"classes": None},
    ],
)
def test_corrupt_metadata_of_converted_images_are_refused(
    change: Mapping[str, Any], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "ALWAYS_VERIFIED", 0)  # the checksum is not verified
    class_folders(tmp_path / "data")
    load_images("miniimagenet", tmp_path / "data")
    file = next(cache.glob("*.json"))
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps(metadata | change))
    assert str(file.with_suffix(".npy")) in load_error("miniimagenet", tmp_path / "data")


def test_the_error_for_a_read_only_cache_names_the_setting(few: Path, cache: Path) -> None:
    cache.write_text("not a folder")
    sentence = load_error("omniglot", few)
    assert str(cache) in sentence
    assert "METARL_CACHE" in sentence


# missing or corrupt files


def test_the_error_for_a_missing_omniglot_names_its_source_and_its_folder(tmp_path: Path) -> None:
    sentence = load_error("omniglot", tmp_path / "nowhere")
    for word in (
        "https://github.com/brendenlake/omniglot",
        "images_background.zip",
        "images_evaluation.zip",
        str(tmp_path / "nowhere"),
        "METARL_DATA",
        "--data",
    ):
        assert word in sentence


def test_the_error_for_a_missing_miniimagenet_names_the_supported_formats(tmp_path: Path) -> None:
    sentence = load_error("miniimagenet", tmp_path)
    for word in (
        "licence",
        "train/",
        "train.csv",
        "mini-imagenet-cache",
        "category_split",
        "--data",
    ):
        assert word in sentence


def test_the_error_for_half_of_omniglot_names_the_missing_archive(few: Path) -> None:
    (few / "omniglot" / "images_evaluation.zip").unlink()
    assert "lacks images_evaluation" in load_error("omniglot", few)


def test_a_missing_character_of_omniglot_is_reported(few: Path) -> None:
    unpack(few / "omniglot")
    folder = few / "omniglot" / "images_evaluation" / "Greek of images_evaluation" / "character04"
    folder.rename(few / "elsewhere")
    assert "images_evaluation in" in load_error("omniglot", few)
    assert "3 characters instead of 4" in load_error("omniglot", few)


def test_the_error_for_a_missing_drawing_names_the_character(few: Path) -> None:
    unpack(few / "omniglot")
    drawings(few)[3].unlink()
    assert "character02" in load_error("omniglot", few)
    assert "2 drawings instead of 3" in load_error("omniglot", few)


@pytest.mark.parametrize("damage", [lambda x: b"torn", lambda x: x[:-30], lambda x: x[:60]])
def test_the_error_names_a_corrupt_archive(few: Path, damage: Callable[[bytes], bytes]) -> None:
    file = few / "omniglot" / "images_background.zip"
    file.write_bytes(damage(file.read_bytes()))
    assert f"the archive {file} is corrupt" in load_error("omniglot", few)


def test_the_error_names_an_archive_with_a_wrong_byte(few: Path) -> None:
    file = few / "omniglot" / "images_background.zip"
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 1
    file.write_bytes(content)
    assert f"the archive {file} is corrupt" in load_error("omniglot", few)


@pytest.mark.parametrize("damage", [lambda x: b"", lambda x: x[:-30], lambda x: b"<html>"])
def test_the_error_names_a_corrupt_drawing(few: Path, damage: Callable[[bytes], bytes]) -> None:
    unpack(few / "omniglot")
    file = drawings(few)[0]
    file.write_bytes(damage(file.read_bytes()))
    assert f"the image {file} is corrupt" in load_error("omniglot", few)


def test_the_error_names_a_drawing_of_another_size(few: Path) -> None:
    unpack(few / "omniglot")
    file = drawings(few)[0]
    file.write_bytes(drawing(0, 0, size=(28, 30)))
    assert f"{file} is 28x30 instead of 105x105" in load_error("omniglot", few)


def test_the_error_names_a_drawing_in_colour(few: Path) -> None:
    unpack(few / "omniglot")
    file = drawings(few)[0]
    file.write_bytes(drawing(0, 0, mode="RGB"))
    assert f"{file} has 3 channels instead of 1" in load_error("omniglot", few)


def test_the_error_names_a_character_without_drawings(few: Path) -> None:
    unpack(few / "omniglot")
    (few / "omniglot" / "images_background" / "Latin" / "character01").mkdir(parents=True)
    assert "class Latin/character01 in images_background" in load_error("omniglot", few)
    assert "is empty" in load_error("omniglot", few)


def test_the_error_names_a_character_in_both_parts_of_omniglot(few: Path) -> None:
    unpack(few / "omniglot")
    twin = few / "omniglot" / "images_evaluation" / "Greek of images_background" / "character01"
    twin.mkdir(parents=True)
    (twin / "1.png").write_bytes(drawing(0, 0))
    sentence = load_error("omniglot", few)
    assert "Greek of images_background/character01 is in both images_background and" in sentence


@pytest.mark.parametrize(
    ("form", "file", "message"),
    [
        (class_folders, "val", "class folders) lacks val"),
        (tables, "test.csv", "images and tables) lacks test.csv"),
        (tables, "images", "images and tables) lacks images"),
        (caches, "mini-imagenet-cache-val.pkl", "lacks mini-imagenet-cache-val.pkl"),
    ],
)
def test_the_error_for_an_incomplete_miniimagenet_names_the_missing_part(
    form: Callable[[Path], None], file: str, message: str, tmp_path: Path
) -> None:
    form(tmp_path / "data")
    (tmp_path / "data" / file).rename(tmp_path / "removed")
    assert message in load_error("miniimagenet", tmp_path / "data")


def test_the_error_names_an_empty_class_folder(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "test" / "n99").mkdir()
    assert "class n99 in test" in load_error("miniimagenet", tmp_path)


def test_the_error_names_a_split_without_classes(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "test" / "n02").rename(tmp_path / "n02")
    assert f"{tmp_path / 'test'} has no classes" in load_error("miniimagenet", tmp_path)


def test_the_error_names_a_class_in_two_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "folders")
    (tmp_path / "folders" / "val" / "n03").rename(tmp_path / "folders" / "val" / "n01")
    assert "class n01 is in both train and validation" in load_error(
        "miniimagenet", tmp_path / "folders"
    )
    tables(tmp_path / "tables")
    table = tmp_path / "tables" / "test.csv"
    table.write_text(table.read_text().replace(",n02", ",n04"))
    assert "class n04 is in both train and test" in load_error("miniimagenet", tmp_path / "tables")


def test_the_error_names_a_corrupt_photograph(tmp_path: Path) -> None:
    class_folders(tmp_path)
    file = tmp_path / "train" / "n01" / "0.png"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"the image {file} is corrupt" in load_error("miniimagenet", tmp_path)


def test_the_error_names_a_transparent_photograph(tmp_path: Path) -> None:
    class_folders(tmp_path)
    file = tmp_path / "train" / "n01" / "0.png"
    Image.new("RGBA", (84, 84)).save(file)
    assert f"{file} has transparent pixels" in load_error("miniimagenet", tmp_path)


def test_the_error_names_a_missing_photograph_of_a_table(tmp_path: Path) -> None:
    tables(tmp_path)
    (tmp_path / "images" / "n030.png").unlink()
    assert f"cannot read {tmp_path / 'images' / 'n030.png'}" in load_error("miniimagenet", tmp_path)


def test_the_error_names_a_broken_link(tmp_path: Path) -> None:
    class_folders(tmp_path)
    link = tmp_path / "train" / "n01" / "2.jpg"
    link.symlink_to("nowhere.jpg")
    assert str(link) in load_error("miniimagenet", tmp_path)


@pytest.mark.parametrize("content", ["image,class\na.png,n01\n", "filename,label\na.png\n"])
def test_the_error_names_a_table_without_the_two_columns(content: str, tmp_path: Path) -> None:
    tables(tmp_path)
    (tmp_path / "val.csv").write_text(content)
    assert f"line 2 of {tmp_path / 'val.csv'}" in load_error("miniimagenet", tmp_path)


@pytest.mark.parametrize("shape", [(4, 32, 32, 3), (4, 84, 84, 1), (4, 84, 84)])
def test_pickled_images_of_another_shape_are_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    content = {"image_data": np.zeros(shape, np.uint8), "class_dict": {"n01": [0, 1, 2, 3]}}
    sentence = pickle_error(content, tmp_path)
    assert f"mini-imagenet-cache-val.pkl has dtype uint8 and shape {shape}" in sentence
    assert "(images, 84, 84, 3)" in sentence


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_data": PHOTOGRAPHS["n01"]}, "has no valid class_dict"),
        ({"image_data": [[0]], "class_dict": {"n05": [0]}}, "has no valid image_data"),
        ([1, 2], "has no valid image_data"),
        ({"image_data": PHOTOGRAPHS["n01"], "class_dict": {"n05": [2]}}, "not in 0 ... 1"),
        ({"image_data": PHOTOGRAPHS["n01"], "class_dict": {"n05": [-1]}}, "not in 0 ... 1"),
        ({"image_data": PHOTOGRAPHS["n01"], "class_dict": {"n05": []}}, "class n05"),
        ({"image_data": PHOTOGRAPHS["n01"], "class_dict": {"n01": [0]}}, "in both train and"),
        ({"image_data": PHOTOGRAPHS["n01"] / 255, "class_dict": {"n05": [0]}}, "float64"),
    ],
)
def test_pickles_with_other_content_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    assert message in pickle_error(content, tmp_path)


def pickle_error(content: Any, folder: Path) -> str:
    """The error message for a pickled cache with these contents of its validation part."""
    caches(folder / "miniimagenet")
    file = folder / "miniimagenet" / "mini-imagenet-cache-val.pkl"
    file.write_bytes(pickle.dumps(content))
    return load_error("miniimagenet", folder)


@pytest.mark.parametrize("labels", [[64], [64, 64, 65]])
def test_pickled_labels_must_be_one_per_image(labels: list[int], tmp_path: Path) -> None:
    category_splits(tmp_path / "data")
    file = tmp_path / "data" / "miniImageNet_category_split_val.pickle"
    file.write_bytes(pickle.dumps({"data": PHOTOGRAPHS["n03"], "labels": labels}))
    assert f"{file} has 2 images but labels" in load_error("miniimagenet", tmp_path / "data")


# untrusted pickles


class Evil:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, f"{os.name}.mkdir"), (exec, "exec"), (eval, "eval"), (getattr, "getattr")],
)
def test_a_malicious_pickle_executes_no_code(
    function: Callable[..., Any], name: str, protocol: int, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    code = f"__import__('os').mkdir({str(victim)!r})"
    argument = {os.mkdir: [str(victim)], getattr: [[], "append"]}.get(function, [code])
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps({"image_data": Evil(function, *argument)}, protocol))
    with pytest.raises(UserError, match="may run any code") as caught:
        unpickle(file)
    assert name in str(caught.value)
    assert str(file) in str(caught.value)
    assert not victim.exists()
    if function is not getattr:
        pickle.loads(file.read_bytes())  # the attack is a real one
        assert victim.exists()


def test_only_arrays_are_reachable_through_names_of_numpy(tmp_path: Path) -> None:
    file = tmp_path / "evil.pkl"
    for module, name in (
        ("numpy", "load"),
        ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "sys.modules"),
        ("numpy._core.multiarray", "fromfile"),
        ("metarl.supervised.datasets.unpickling", "unpickle"),
    ):
        file.write_bytes(pickle.PROTO + b"\4" + short(module) + short(name) + b"\x93.")
        with pytest.raises(
            UserError, match=re.escape(f"contains {module}.{name} and was not read")
        ):
            unpickle(file)


def short(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def test_bytes_are_decoded_from_latin1_only(tmp_path: Path) -> None:
    file = tmp_path / "bytes.pkl"
    file.write_bytes(pickle.dumps(b"\xe9\x00", protocol=2))
    assert unpickle(file) == b"\xe9\x00"
    file.write_bytes(pickle.dumps(Evil(codecs.encode, "text", "rot13"), protocol=2))
    with pytest.raises(UserError, match="the encoding rot13"):
        unpickle(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_are_unpickled_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    value = {"a": OrderedDict({"e": [1, 2.5, None, True]}), "b": ("é", b"\xff"), "d": np.int64(3)}
    if protocol >= 4:  # until then a set is a call of its class
        value["c"] = {"c"}
    file = tmp_path / "plain.pkl"
    file.write_bytes(pickle.dumps(value, protocol))
    assert unpickle(file) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6).astype(">i4"),
        np.array([True, False]),
        np.array(7.0),
    ],
)
def test_arrays_of_numbers_are_unpickled_in_every_protocol(
    array: np.ndarray, protocol: int, tmp_path: Path
) -> None:
    file = tmp_path / "array.pkl"
    file.write_bytes(pickle.dumps(array, protocol))
    loaded = unpickle(file)
    assert np.array_equal(loaded, array)
    assert loaded.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("array", [np.array([{}]), np.zeros(2, "i4,f8"), np.array(["a"])])
def test_arrays_of_other_types_than_numbers_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "array.pkl"
    file.write_bytes(pickle.dumps(array))
    with pytest.raises(UserError, match="contains an array of the type"):
        unpickle(file)


def test_an_array_that_is_larger_than_its_content_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "array.pkl"
    content = python2(np.zeros((2, 3), np.uint8)) + b"."
    file.write_bytes(content.replace(b"(I2\nI3\nt", b"(I2\nI4\nt"))
    with pytest.raises(UserError, match=r"corrupt .* an array of shape \(2, 4\) with 6 bytes"):
        unpickle(file)


@given(cut=st.integers(0, 300), flip=st.integers(0, 300), to=st.integers(0, 255))
def test_a_corrupt_pickle_is_read_or_refused_without_side_effects(
    cut: int, flip: int, to: int
) -> None:
    content = bytearray(pickle.dumps({"labels": [1, 2], "data": np.zeros(8, np.uint8)}, 2))
    content[flip % len(content)] = to
    path = Path("some.pkl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "metarl.supervised.datasets.unpickling.read_file",
            lambda *_: bytes(content[: len(content) - cut]),
        )
        with contextlib.suppress(UserError):
            unpickle(path)


# the command


def test_data_check_reports_present_and_missing_data_sets(few: Path) -> None:
    status, output = check(few)
    assert status == 0
    image_set = load_images("omniglot", few)
    for word in (
        f"two zip files in {few / 'omniglot'}",
        "classes 10",
        "images 30",
        "28x28x1",
        "5 train, 2 validation, 3 test",
        f"split hash {image_set.split_hash}",
        f"checksum ok {image_set.checksum}",
        "MiniImagenet not found",
    ):
        assert word in output
    status, output = check(few, "--only", "omniglot")
    assert status == 0
    assert "MiniImagenet" not in output


def test_data_check_reports_differences_from_the_published_miniimagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "data")
    _, output = check(tmp_path / "data")
    assert "the train split has 2 classes, the published one 64" in output
    assert "4 classes don't have the published 600 images" in output
    monkeypatch.setattr(miniimagenet, "PUBLISHED", {"train": 2, "validation": 1, "test": 1})
    monkeypatch.setattr(miniimagenet, "IMAGES_PER_CLASS", 2)
    assert "published" not in check(tmp_path / "data")[1]


def test_data_check_fails_without_data_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is neither omniglot nor miniimagenet in"):
        check(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        check(tmp_path / "nowhere")


def test_data_check_fails_if_the_requested_data_set_is_missing(few: Path) -> None:
    with pytest.raises(UserError, match="MiniImagenet not found"):
        check(few, "--only", "miniimagenet")


def test_data_check_fails_if_one_of_two_data_sets_is_corrupt(few: Path, cache: Path) -> None:
    class_folders(few / "miniimagenet")
    assert check(few)[0] == 0
    flip_a_bit(next(cache.glob("miniimagenet*.npy")))
    with pytest.raises(UserError, match="checksum"):
        check(few)


# the original data


@pytest.mark.slow
def test_the_real_omniglot_is_complete_and_its_split_is_fixed() -> None:
    if not (folder := os.environ.get("METARL_DATA")):
        pytest.skip("METARL_DATA is not set to a folder with Omniglot")
    image_set = load_images("omniglot", Path(folder))
    assert len(image_set.classes) == 1623
    assert image_set.images.shape == (32460, 28, 28, 1)
    assert (np.diff(image_set.starts) == 20).all()
    assert len({name.split("/")[0] for name in image_set.classes}) == 50
    assert image_set.split_hash == SPLIT_HASH
    ink = image_set.images.mean((1, 2, 3))
    assert 0 < ink.min() < ink.max() < 128  # every drawing has strokes, and more paper than strokes
