"""Files of configs: those of this package, those of runs, and YAML files of users.

Nothing here imports torch, so that `metarl --help` and `metarl list` are quick.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from metarl.config.safe_yaml import MAX_BYTES, parse_yaml
from metarl.errors import UserError, did_you_mean
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
    if not path.is_file() and name in configs:
        return configs[name]
    if not path.exists():
        raise UserError(
            f"there is no config file {name!r}{did_you_mean(name, configs)}; give a path, or "
            f"one of the names {', '.join(configs)}"
        )
    return path


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
    if not path.exists() and str(path) in shipped:
        return shipped[str(path)]
    if not (path / CONFIG).exists():
        raise UserError(
            f"there is no run in {path}: it has no {CONFIG}{did_you_mean(str(path), shipped)}; "
            f"give the directory of a run, or one of the names {', '.join(shipped)}"
        )
    return path


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
