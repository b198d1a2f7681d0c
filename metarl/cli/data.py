"""`metarl data`."""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from metarl.errors import UserError
from metarl.progress import Progress, print_line
from metarl.supervised.datasets import miniimagenet
from metarl.supervised.datasets.cache import ImageSet, cache_folder
from metarl.supervised.datasets.images import DATA_SETS, Name, load_images
from metarl.supervised.datasets.source import SPLITS, Source


def run(options: argparse.Namespace, console: Console) -> int:
    if not options.path.is_dir():
        raise UserError(f"there is no folder {options.path}; name the folder with the data")
    names: list[Name] = [options.only] if options.only else list(DATA_SETS)
    num_found, missing, errors = 0, list[str](), list[str]()
    for name in names:  # a damaged data set does not hide the other one
        try:
            if source := DATA_SETS[name].find(options.path):
                num_found += 1
                _print_data_set(name, source, options.path, console)
            else:
                missing.append(DATA_SETS[name].MISSING.format(folder=options.path))
        except UserError as error:
            errors.append(str(error))
    if errors or (missing and options.only):
        raise UserError("; ".join(errors + missing))
    if not num_found:
        raise UserError(
            f"there is neither {' nor '.join(names)} in {options.path}; see `metarl data check "
            "--help` for their sources and file names"
        )
    for sentence in missing:  # no error without --only: one data set is enough
        print_line(console, sentence)
    return 0


def _print_data_set(name: Name, source: Source, folder: Path, console: Console) -> None:
    with Progress(console, transient=True) as progress:
        images = load_images(name, folder, progress=progress, verify=True)
    console.print(name, style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))  # a checksum fits into 80 characters
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in {
        "found": f"{source.form} in {source.folder}",
        "classes": f"{len(images.classes):,}",
        "images": f"{len(images.images):,}",
        "size": "x".join(map(str, images.images.shape[1:])),
        "split": ", ".join(f"{len(images.splits[split]):,} {split}" for split in SPLITS),
        "split hash": images.split_hash,
        "checksum ok": images.checksum,
        "converted": f"{images.images.nbytes / 1e6:,.0f} MB in {cache_folder()}",
    }.items():
        table.add_row(label, value)
    console.print(table, highlight=False)
    if name == "miniimagenet":
        for difference in _differences(images):
            console.print(difference, style="yellow", highlight=False, soft_wrap=True)


def _differences(images: ImageSet) -> list[str]:
    """The differences between a MiniImagenet and the published one."""
    differences = [
        f"the {split} split has {len(images.splits[split])} classes, the published one {count}"
        for split, count in miniimagenet.PUBLISHED.items()
        if len(images.splits[split]) != count
    ]
    published = miniimagenet.IMAGES_PER_CLASS
    if other := int(np.count_nonzero(np.diff(images.starts) != published)):
        differences.append(f"{other} classes don't have the published {published} images")
    return differences
