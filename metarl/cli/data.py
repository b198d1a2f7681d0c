"""`metarl data`."""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from metarl.cli.arguments import describe
from metarl.errors import UserError
from metarl.progress import Progress
from metarl.supervised.datasets import miniimagenet
from metarl.supervised.datasets.cache import cache_folder
from metarl.supervised.datasets.images import MISSING, ImageSet, Name, find_source, load_images
from metarl.supervised.datasets.source import SPLITS, Source

SUMMARY = "Look after the images for few-shot classification."

DESCRIPTION = """\
Look for Omniglot and MiniImagenet in a folder, convert what is there (once, into METARL_CACHE or
else the user's cache directory), verify its checksum, and say what was found, what is missing and
what is damaged. The split hash is the one that is stored with every run on this data."""

EXAMPLES = """\
examples:
  metarl data check data                       whatever is in the folder data
  metarl data check data --only omniglot       complain if Omniglot is not there
  export METARL_DATA=data                      where metarl looks from then on

where to put what, in the folder or in its subfolder of this name:
  omniglot/        images_background.zip and images_evaluation.zip, or the folders they hold; from
                   https://github.com/brendenlake/omniglot, folder python
  miniimagenet/    one of
                   train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg
                   images/*.jpg, train.csv, val.csv, test.csv
                   mini-imagenet-cache-{train,val,test}.pkl
                   miniImageNet_category_split_{train_phase_train,val,test}.pickle
"""


def declare(data: argparse.ArgumentParser) -> None:
    """Declare the command."""
    data.description = SUMMARY
    actions = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    summary = "say what image data a folder has, and whether it is whole"
    parser = actions.add_parser("check", help=summary)
    describe(parser, DESCRIPTION, EXAMPLES, _check)
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder that has the data")
    parser.add_argument("--only", choices=list(MISSING), help="look for this data set alone")


def _check(options: argparse.Namespace, console: Console) -> int:
    if not options.path.is_dir():
        raise UserError(f"there is no folder {options.path}; name the one that has the data")
    names: list[Name] = [options.only] if options.only else list(MISSING)
    found = 0
    missing: list[str] = []
    complaints: list[str] = []
    for name in names:
        try:
            if source := find_source(name, options.path):
                found += 1
                _report(name, source, options.path, console)
            else:
                missing.append(MISSING[name].format(folder=options.path))
        except UserError as error:
            complaints.append(str(error))
    if complaints or (missing and options.only):
        raise UserError("; ".join(complaints + missing))
    if not found:
        raise UserError(
            f"there is neither {' nor '.join(names)} in {options.path}; `metarl data check --help` "
            "says where to get them and where to put them"
        )
    for sentence in missing:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return 0


def _report(name: Name, source: Source, folder: Path, console: Console) -> None:
    with Progress(console, transient=True) as progress:
        images = load_images(name, folder, progress=progress, verify=True)
    console.print(name, style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))  # narrow enough for a checksum on 80 columns
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
    """How a MiniImagenet differs from the published one."""
    said = [
        f"the {split} split has {len(images.splits[split])} classes, the published one {count}"
        for split, count in miniimagenet.PUBLISHED.items()
        if len(images.splits[split]) != count
    ]
    published = miniimagenet.IMAGES_PER_CLASS
    if other := int(np.count_nonzero(np.diff(images.starts) != published)):
        said.append(f"{other} classes have more or fewer than the published {published} images")
    return said
