"""The command that trains a run with the settings of an existing one."""

import json
import shlex
from functools import cache
from typing import Any

from metarl.config.files import shipped_configs
from metarl.errors import UserError
from metarl.experiment import AnyConfig, all_settings, load_config
from metarl.method import resolve
from metarl.report.groups import seed_independent_fields


def reproduce_command(config: AnyConfig) -> str:
    """The shortest command that trains a run with this config.

    It names the shipped config that needs the fewest changes, preferring one for the same tasks.
    """
    method = config.method.name
    candidates = []
    for name in shipped_configs():
        shipped = _shipped(name)
        is_baseline = method != shipped.method.name
        if shipped.domain != config.domain:
            continue
        if is_baseline:
            try:
                shipped = _shipped(name, method)
            except UserError:  # the method does not support these tasks or this outer step
                continue
        verb = f"metarl baseline {name} --kind {method}" if is_baseline else f"metarl train {name}"
        changes = _changes(shipped, config)
        other_tasks = not {"family.name", "data.name"}.isdisjoint(changes)
        candidates.append(((other_tasks, len(changes), is_baseline), verb, name, changes))
    (*_, is_baseline), verb, name, changes = min(candidates, key=lambda candidate: candidate[0])
    if "policy.observation_scale" in changes:
        # the run's config has the measured values; measuring again may give the same ones
        measured = _measured(name, method if is_baseline else "")
        changes = min(changes, _changes(measured, config), key=len)
    settings = (shlex.quote(f"{name}={_yaml(value)}") for name, value in changes.items())
    return " ".join([verb, *(f"--set {setting}" for setting in settings)])


# a page asks for the commands of many runs, and a config takes milliseconds to validate
@cache
def _shipped(name: str, method: str = "") -> AnyConfig:
    return load_config(name, [f"method={method}"] if method else [])


@cache
def _measured(name: str, method: str) -> AnyConfig:
    return resolve(_shipped(name, method))


def _changes(shipped: AnyConfig, config: AnyConfig) -> dict[str, Any]:
    """The settings of a config that affect its result and differ from a shipped one."""
    before, ignored = all_settings(shipped), seed_independent_fields(config)
    return {
        name: value
        for name, value in all_settings(config).items()
        if before.get(name) != value and (name == "seed" or not name.startswith(ignored))
    }


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
