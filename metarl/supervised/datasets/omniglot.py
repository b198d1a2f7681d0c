"""Omniglot (Lake et al., 2015): 1,623 characters of 50 alphabets, drawn by 20 people each.

It is read from the two original archives, or from the folders in them:

    images_background.zip    images_background/ALPHABET/characterNN/*.png     964 characters
    images_evaluation.zip    images_evaluation/ALPHABET/characterNN/*.png     659 characters
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.io import read_file, read_zip
from metarl.rng import make_rng
from metarl.supervised.datasets.decoding import decode, resize
from metarl.supervised.datasets.source import Contents, ImageReader, Source, merge_parts

ORIGINAL = 105  # pixels per side
SIDE = 28
MAX_BYTES = 2**26  # of a file, compressed or not; the original archives have less than 2**24
# as in the original repository, and as torchvision stores it
SUBFOLDERS = (".", "omniglot", "python", "omniglot/python", "omniglot-py")
URL = "https://github.com/brendenlake/omniglot"
MISSING = (
    "Omniglot not found in {folder}; download images_background.zip and images_evaluation.zip "
    f"from the folder python of {URL} into it (or into its subfolder omniglot), or set the "
    "folder that contains them with --data or METARL_DATA"
)


@dataclass(frozen=True)
class Published:
    """The sizes of the complete data set and of its split."""

    characters: Mapping[str, int]
    drawings: int
    split: Mapping[str, int]


# the 1,200 training characters of Santoro et al. (2016) include the 100 for validation
PUBLISHED = Published(
    characters={"images_background": 964, "images_evaluation": 659},
    drawings=20,
    split={"train": 1100, "validation": 100, "test": 423},
)


def find(folder: Path) -> Source | None:
    """Omniglot in a folder or one of its usual subfolders; None if there is none.

    Raises:
        UserError: if only one of the two parts exists.
    """
    for subfolder in SUBFOLDERS:
        data_folder = folder / subfolder
        parts = {name: _part(data_folder, name) for name in PUBLISHED.characters}
        paths = [path for path in parts.values() if path]
        if not paths:
            continue
        if missing := [name for name, path in parts.items() if not path]:
            raise UserError(
                f"Omniglot in {data_folder} lacks {' and '.join(missing)}; download "
                f"{' and '.join(f'{name}.zip' for name in missing)} from the folder python of "
                f"{URL} into it"
            )
        zips = sum(path.suffix == ".zip" for path in paths)
        form = ("two folders", "a zip file and a folder", "two zip files")[zips]
        files = [file for path in paths for file in _files(path)]
        return Source("omniglot", form, data_folder, files, partial(_read, data_folder, paths))
    return None


def split(classes: Sequence[str], seed: int) -> dict[str, NDArray[np.int64]]:
    """A random split over all alphabets: the class numbers of each part, sorted."""
    order = make_rng(seed, "omniglot split").permutation(len(classes)).astype(np.int64)
    ends = np.cumsum(list(PUBLISHED.split.values()))
    pieces = np.split(order, ends[:-1])
    return {name: np.sort(piece) for name, piece in zip(PUBLISHED.split, pieces, strict=True)}


def _part(folder: Path, name: str) -> Path | None:
    archive, unpacked = folder / f"{name}.zip", folder / name
    return archive if archive.is_file() else unpacked if unpacked.is_dir() else None


def _files(part: Path) -> list[Path]:
    return sorted(part.glob("*/*/*.png")) if part.is_dir() else [part]


def _read(folder: Path, parts: Sequence[Path]) -> Contents:
    characters = {path.stem: _characters(path) for path in parts}
    classes = merge_parts(characters, folder)
    for part, members in characters.items():
        for name, drawings in members.items():
            if len(drawings) != PUBLISHED.drawings:
                raise UserError(
                    f"{part}/{name} in {folder} has {len(drawings)} drawings instead of "
                    f"{PUBLISHED.drawings}; download {part}.zip again from {URL}"
                )
        if len(members) != PUBLISHED.characters[part]:
            raise UserError(
                f"{part} in {folder} has {len(members):,} characters instead of "
                f"{PUBLISHED.characters[part]:,}; download {part}.zip again from {URL}"
            )
    return Contents((SIDE, SIDE, 1), classes)


def _characters(part: Path) -> dict[str, list[ImageReader]]:
    """The drawings of each character by its name, ALPHABET/characterNN."""
    entries = _read_folder(part) if part.is_dir() else _read_archive(part)
    characters: dict[str, list[ImageReader]] = {}
    for path in sorted(entries):
        match path.parts:
            case (alphabet, character, file) if path.suffix == ".png" and file[0] != ".":
                drawing = partial(_drawing, entries[path], f"{part}/{path}")
                characters.setdefault(f"{alphabet}/{character}", []).append(drawing)
            case (alphabet, character) if alphabet[0] != ".":
                characters.setdefault(f"{alphabet}/{character}", [])  # listed even if it is empty
    return characters


def _read_folder(part: Path) -> dict[PurePosixPath, bytes]:
    """Contents by path relative to the part; a folder has the content b""."""
    return {
        PurePosixPath(path.relative_to(part).as_posix()): read_file(path, MAX_BYTES)
        if depth == 3
        else b""
        for depth, pattern in ((2, "*/*/"), (3, "*/*/*.png"))
        for path in part.glob(pattern)
    }


def _read_archive(part: Path) -> dict[PurePosixPath, bytes]:
    # archives created on macOS also contain a folder __MACOSX
    prefix = f"{part.stem}/"

    def is_drawing(name: str) -> bool:
        return name.startswith(prefix) and name.endswith(("/", ".png"))

    try:
        entries = read_zip(part, is_drawing, MAX_BYTES)
    except ValueError as error:
        raise UserError(
            f"the archive {part} is corrupt ({error}); download it again from {URL}"
        ) from error
    return {
        PurePosixPath(name).relative_to(part.stem): content for name, content in entries.items()
    }


def _drawing(content: bytes, name: str) -> NDArray[np.uint8]:
    image = decode(content, name)
    if image.size != (ORIGINAL, ORIGINAL):
        raise UserError(
            f"the image {name} is {image.width}x{image.height} instead of {ORIGINAL}x{ORIGINAL} "
            f"pixels; metarl resizes the original drawings itself, so get those from {URL}"
        )
    if image.mode not in ("1", "L"):
        raise UserError(
            f"the image {name} has {len(image.getbands())} channels instead of 1 (Pillow mode "
            f"{image.mode}); get the original from {URL}"
        )
    # converted first, as Pillow does not filter one-bit images; strokes are black in the files and
    # 255 in the array
    grey = np.asarray(resize(image.convert("L"), SIDE))
    return (255 - grey)[:, :, None]
