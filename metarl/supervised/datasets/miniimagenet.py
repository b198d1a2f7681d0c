"""MiniImagenet (Vinyals et al., 2016), in the split of Ravi and Larochelle (2017).

100 classes of ImageNet with 600 images each: 64 for training, 16 for validation, 20 for testing.
ImageNet may not be redistributed, so that copies exist in several formats:

    train/CLASS/*.jpg           and val/ or validation/, and test/; images of any size
    images/*.jpg                and train.csv, val.csv, test.csv with the columns filename, label
    mini-imagenet-cache-train.pkl   and -val, -test: {"image_data": (I, 84, 84, 3),
                                    "class_dict": {CLASS: [index of an image, ...]}}
    miniImageNet_category_split_train_phase_train.pickle   and ..._split_val, ..._split_test:
                                    {"data": (I, 84, 84, 3), "labels": [index of a class, ...]}
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
from metarl.supervised.datasets.pixels import read_pixels
from metarl.supervised.datasets.source import (
    SPLITS,
    Contents,
    ImageReader,
    Source,
    find_folders,
    find_images,
    merge_parts,
)
from metarl.supervised.datasets.unpickling import unpickle

SIDE = 84
MAX_BYTES = 2**26  # of a table
SUBFOLDERS = (".", "miniimagenet", "mini-imagenet", "mini_imagenet", "miniImagenet")
PUBLISHED = {"train": 64, "validation": 16, "test": 20}
IMAGES_PER_CLASS = 600
MISSING = (
    "MiniImagenet not found in {folder}; ImageNet's licence forbids redistribution, so create it "
    "from your own copy and put it there (or into the subfolder miniimagenet) as class folders "
    "train/, val/, test/, as images/ with train.csv, val.csv, test.csv, as "
    "mini-imagenet-cache-*.pkl or as miniImageNet_category_split_*.pickle, or set the folder that "
    "contains it with --data or METARL_DATA"
)

Classes = Mapping[str, Sequence[ImageReader]]


@dataclass(frozen=True)
class Format:
    """A file format of MiniImagenet.

    Attributes:
        name: a description.
        files: alternative names of the train, validation and test part, and of further files.
        read: lists the classes of one part.
    """

    name: str
    files: Sequence[Sequence[str]]
    read: Callable[[Path], Classes]


def find(folder: Path) -> Source | None:
    """MiniImagenet in a folder or one of its usual subfolders; None if there is none.

    Raises:
        UserError: if it is incomplete.
    """
    incomplete = None
    for data_folder in (folder / subfolder for subfolder in SUBFOLDERS):
        for form in FORMATS:
            candidates = [_first_existing(data_folder, names) for names in form.files]
            paths = [path for path in candidates if path]
            if len(paths) == len(form.files):
                files = [file for path in paths for file in _files(path)]
                read = partial(_read, form, data_folder, paths)
                # not read yet: names, sizes and times decide whether the cache has them
                return Source("miniimagenet", form.name, data_folder, files, read)
            # another format may be complete, so the error is raised only after all were tried
            if any(candidates[: len(SPLITS)]) and not incomplete:
                missing = [
                    names[0] for names, path in zip(form.files, candidates, strict=True) if not path
                ]
                incomplete = UserError(
                    f"MiniImagenet in {data_folder} ({form.name}) lacks {' and '.join(missing)}; "
                    "add the missing files"
                )
    if incomplete:
        raise incomplete
    return None


def _first_existing(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _files(path: Path) -> list[Path]:
    return find_images(path, "*", "*/*") if path.is_dir() else [path]


def _read(form: Format, folder: Path, paths: Sequence[Path]) -> Contents:
    splits = {split: form.read(path) for split, path in zip(SPLITS, paths, strict=False)}
    for (split, classes), path in zip(splits.items(), paths, strict=False):
        if not classes:
            raise UserError(f"{path} has no classes; add those of the {split} split")
    # sorted, so that a class has the same number whatever the order of the file system
    names = {split: sorted(classes) for split, classes in splits.items()}
    return Contents((SIDE, SIDE, 3), merge_parts(splits, folder), names)


def _folders(part: Path) -> Classes:
    if not part.is_dir():
        raise UserError(f"{part} is not a folder; it must be one, with a folder for each class")
    return {
        folder.name: [partial(read_pixels, file, SIDE, 3) for file in find_images(folder, "*")]
        for folder in find_folders(part)
    }


def _table(table: Path) -> Classes:
    # utf-8-sig also accepts the byte order mark that spreadsheet programs write
    text = read_file(table, MAX_BYTES).decode("utf-8-sig", errors="replace")
    rows = csv.DictReader(io.StringIO(text))
    classes: dict[str, list[str]] = {}
    try:
        for row in rows:
            if not row.get("filename") or not row.get("label"):
                raise UserError(
                    f"line {rows.line_num} of {table} lacks a filename or a label; these "
                    "two columns and a header line are required"
                )
            classes.setdefault(row["label"], []).append(row["filename"])
    except csv.Error as error:
        raise UserError(
            f"line {rows.line_num + 1} of {table} is corrupt ({error}); restore it"
        ) from error
    images = table.parent / "images"
    return {
        label: [partial(read_pixels, images / name, SIDE, 3) for name in sorted(names)]
        for label, names in classes.items()
    }


def _cache(path: Path) -> Classes:
    content = unpickle(path)
    images = _array(path, content, "image_data")
    members = _field(path, content, "class_dict", dict)
    members = {name: _integers(path, "class_dict", indices) for name, indices in members.items()}
    # each image belongs to one class at most; more indices than images repeat some
    if (count := sum(map(len, members.values()))) > len(images):
        raise _damaged(
            f"class_dict in {path} lists {count:,} images, but there are {len(images):,}"
        )
    return {str(name): _select(path, images, indices) for name, indices in members.items()}


def _labelled(path: Path) -> Classes:
    content = unpickle(path)
    images = _array(path, content, "data")
    labels = _integers(path, "labels", _field(path, content, "labels", (list, np.ndarray)))
    if labels.shape != images.shape[:1]:
        raise _damaged(f"{path} has {len(images):,} images but labels of shape {labels.shape}")
    return {
        name: _select(path, images, np.flatnonzero(labels == label))
        for label, name in _class_names(path, content, labels).items()
    }


def _class_names(path: Path, content: Any, labels: NDArray[Any]) -> dict[int, str]:
    """The name of each label in ImageNet, or the label itself, padded so that names sort alike."""
    present = [int(label) for label in np.unique(labels)]
    if "catname2label" not in content:
        return {label: f"{label:05d}" for label in present}
    names = _field(path, content, "catname2label", dict)
    # {name: label}, which is inverted
    numbers = _integers(path, "catname2label", list(names.values()))
    names_of = {int(label): str(name) for name, label in zip(names, numbers, strict=True)}
    if unknown := [label for label in present if label not in names_of]:
        raise _damaged(f"label {unknown[0]} in {path} has no name in its catname2label")
    return {label: names_of[label] for label in present}


def _integers(path: Path, key: str, values: Any) -> NDArray[np.int64]:
    """A one-dimensional array from an array or a list of integers."""
    # checked before conversion: numpy would flatten or truncate other contents
    if isinstance(values, np.ndarray):
        valid = values.ndim == 1 and values.dtype.kind in "iu"
    else:
        valid = isinstance(values, list | tuple) and all(
            isinstance(value, int | np.integer) for value in values
        )
    if not valid:
        raise _damaged(f"{key} in {path} contains values other than integers")
    try:
        return np.asarray(values, np.int64)
    except OverflowError as error:
        raise _damaged(f"{key} in {path} contains an integer that is too large") from error


def _select(path: Path, images: NDArray[np.uint8], indices: NDArray[np.int64]) -> list[ImageReader]:
    if ((indices < 0) | (indices >= len(images))).any():
        raise _damaged(
            f"class_dict in {path} has indices of images that are not in 0 ... {len(images) - 1}"
        )
    # views into the array: images are copied once, when they are converted
    return [partial(images.__getitem__, index) for index in indices]


def _array(path: Path, content: Any, key: str) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = _field(path, content, key, np.ndarray)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
        raise UserError(
            f"{key} in {path} has dtype {images.dtype} and shape {images.shape} instead of uint8 "
            f"and (images, {SIDE}, {SIDE}, 3); create the file again with images of {SIDE}x{SIDE} "
            "pixels and 3 channels"
        )
    return images


def _field(path: Path, content: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(content, dict) or not isinstance(content.get(key), kind):
        raise _damaged(f"the pickle {path} has no valid {key} of MiniImagenet")
    return content[key]


def _damaged(problem: str) -> UserError:
    return UserError(f"{problem}; restore it from the original data")


FORMATS = (
    Format("class folders", (("train",), ("val", "validation"), ("test",)), _folders),
    Format("images and tables", (("train.csv",), ("val.csv",), ("test.csv",), ("images",)), _table),
    Format(
        "pickled cache",
        tuple((f"mini-imagenet-cache-{split}.pkl",) for split in ("train", "val", "test")),
        _cache,
    ),
    Format(
        "pickled category split",
        tuple(
            (f"miniImageNet_category_split_{split}.pickle",)
            for split in ("train_phase_train", "val", "test")
        ),
        _labelled,
    ),
)
