"""Files of configs: those of this package, those of runs, and YAML files of users.

Nothing here imports torch, so that `metarl --help` and `metarl list` are quick.
"""

import difflib
from collections.abc import Mapping
from importlib import resources
from os.path import exists, isfile  # unlike pathlib's, false for a name that is too long
from pathlib import Path
from typing import Any

from metarl.config.safe_yaml import MAX_BYTES, parse_yaml
from metarl.errors import UserError, ask, did_you_mean
from metarl.io import read_bytes

CONFIG = "config.yaml"  # in a run's directory
DATA_VARIABLE = "METARL_DATA"  # environment variable: the folder with Omniglot and MiniImagenet
TRUST_VARIABLE = "METARL_TRUST_CODE"  # environment variable: import the custom code of runs


def shipped_configs() -> dict[str, Path]:
    """The configs of this package, by name.

    `FAMILY/FAMILY.yaml` is named FAMILY, and `FAMILY/VARIANT.yaml` is named FAMILY_VARIANT.
    """
    folder = Path(str(resources.files("metarl.configs")))
    configs = {path.stem: path for path in folder.glob("*.yaml")}
    for path in folder.glob("*/*.yaml"):
        family = path.parent.name
        configs[family if path.stem == family else f"{family}_{path.stem}"] = path
    return dict(sorted(configs.items()))


def find_config(name: str) -> Path:
    """The file of a config, by its path or by the name of a config of this package.

    Raises:
        UserError: if there is none.
    """
    path, configs = Path(name), shipped_configs()
    # a file of the user's that has the name of a config of the package comes first
    if not isfile(path) and name in configs:
        return configs[name]
    if exists(path / CONFIG):
        raise UserError(
            f"{name} is a run, not a config: continue it with --resume {name}, start from its "
            f"weights with --from {name}, or train another one with its config {path / CONFIG}"
        )
    if not exists(path):
        # some names in any case: "there is none" alone does not say how names look
        nearest = difflib.get_close_matches(path.stem, configs, n=5, cutoff=0.0)
        raise UserError(
            f"there is no config file {name!r}{did_you_mean(name, configs)}; give a YAML file, or "
            f"a name from `metarl list`, such as {', '.join(nearest)}"
        )
    return path


# a part of file names, also on file systems that ignore capitals
EVALUATION_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
EVALUATION_NAMES = "small letters and digits, with - between words, such as 15-queries"


def trained_runs() -> dict[str, Path]:
    """The trained runs of this package, by name."""
    folder = Path(str(resources.files("metarl.configs"))) / "trained"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}


def resolve_run_dir(path: Path) -> Path:
    """The directory of a run. A name of a trained run of this package stands for its directory.

    Raises:
        UserError: if there is no run.
    """
    shipped = trained_runs()
    if not exists(path) and str(path) in shipped:
        return shipped[str(path)]
    if not exists(path / CONFIG):
        raise UserError(_no_run(path, shipped))
    return path


def _no_run(path: Path, shipped: Mapping[str, Path]) -> str:
    """The reason why there is no run in a directory, and what to do."""
    if isfile(path) and exists(path.parent / CONFIG):
        return f"{path} is a file of the run {path.parent}: give its directory"
    if isfile(path) or (str(path) in shipped_configs() and not exists(path)):
        return (
            f"{path} is a config, not a run: train it with `metarl train {path}`, and name its "
            f"run, {Path('runs') / path.stem}"
        )
    if runs := sorted(file.parent for file in path.glob(f"*/{CONFIG}")):
        return f"{path} has {len(runs)} runs: name them, such as {runs[0]}, or all, {path}/*"
    # siblings of the path, and the directory where `metarl train` puts runs by default
    files = [file for folder in (path.parent, Path("runs")) for file in folder.glob(f"*/{CONFIG}")]
    near = {str(file.parent) for file in files}
    names = {Path(name).name: name for name in sorted(near)} | {name: name for name in shipped}
    similar = difflib.get_close_matches(path.name, names, n=1)
    return (
        f"there is no run in {path}: it has no {CONFIG}{ask([names[name] for name in similar])}; "
        "give the directory of a run, or the name of a trained run from `metarl list`"
    )


def read_values(path: Path) -> dict[str, Any]:
    """The settings in a YAML file as plain values, not validated.

    Raises:
        UserError: if the file cannot be read, or is not a mapping.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the config {str(path)!r}: {error}") from error
    values = parse_yaml(text, f"{str(path)!r}")
    if not isinstance(values, dict):
        raise UserError(f"the config {str(path)!r} must be a mapping of settings")
    return values
