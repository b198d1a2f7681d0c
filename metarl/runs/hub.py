"""Trained runs on the Hugging Face hub, where `hf:USER/NAME` is one.

`huggingface_hub` does the talking, and knows of logins and caches; it comes with the extra [hub].
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from metarl.errors import UserError

PREFIX = "hf:"
NAME = re.compile(r"[\w.-]+/[\w.-]+")
# what a run is of; others are neither uploaded nor fetched
FILES = (
    "config.yaml",
    "state.json",
    "weights-*.safetensors",
    "metrics.jsonl",
    "evaluation.json",
    "evaluation.csv",
    "evaluation-paper.json",
    "evaluation-paper.csv",
)


def fetch(address: str) -> Path:
    """The directory of a run from the hub, downloaded once.

    Args:
        address: `hf:USER/NAME`, or `hf:USER/NAME@REVISION`.

    Raises:
        UserError: if the package for it is lacking, there is no such run, or it cannot be reached.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    check_name(name)
    hub = _package()
    with _told(f"cannot fetch {address}"):
        folder = hub.snapshot_download(
            repo_id=name, revision=revision or None, allow_patterns=list(FILES)
        )
    return Path(folder)


def upload(folder: Path, name: str, private: bool) -> str:
    """Put a folder on the hub, in a model repository that is made where there is none.

    Args:
        folder: what to upload, all of it.
        name: `USER/NAME`.
        private: whether a repository that is made is seen by its owner alone.

    Returns:
        Its address, as `fetch` takes it.

    Raises:
        UserError: if the package for it is lacking, nobody is logged in, or it is refused.
    """
    api = _package().HfApi()
    with _told(f"cannot push to {name}"):
        api.create_repo(repo_id=name, repo_type="model", private=private, exist_ok=True)
        # the weights of an earlier push have the names of their iterations
        api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            delete_patterns=list(FILES),
            commit_message="A run of metarl",
        )
    return f"{PREFIX}{name}"


def check_name(name: str) -> None:
    """Raise UserError if a name is not one of a repository."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a repository on the hub: it must be USER/NAME")


def _package() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(
            "the hub needs huggingface_hub, which is not installed: pip install 'metarl-maml[hub]'"
        ) from error


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(f"{what}: {said or type(error).__name__}") from error
