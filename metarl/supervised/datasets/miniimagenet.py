"""MiniImagenet (Vinyals et al., 2016), in the split of Ravi and Larochelle (2017).

100 classes of ImageNet with 600 images each: 64 to train, 16 for validation, 20 to test. ImageNet
may not be passed on, so people have made it from their copy, in one of these forms:

    train/CLASS/*.jpg           and val/ or validation/, and test/; images of any size
    images/*.jpg                and train.csv, val.csv, test.csv with the columns filename, label
    mini-imagenet-cache-train.pkl   and -val, -test: {"image_data": (I, 84, 84, 3),
                                    "class_dict": {CLASS: [number of an image, ...]}}
    miniImageNet_category_split_train_phase_train.pickle   and ..._split_val, ..._split_test:
                                    {"data": (I, 84, 84, 3), "labels": [number of a class, ...]}
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import read_file
from metarl.supervised.datasets.decoding import decode, read_image, resized
from metarl.supervised.datasets.source import SPLITS, Contents, Picture, Source, joined
from metarl.supervised.datasets.unpickling import unpickle

SIDE = 84
MOST_BYTES = 2**26  # of a table
PLACES = (".", "miniimagenet", "mini-imagenet", "mini_imagenet", "miniImagenet")
PUBLISHED = {"train": 64, "validation": 16, "test": 20}
IMAGES_A_CLASS = 600
# ImageNet has a few grey photographs, and a few made for printing; both have colours in RGB
COLOURS = ("RGB", "L", "CMYK")
SUFFIXES = (".jpg", ".jpeg", ".png")
MISSING = (
    "there is no MiniImagenet in {folder}; ImageNet's licence forbids redistribution, so make it "
    "from your own copy and put it there (or into the subfolder miniimagenet) as class folders "
    "train/, val/, test/, as images/ with train.csv, val.csv, test.csv, as "
    "mini-imagenet-cache-*.pkl or as miniImageNet_category_split_*.pickle, or name the folder that "
    "has it with --data or METARL_DATA"
)

Classes = Mapping[str, Sequence[Picture]]


@dataclass(frozen=True)
class Form:
    """One of the forms.

    Attributes:
        name: in words.
        needs: what the train, validation and test part may be called, and what is beside them.
        read: lists the classes of one part.
    """

    name: str
    needs: Sequence[Sequence[str]]
    read: Callable[[Path], Classes]


def find(folder: Path) -> Source | None:
    """MiniImagenet in a folder or the usual places in it; None where there is nothing of it.

    Raises:
        UserError: if only a part of it is there.
    """
    lacking = None
    for there in (folder / place for place in PLACES):
        for form in FORMS:
            found = [_first(there, names) for names in form.needs]
            paths = [path for path in found if path]
            if len(paths) == len(form.needs):
                files = [file for path in paths for file in _inside(path)]
                return Source(
                    "miniimagenet", form.name, there, files, partial(_read, form, there, paths)
                )
            if any(found[: len(SPLITS)]) and not lacking:
                absent = [
                    names[0] for names, path in zip(form.needs, found, strict=True) if not path
                ]
                lacking = UserError(
                    f"MiniImagenet in {there} ({form.name}) lacks {' and '.join(absent)}; put that "
                    "there too"
                )
    if lacking:
        raise lacking
    return None


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _inside(path: Path) -> list[Path]:
    return _images(path, "*", "*/*") if path.is_dir() else [path]


def _images(folder: Path, *patterns: str) -> list[Path]:
    return sorted(
        file
        for pattern in patterns
        for file in folder.glob(pattern)
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _read(form: Form, folder: Path, paths: Sequence[Path]) -> Contents:
    splits = {split: form.read(path) for split, path in zip(SPLITS, paths, strict=False)}
    for (split, classes), path in zip(splits.items(), paths, strict=False):
        if not classes:
            raise UserError(f"there is no class in {path}; put those of the {split} split there")
    names = {split: sorted(classes) for split, classes in splits.items()}
    return Contents((SIDE, SIDE, 3), joined(splits, folder), names)


def _folders(part: Path) -> Classes:
    if not part.is_dir():
        raise UserError(f"{part} is not a folder; put one there, with a folder for each class")
    return {
        folder.name: [partial(_photograph, file) for file in _images(folder, "*")]
        for folder in part.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }


def _table(table: Path) -> Classes:
    text = read_file(table, MOST_BYTES).decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO(text))
    classes: dict[str, list[str]] = {}
    try:
        for row in rows:
            if not row.get("filename") or not row.get("label"):
                raise UserError(
                    f"line {rows.line_num} of {table} lacks a filename or a label; it needs these "
                    "two columns, and a first line that names them"
                )
            classes.setdefault(row["label"], []).append(row["filename"])
    except csv.Error as error:
        raise UserError(
            f"line {rows.line_num + 1} of {table} is damaged ({error}); restore it"
        ) from error
    images = table.parent / "images"
    return {
        label: [partial(_photograph, images / name) for name in sorted(names)]
        for label, names in classes.items()
    }


def _photograph(file: Path) -> NDArray[np.uint8]:
    image = decode(read_image(file), str(file))
    if image.mode not in COLOURS:
        raise UserError(
            f"the image {file} has {len(image.getbands())} channels ({'+'.join(image.getbands())}) "
            "instead of 3; save it in RGB"
        )
    return np.asarray(resized(image.convert("RGB"), SIDE))


def _cache(path: Path) -> Classes:
    content = unpickle(path)
    images = _array(path, content, "image_data")
    numbers = _field(path, content, "class_dict", dict)
    numbers = {name: _integers(path, "class_dict", members) for name, members in numbers.items()}
    if (listed := sum(map(len, numbers.values()))) > len(images):
        raise UserError(
            f"class_dict in {path} lists {listed:,} images, but there are {len(images):,}; restore "
            "it from the original data"
        )
    return {str(name): _chosen(path, images, members) for name, members in numbers.items()}


def _labelled(path: Path) -> Classes:
    content = unpickle(path)
    images = _array(path, content, "data")
    labels = _integers(path, "labels", _field(path, content, "labels", (list, np.ndarray)))
    if labels.shape != images.shape[:1]:
        raise UserError(
            f"{path} has {len(images):,} images but labels of shape {labels.shape}; restore it "
            "from the original data"
        )
    return {
        name: _chosen(path, images, np.flatnonzero(labels == label))
        for label, name in _class_names(path, content, labels).items()
    }


def _class_names(path: Path, content: Any, labels: NDArray[Any]) -> dict[int, str]:
    """ImageNet's name of each label, or else the label itself, in digits that sort as it does."""
    present = [int(label) for label in np.unique(labels)]
    if "catname2label" not in content:
        return {label: f"{label:05d}" for label in present}
    names = _field(path, content, "catname2label", dict)
    numbers = _integers(path, "catname2label", list(names.values()))
    known = {int(label): str(name) for name, label in zip(names, numbers, strict=True)}
    if unknown := [label for label in present if label not in known]:
        raise UserError(
            f"label {unknown[0]} in {path} has no name in its catname2label; restore the file from "
            "the original data"
        )
    return {label: known[label] for label in present}


def _integers(path: Path, key: str, values: Any) -> NDArray[np.int64]:
    """Integers (·,), from an array or a list of them; nothing is unfolded that is nested."""
    if isinstance(values, np.ndarray):
        whole = values.ndim == 1 and values.dtype.kind in "iu"
    else:
        whole = isinstance(values, list | tuple) and all(
            isinstance(value, int | np.integer) for value in values
        )
    if not whole:
        raise UserError(
            f"{key} in {path} holds something else than integers; restore it from the original data"
        )
    try:
        return np.asarray(values, np.int64)
    except OverflowError as error:
        raise UserError(
            f"{key} in {path} holds a number that no image or class has; restore it from the "
            "original data"
        ) from error


def _chosen(path: Path, images: NDArray[np.uint8], numbers: NDArray[np.int64]) -> list[Picture]:
    if ((numbers < 0) | (numbers >= len(images))).any():
        raise UserError(
            f"class_dict in {path} has numbers of images that are not in 0 ... {len(images) - 1}; "
            "restore it from the original data"
        )
    return [partial(_image, images, number) for number in numbers]


def _image(images: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = images[number]
    return image


def _array(path: Path, content: Any, key: str) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = _field(path, content, key, np.ndarray)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
        raise UserError(
            f"{key} in {path} is of {images.dtype} and shape {images.shape} instead of uint8 and "
            f"(images, {SIDE}, {SIDE}, 3); make the file anew with images of {SIDE}x{SIDE} pixels "
            "and 3 channels"
        )
    return images


def _field(path: Path, content: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(content, dict) or not isinstance(content.get(key), kind):
        raise UserError(
            f"the pickle {path} has no {key} as MiniImagenet has it; restore it from the original "
            "data"
        )
    return content[key]


FORMS = (
    Form("class folders", (("train",), ("val", "validation"), ("test",)), _folders),
    Form("images and tables", (("train.csv",), ("val.csv",), ("test.csv",), ("images",)), _table),
    Form(
        "pickled cache",
        tuple((f"mini-imagenet-cache-{split}.pkl",) for split in ("train", "val", "test")),
        _cache,
    ),
    Form(
        "pickled category split",
        tuple(
            (f"miniImageNet_category_split_{split}.pickle",)
            for split in ("train_phase_train", "val", "test")
        ),
        _labelled,
    ),
)
