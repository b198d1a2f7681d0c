"""Omniglot (Lake et al., 2015): 1,623 characters of 50 alphabets, drawn by 20 people each.

It is read from the two original archives, or from what is in them once they are unpacked:

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
from metarl.io import read_zip
from metarl.rng import make_rng
from metarl.supervised.datasets.decoding import decode, read_image, resized
from metarl.supervised.datasets.source import Contents, Picture, Source, joined

ORIGINAL = 105  # pixels a side
SIDE = 28
MOST_BYTES = 2**26  # of an archive, packed or not; the real ones have less than 2**24
PLACES = (".", "omniglot", "python", "omniglot/python", "omniglot-py")  # git's, and torchvision's
ADDRESS = "https://github.com/brendenlake/omniglot"
MISSING = (
    "there is no Omniglot in {folder}; download images_background.zip and images_evaluation.zip "
    f"from the folder python of {ADDRESS} into it (or into its subfolder omniglot), or name the "
    "folder that has them with --data or METARL_DATA"
)


@dataclass(frozen=True)
class Published:
    """What a whole Omniglot has, and how it is split."""

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
    """Omniglot in a folder or the usual places in it; None where there is nothing of it.

    Raises:
        UserError: if only one of the two parts is there.
    """
    for place in PLACES:
        there = folder / place
        parts = {name: _part(there, name) for name in PUBLISHED.characters}
        found = [path for path in parts.values() if path]
        if not found:
            continue
        if absent := [name for name, path in parts.items() if not path]:
            raise UserError(
                f"Omniglot in {there} lacks {' and '.join(absent)}; download "
                f"{' and '.join(f'{name}.zip' for name in absent)} from the folder python of "
                f"{ADDRESS} into it"
            )
        zips = sum(path.suffix == ".zip" for path in found)
        form = {2: "two zip files", 1: "a zip file and a folder", 0: "two folders"}[zips]
        files = [file for path in found for file in _files(path)]
        return Source("omniglot", form, there, files, partial(_read, there, found))
    return None


def split(classes: Sequence[str], seed: int) -> dict[str, NDArray[np.int64]]:
    """Class numbers of train, validation and test: drawn from all alphabets alike, and sorted."""
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
    classes = joined(characters, folder)
    for part, found in characters.items():
        for name, drawings in found.items():
            if len(drawings) != PUBLISHED.drawings:
                raise UserError(
                    f"{part}/{name} in {folder} has {len(drawings)} drawings instead of "
                    f"{PUBLISHED.drawings}; download {part}.zip anew from {ADDRESS}"
                )
        if len(found) != PUBLISHED.characters[part]:
            raise UserError(
                f"{part} in {folder} has {len(found):,} characters instead of "
                f"{PUBLISHED.characters[part]:,}; download {part}.zip anew from {ADDRESS}"
            )
    return Contents((SIDE, SIDE, 1), classes)


def _characters(part: Path) -> dict[str, list[Picture]]:
    """The drawings of each character, which is named ALPHABET/characterNN."""
    entries = _unpacked(part) if part.is_dir() else _unzipped(part)
    characters: dict[str, list[Picture]] = {}
    for path in sorted(entries):
        match path.parts:
            case (alphabet, character, file) if path.suffix == ".png" and file[0] != ".":
                drawing = partial(_drawing, entries[path], f"{part}/{path}")
                characters.setdefault(f"{alphabet}/{character}", []).append(drawing)
            case (alphabet, character) if alphabet[0] != ".":
                characters.setdefault(f"{alphabet}/{character}", [])  # found even where it is empty
    return characters


def _unpacked(part: Path) -> dict[PurePosixPath, bytes]:
    """Content by path in the part; that of a folder is empty."""
    return {
        PurePosixPath(path.relative_to(part).as_posix()): read_image(path) if depth == 3 else b""
        for depth, pattern in ((2, "*/*/"), (3, "*/*/*.png"))
        for path in part.glob(pattern)
    }


def _unzipped(part: Path) -> dict[PurePosixPath, bytes]:
    # beside the part, archives made on a Mac have a folder __MACOSX
    inside = f"{part.stem}/"

    def wanted(name: str) -> bool:
        return name.startswith(inside) and name.endswith(("/", ".png"))

    try:
        entries = read_zip(part, wanted, MOST_BYTES)
    except ValueError as error:
        raise UserError(
            f"the archive {part} is damaged ({error}); download it anew from {ADDRESS}"
        ) from error
    return {
        PurePosixPath(name).relative_to(part.stem): content for name, content in entries.items()
    }


def _drawing(content: bytes, name: str) -> NDArray[np.uint8]:
    image = decode(content, name)
    if image.size != (ORIGINAL, ORIGINAL):
        raise UserError(
            f"the image {name} is {image.width}x{image.height} instead of {ORIGINAL}x{ORIGINAL} "
            f"pixels; metarl resizes the original drawings itself, so get those from {ADDRESS}"
        )
    if image.mode not in ("1", "L"):
        raise UserError(
            f"the image {name} has {len(image.getbands())} channels instead of 1 (Pillow's mode is "
            f"{image.mode}); get the original from {ADDRESS}"
        )
    # Pillow resizes one-bit images without any filter; strokes are black there, and 255 here
    grey = np.asarray(resized(image.convert("L"), SIDE))
    return (255 - grey)[:, :, None]
