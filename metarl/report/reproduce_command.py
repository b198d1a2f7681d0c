"""The command that trains a run with the settings of an existing one."""

import json
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from metarl.config.files import CONFIG, shipped_configs
from metarl.errors import UserError
from metarl.experiment import AnyConfig, all_settings, load_config
from metarl.method import resolve
from metarl.report.groups import seed_independent_fields
from metarl.rl.config import Config


def reproduce_command(config: AnyConfig, path: Path | None = None) -> str:
    """The shortest command that trains a run with this config.

    It names the shipped config for the same tasks that needs the fewest changes; without one, that
    of the run in `path`, or another shipped one.
    """
    names = [name for name in shipped_configs() if _shipped(name).domain == config.domain]
    same_tasks = [name for name in names if _tasks(_shipped(name)) == _tasks(config)]
    candidates = _candidates(same_tasks, config)
    other_tasks = not candidates
    if other_tasks and path:
        return f"metarl train {shlex.quote(str(path / CONFIG))}"
    _, name, verb, changes = min(candidates or _candidates(names, config))
    scale = "policy.observation_scale"
    if scale in changes and not other_tasks and _is_measured_again(_shipped(name), config):
        del changes[scale]
    settings = (shlex.quote(f"{name}={_yaml(value)}") for name, value in changes.items())
    return " ".join([verb, *(f"--set {setting}" for setting in settings)])


def _tasks(config: AnyConfig) -> list[Any]:
    """The name of the family or of the data."""
    settings = all_settings(config)
    return [settings.get(name) for name in ("family.name", "data.name")]


def _candidates(
    names: Sequence[str], config: AnyConfig
) -> list[tuple[tuple[int, bool], str, str, dict[str, Any]]]:
    """The number of changes, the name, the command and the changes, for each shipped config."""
    method, candidates = config.method.name, []
    for name in names:
        shipped, command = _shipped(name), f"metarl train {name}"
        is_baseline = method != shipped.method.name
        if is_baseline:
            command = f"metarl baseline {name} --kind {method}"
            try:
                shipped = _shipped(name, method)
            except UserError:  # the method does not support these tasks or this outer step
                continue
        changes = _changes(shipped, config)
        candidates.append(((len(changes), is_baseline), name, command, changes))
    return candidates


# a page asks for the commands of many runs, and a config takes milliseconds to validate
@cache
def _shipped(name: str, method: str = "") -> AnyConfig:
    return load_config(name, [f"method={method}"] if method else [])


def _is_measured_again(shipped: AnyConfig, config: AnyConfig) -> bool:
    """Whether the shipped config measures the observation scale that a run's config has."""
    if not isinstance(shipped, Config) or shipped.policy.observation_scale != "measured":
        return False
    assert isinstance(config, Config)
    return config.policy.observation_scale == _measured_scale(config.family.model_dump_json())


@cache
def _measured_scale(family: str) -> tuple[float, ...]:
    """The scale of observations of a family, which is given by its section as JSON."""
    config = Config(family=json.loads(family), policy={"observation_scale": "measured"})
    scale = resolve(config).policy.observation_scale
    assert isinstance(scale, tuple)
    return scale


def _changes(shipped: AnyConfig, config: AnyConfig) -> dict[str, Any]:
    """The settings of a config that affect its result and differ from a shipped one."""
    before, ignored = all_settings(shipped), seed_independent_fields(config)
    after = all_settings(config)
    changes = {
        name: after.get(name)
        for name in {**after, **before}
        if before.get(name) != after.get(name) and (name == "seed" or not name.startswith(ignored))
    }
    if any(name.startswith("family.settings.") and name not in after for name in changes):
        # a setting cannot be removed by itself
        changes = {n: x for n, x in changes.items() if not n.startswith("family.settings.")}
        changes["family.settings"] = config.family.settings  # type: ignore[union-attr]
    return changes


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
