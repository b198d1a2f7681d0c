"""Runs on the Hugging Face hub, addressed as `hf:USER/NAME`; needs the extra [hub]."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from metarl.errors import UserError

PREFIX = "hf:"
REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+")
# the files of a run that are uploaded and fetched
FILES = (
    "config.yaml",
    "state.json",
    "weights-*.safetensors",
    "metrics.jsonl",
    "evaluation*.json",
    "evaluation*.csv",
)


def fetch(address: str) -> Path:
    """Download `hf:USER/NAME` or `hf:USER/NAME@REVISION` into the hub's cache; return the folder.

    Raises:
        UserError: if huggingface_hub is not installed, or the run cannot be downloaded.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    check_repository_id(name)
    hub = require_hub()
    with _user_errors(f"cannot fetch {address}"):
        # of a repository of unknown origin, only the files of a run are fetched
        folder = hub.snapshot_download(
            repo_id=name, revision=revision or None, allow_patterns=list(FILES)
        )
    return Path(folder)


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload all files of a folder to a model repository `USER/NAME`; return its address.

    The repository is created if necessary; `private` concerns a new one.

    Raises:
        UserError: if huggingface_hub is not installed, nobody is logged in, or the hub refuses.
    """
    api = require_hub().HfApi()
    with _user_errors(f"cannot push to {name}"):
        api.create_repo(repo_id=name, repo_type="model", private=private, exist_ok=True)
        # weights are named by iteration: those of an earlier push would stay
        api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            delete_patterns=list(FILES),
            commit_message="Upload a metarl run",
        )
    return f"{PREFIX}{name}"


def check_repository_id(name: str) -> None:
    """Raise UserError if this is not the id of a repository."""
    if not REPOSITORY_ID.fullmatch(name):
        raise UserError(f"{name!r} is not a valid repository id: it must be USER/NAME")


def require_hub() -> Any:
    """The package huggingface_hub.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(
            "the hub needs huggingface_hub, which is not installed: pip install 'metarl-maml[hub]'"
        ) from error


@contextmanager
def _user_errors(prefix: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # those of HTTP, cache and credentials have no common base
        message = " ".join(str(error).split())
        raise UserError(f"{prefix}: {message or type(error).__name__}") from error
