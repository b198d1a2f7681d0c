"""Configs of experiments: loading, validation, comparison.

A YAML file describes one experiment. All of it is validated before any work begins, and all errors
are reported together.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from copy import deepcopy
from os.path import isfile
from pathlib import Path
from typing import Any

import yaml

from metarl.config.files import find_config, read_values
from metarl.config.safe_yaml import parse_yaml
from metarl.config.sections import RENAMED, Source, current_name
from metarl.errors import UserError
from metarl.rl.config import OUTER, Config, PolicyConfig, default_outer_step
from metarl.supervised.config import NETWORK, TASKS, SupervisedConfig

AnyConfig = Config | SupervisedConfig
# settings in which the training seeds of one experiment may differ
SEED_INDEPENDENT = (
    "seed",
    "device",
    "checkpoint_every",
    "report_every",
    "record_every",
    "evaluation.",
    "family.settings.num_threads",
)


def load_config(source: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Load and validate a config.

    Args:
        source: a YAML file, or the name of a config of this package.
        overrides: settings such as `inner.step_size=0.2`.

    Raises:
        UserError: if the file cannot be read; else with one line for each invalid setting.
    """
    path = find_config(source)
    return extended_config(read_values(path), path, overrides, describe_source(path, overrides))


def extended_config(
    values: Mapping[str, Any], path: Path, overrides: Sequence[str], origin: str
) -> AnyConfig:
    """The config of plain values, which may extend another one, with some settings overridden.

    Args:
        values: as in a YAML file.
        path: of the file; the paths of extended configs are relative to it.
        overrides: settings such as `inner.step_size=0.2`.
        origin: the source of the values in error messages.

    Raises:
        UserError: as for `load_config`.
    """
    extended = extend(path, dict(values))
    inherited = by_full_name(extended).keys() - by_full_name(values).keys()
    return override_config(extended, overrides, origin, inherited)


def override_config(
    values: Mapping[str, Any],
    overrides: Sequence[str],
    origin: str = "the config",
    inherited: Set[str] = frozenset(),
) -> AnyConfig:
    """The config of plain values with some settings overridden.

    A setting is dropped that has no effect any more, because of the overrides or in a config that
    extends another one: `metarl baseline point_navigation --kind random` needs no `outer`. The
    settings named in `inherited` are those of the extended config.

    Raises:
        UserError: if a setting is invalid, or is set without an effect.
    """
    changed = deepcopy(dict(values))
    set_values(changed, overrides)
    _drop_other_outer_step(changed, values, inherited, _names(overrides))
    lenient = Source(origin, allow_unused=True)
    unused = _parse(changed, lenient).settings_without_effect().keys()
    dropped = unused - _names(overrides)
    if dropped - inherited:
        with suppress(UserError):  # the values alone may be incomplete
            before = _parse(values, lenient).settings_without_effect().keys()
            dropped -= before - inherited
    if "stages" in dropped and "outer.iterations" not in _names(overrides):
        # a baseline has as many samples as the stages of the method that it is compared with
        staged, baseline = _parse(values, lenient), _parse(changed, lenient)
        if isinstance(staged, Config) and "outer.iterations" not in baseline.unused_settings():
            set_values(changed, [f"outer.iterations={staged.iterations_without_stages}"])
    for name in dropped:
        section, _, setting = name.rpartition(".")
        if name == "outer.algorithm":  # with it go the settings that only this one has
            default = type(_parse(changed, lenient)).model_fields["outer"].default
            set_values(changed, [f"{name}={default.algorithm}"])
        elif isinstance(settings := changed.get(section) if section else changed, dict):
            for old in (key for key in [*settings] if RENAMED.get(key, key) == setting):
                del settings[old]
    return validate_config(changed, origin, overrides=overrides)


def _drop_other_outer_step(
    changed: dict[str, Any], values: Mapping[str, Any], inherited: Set[str], overridden: Set[str]
) -> None:
    """Drop the settings of the default outer step if another method has another default.

    The method is that of an override or of a config that extends another one.
    """
    if "family" not in changed:  # networks have one default for all methods
        return
    algorithm, outer = default_outer_step(changed), changed.get("outer")
    if algorithm in (None, OUTER.default) or not isinstance(outer, dict):
        return
    is_new = algorithm != default_outer_step(values)
    unknown = OUTER.schema(OUTER.default).model_fields.keys() - OUTER.schema(algorithm).model_fields
    for name in unknown & outer.keys():
        full = f"outer.{name}"
        if full not in overridden and (is_new or full in inherited):
            del outer[name]


def _names(overrides: Sequence[str]) -> frozenset[str]:
    """The full present names of overridden settings, also of those in `section={...}`."""
    names = set[str]()
    for override in overrides:
        name, _, text = override.partition("=")
        names |= by_full_name({_full_name(name): parse_yaml(text, override)}).keys()
    renamed = [(*name.rpartition(".")[:2], name.rpartition(".")[2]) for name in names]
    full = {"".join([section, dot, RENAMED.get(n, n)]) for section, dot, n in renamed}
    return frozenset(full | {name.partition(".")[0] for name in full})  # and their sections


def extend(path: Path, values: dict[str, Any], extended_by: Sequence[Path] = ()) -> dict[str, Any]:
    """Add the settings of the config that the values of a file extend: `extends: NAME`.

    NAME is the name of a config of this package, or a path relative to the file. That config may
    extend another one; `extended_by` has the files that led to this one.

    Raises:
        UserError: if there is no such config, or a config extends itself.
    """
    if "extends" not in values:
        return values
    name = values["extends"]
    if not isinstance(name, str):
        raise UserError(f"{path}: extends: must be the name or the path of a config, not {name!r}")
    files = [*extended_by, path.resolve()]
    relative = path.parent / name
    try:
        base_path = relative if isfile(relative) else find_config(name)
        base = read_values(base_path)
    except UserError as error:
        raise UserError(f"{path}: extends: {error}") from error
    if base_path.resolve() in files:
        raise UserError(f"{path}: extends: {name} is this config, or extends it itself")
    base = extend(base_path, base, files)
    return _merge(base, {key: value for key, value in values.items() if key != "extends"})


def _merge(base: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of `base`, overridden by `values`, section by section.

    A section whose kind changes keeps only the settings of `base` that the new kind has. Another
    task family keeps no settings.
    """
    merged = dict(base)
    for key, value in values.items():
        section, name = merged.get(key), f"{prefix}{key}"
        if _is_kind(name, value):
            value = {TAGS[name]: value}
        if _is_kind(name, section):
            section = {TAGS[name]: section}
        # another method has nothing in common with that of `base`
        if not (isinstance(section, dict) and isinstance(value, dict)) or name == "method":
            merged[key] = value
            continue
        for tag, settings_of in KINDS.items():
            tag_section, _, tag_name = tag.rpartition(".")
            if tag_section == name and value.get(tag_name, section.get(tag_name)) != section.get(
                tag_name
            ):
                with suppress(UserError):  # an unknown kind is an error in the validation
                    known = settings_of(str(value[tag_name]))
                    section = {k: v for k, v in section.items() if k in known}
        if name == "family" and value.get("name") not in (None, section.get("name")):
            section = {}
        # a setting by its old name replaces the one by its present name
        replaced = {current_name(str(setting), section) for setting in value}
        replaced |= {ALTERNATIVES.get(f"{name}.{setting}", "") for setting in value}
        section = {k: v for k, v in section.items() if k not in replaced - value.keys()}
        merged[key] = _merge(section, value, f"{name}.")
    return merged


def describe_source(path: Path, overrides: Sequence[str]) -> str:
    """The source of a config in error messages: the file and the overrides."""
    return f"{path} with {', '.join(overrides)}" if overrides else str(path)


def validate_config(
    values: Mapping[str, Any],
    origin: str = "the config",
    recorded: bool = False,
    overrides: Sequence[str] = (),
) -> AnyConfig:
    """Validate plain values and construct the config.

    Args:
        values: the settings, as in YAML.
        origin: the source of the settings in error messages.
        recorded: whether metarl wrote the settings, maybe an older version; see `Source`.
        overrides: those among the settings that were set on the command line.

    Raises:
        UserError: with one line for each invalid setting.
    """
    return _parse(values, Source(origin, recorded, _names(overrides)))


def _parse(values: Mapping[str, Any], source: Source) -> AnyConfig:
    if not {"family", "data"} & values.keys():
        raise UserError(
            f"{source.name} has no task distribution: set `family` (reinforcement learning) or "
            "`data` (few-shot regression and classification)"
        )
    schema: type[AnyConfig] = SupervisedConfig if "data" in values else Config
    return schema.model_validate(values, context=source)


def dump_config(config: AnyConfig) -> str:
    """A config as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differences(old: AnyConfig, new: AnyConfig, ignore: Sequence[str] = ()) -> list[str]:
    """The settings in which two configs differ, as `name: old → new`, except for some prefixes."""
    before, after = all_settings(old), all_settings(new)
    return [
        f"{name}: {before.get(name)} → {after.get(name)}"
        for name in {**before, **after}
        if before.get(name) != after.get(name) and not name.startswith(tuple(ignore))
    ]


def diff_recorded(
    recorded: Mapping[str, Any], config: AnyConfig, ignore: Sequence[str]
) -> list[str]:
    """The settings in which a config differs from recorded plain values.

    Another version may have recorded them: a setting that only one of the two versions has is not
    a difference, and a renamed setting is compared by its present name.
    """
    after = all_settings(config)
    before = {current_name(name, after): value for name, value in by_full_name(recorded).items()}
    compared = [
        name
        for name in {**before, **after}
        # a family's settings do not depend on the version
        if name.startswith("family.settings.") or (name in before and name in after)
    ]
    return [
        f"{name}: {before.get(name)} → {after.get(name)}"
        for name in compared
        # as text, in which NaN is equal to itself
        if json.dumps(before.get(name)) != json.dumps(after.get(name))
        and not name.startswith(tuple(ignore))
    ]


def all_settings(config: AnyConfig) -> dict[str, Any]:
    """All settings of a config by their full names, as plain values."""
    return by_full_name(config.model_dump(mode="json"))


def by_full_name(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names, such as `inner.step_size`."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        settings |= by_full_name(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return settings


def set_values(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Override settings in plain values, in place.

    If an override changes the kind of a section, such as `outer.algorithm`, the settings that the
    new kind does not have are removed from the section, and the settings of a family with another
    family. A mapping changes the settings in it, as in a file with `extends`, but replaces
    `method`, and settings that are mappings themselves, such as `family.settings`.

    Overrides of whole sections and kinds are applied before those of their settings: of
    `outer.max_kl=0.1 outer.algorithm=adam`, the first is an error. Of several for the same setting
    the last one has an effect.

    Raises:
        UserError: if an override has another form, or addresses a setting as a section.
    """
    overridden = {_full_name(override.partition("=")[0]) for override in overrides}
    for override in sorted(overrides, key=_depth):
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(f"--set {override!r} must have the form section.setting=value")
        name, value = _full_name(name), parse_yaml(text, f"--set {override!r}")
        if _is_kind(name, value):
            name = f"{name}.{TAGS[name]}"
        prefix, _, setting = name.rpartition(".")
        section = values
        for part in prefix.split(".") if prefix else ():
            if isinstance(section.get(part), str) and part in TAGS:  # `method: maml`
                section[part] = {TAGS[part]: section[part]}
            if section.get(part) is None or section[part] is True:  # `early_stopping: true`
                section[part] = {}
            section = section[part]
            if not isinstance(section, dict):
                raise UserError(f"--set {override!r}: {part!r} is a setting, not a section")
        before = section.get(setting)
        if name == "method" and isinstance(before, dict) and before.get("name") == value:
            continue  # it keeps its settings
        if isinstance(value, dict) and setting != "settings":
            section |= _merge(section, {setting: value}, f"{prefix}." if prefix else "")
            continue
        section[setting] = value
        if (other := ALTERNATIVES.get(name)) and f"{prefix}.{other}" not in overridden:
            section.pop(other, None)
        for old, new in RENAMED.items():  # the override replaces the setting by either name
            if setting in (old, new) and not prefix.endswith("settings"):
                section.pop(old if setting == new else new, None)
        if name in KINDS and value != before:
            with suppress(UserError):  # an unknown kind is an error in the validation
                known = KINDS[name](str(value))
                for other in [other for other in section if other not in known]:
                    del section[other]
        if name == "family.name" and value != before:
            section.pop("settings", None)


def _depth(override: str) -> tuple[int, bool]:
    """The order of overrides: sections before their settings, which follow the kind."""
    name = _full_name(override.partition("=")[0])
    section, _, setting = name.rpartition(".")
    return name.count("."), name not in KINDS and TAGS.get(section) != setting


def _is_kind(name: str, value: Any) -> bool:
    """Whether a value is the kind of a section, such as `outer: adam`, whose settings it keeps.

    Another method keeps none.
    """
    return name in TAGS and name != "method" and isinstance(value, str)


def _full_name(name: str) -> str:
    """`network.name` is an alias of `network.kind`."""
    return "network.kind" if name == "network.name" else name


# of these settings one can be set: an override replaces the other one of the file
ALTERNATIVES = {"evaluation.steps": "step_sizes", "evaluation.step_sizes": "steps"}
# the settings that may stand for a whole section
TAGS = {
    "family": "name",
    "method": "name",
    "outer": "algorithm",
    "data": "name",
    "network": "kind",
}
# the settings that choose the kind of a section, and the settings of a kind
KINDS: dict[str, Callable[[str], Collection[str]]] = {
    "outer.algorithm": lambda name: OUTER.schema(name).model_fields,
    "network.kind": lambda name: NETWORK.schema(name).model_fields,
    "data.name": lambda name: TASKS.schema(name).model_fields,
    "policy.network": PolicyConfig.settings_of,
}
