"""Experiments come from YAML files: one file, one experiment, validated whole.

Everything is checked before any work is spent, and every mistake is reported at once.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from metarl.config.registry import Registry
from metarl.config.safe_yaml import LARGEST, parse_yaml
from metarl.config.sections import section_of
from metarl.errors import UserError, did_you_mean
from metarl.io import read_bytes
from metarl.networks import NETWORKS
from metarl.optim import OPTIMIZERS
from metarl.rl.config import Config, PolicyConfig
from metarl.supervised.config import DATA, OWN_NETWORK, OWN_TASKS, SupervisedConfig

AnyConfig = Config | SupervisedConfig
TRUST_VARIABLE = "METARL_TRUST_CODE"
CONFIG = "config.yaml"  # in a run's directory

# what may differ between runs that are training seeds of one experiment
SEED = (
    "seed",
    "device",
    "checkpoint_every",
    "report_every",
    "evaluation.",
    "family.settings.num_threads",
)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    folder = Path(str(resources.files("metarl.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def trained_runs() -> dict[str, Path]:
    """The runs that come with the package, by name."""
    folder = Path(str(resources.files("metarl.configs"))) / "trained"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}


def load_config(source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read and validate an experiment.

    Args:
        source: a YAML file, or the name of a config that comes with the package.
        overrides: settings such as `inner.step_size=0.2`.

    Raises:
        UserError: if the file cannot be read, or with one sentence for each mistake in it.
    """
    path, known = Path(source), shipped_configs()
    if not path.is_file() and source in known:
        path = known[source]
    if not path.exists():
        raise UserError(
            f"there is no config file {source!r}{did_you_mean(source, known)}; give a path, or "
            f"one of the names {', '.join(known)}"
        )
    values = read_values(path)
    set_values(values, overrides)
    return validate_config(values, with_changes(path, overrides))


def with_changes(path: Path, overrides: Sequence[str]) -> str:
    """What a mistake is in: a file, or what was given beside it."""
    return f"{path} with {', '.join(overrides)}" if overrides else str(path)


def located(path: Path) -> Path:
    """The directory of a run: this one, or that of the name of one that comes with the package.

    Raises:
        UserError: if there is none.
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
    """What a YAML file says, as plain values that nobody has looked at yet.

    Raises:
        UserError: if the file cannot be read, or is not a mapping in YAML.
    """
    try:
        text = read_bytes(path, LARGEST).decode()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the config {str(path)!r}: {error}") from error
    values = parse_yaml(text, f"{str(path)!r}")
    if not isinstance(values, dict):
        raise UserError(f"the config {str(path)!r} must be a mapping of settings")
    return values


def validate_config(values: Mapping[str, Any], origin: str = "the config") -> AnyConfig:
    """An experiment from plain values, with every mistake reported at once.

    Args:
        values: as read from YAML.
        origin: what to call it in messages.

    Raises:
        UserError: with one sentence for each mistake.
    """
    if not {"family", "data"} & values.keys():
        raise UserError(
            f"{origin} must say what to learn: `family` (reinforcement learning) or `data` "
            "(few-shot regression and classification)"
        )
    schema: type[AnyConfig] = SupervisedConfig if "data" in values else Config
    return schema.model_validate(values, context=origin)


def dump_config(config: AnyConfig) -> str:
    """The whole experiment as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differences(old: AnyConfig, new: AnyConfig, ignore: Sequence[str] = ()) -> list[str]:
    """Which settings differ, as `name: old → new`, but for those whose names start as ignored."""
    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    return [
        f"{name}: {before.get(name)} → {after.get(name)}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and not name.startswith(tuple(ignore))
    ]


def edits(recorded: Mapping[str, Any], config: AnyConfig, ignore: Sequence[str]) -> list[str]:
    """As `differences`, from a config that was recorded as plain values, maybe by another version.

    Settings that only one of both versions knows are no edits.
    """
    before, after = flat(recorded), flat(config.model_dump(mode="json"))
    known = [
        name
        for name in {**before, **after}
        # those of a family are no version's: none may come or go
        if name.startswith("family.settings.") or (name in before and name in after)
    ]
    return [
        f"{name}: {before.get(name)} → {after.get(name)}"
        for name in known
        # as text, in which NaN is equal to itself
        if json.dumps(before.get(name)) != json.dumps(after.get(name))
        and not name.startswith(tuple(ignore))
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names, such as `inner.step_size`."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        settings |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return settings


def set_values(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Change settings of a config's plain values.

    With another kind of a section, what the file gave to the old one is void; what is among the
    overrides is not.

    Args:
        values: as `read_values` gives them.
        overrides: such as `inner.step_size=0.2`.

    Raises:
        UserError: if one has another form, or names a section that is none.
    """
    given = {_kind(override.partition("=")[0]) for override in overrides}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(f"--set {override!r} must have the form section.setting=value")
        name = _kind(name)
        prefix, _, setting = name.rpartition(".")
        section = values
        for part in prefix.split(".") if prefix else ():
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"--set {override!r}: {part!r} is a setting, not a section")
        before, value = section.get(setting), parse_yaml(text, f"--set {override!r}")
        section[setting] = value
        if name in KINDS and value != before:
            with suppress(UserError):  # there is no such kind: validation says so
                known = KINDS[name](str(value))
                for other in [other for other in section if other not in known]:
                    if f"{prefix}.{other}" not in given:
                        del section[other]


def _kind(name: str) -> str:
    """`name` says the kind of a network as well: that is what it is called elsewhere."""
    return "network.kind" if name == "network.name" else name


def _settings(registry: Registry, own: str, kind: str) -> Collection[str]:
    return section_of(registry, kind, own=own).model_fields


# what says of which kind a section is, and which settings a kind has
KINDS: dict[str, Callable[[str], Collection[str]]] = {
    "outer.algorithm": partial(_settings, OPTIMIZERS, ""),
    "network.kind": partial(_settings, NETWORKS, OWN_NETWORK),
    "data.name": partial(_settings, DATA, OWN_TASKS),
    "policy.network": PolicyConfig.settings_of,
}
