"""The command that trains such a run as one that is there."""

import json
from typing import Any

from metarl.errors import UserError
from metarl.experiment import AnyConfig, flat, load_config, shipped_configs
from metarl.method import load_method
from metarl.report.groups import free
from metarl.rl.config import Config


def command(config: AnyConfig) -> str:
    """What trains such a run: of all configs that come with the package the nearest, and changes.

    Args:
        config: of the run.
    """
    method = config.method.name
    candidates = []
    for name in shipped_configs():
        shipped = load_config(name)
        baseline = method != shipped.method.name
        if shipped.domain != config.domain:
            continue
        if baseline:
            try:
                shipped = load_config(name, [f"method={method}"])
            except UserError:  # one that is not of such tasks, or of such an outer step
                continue
        verb = f"metarl baseline {name} --kind {method}" if baseline else f"metarl train {name}"
        changes = _changes(shipped, config)
        other_tasks = not {"family.name", "data.name"}.isdisjoint(changes)
        candidates.append(((other_tasks, len(changes), baseline), verb, shipped, changes))
    _, verb, shipped, changes = min(candidates, key=lambda candidate: candidate[0])
    if isinstance(shipped, Config) and shipped.policy.observation_scale == "measured":
        # a run's config says what was measured of its tasks
        measured = load_method(shipped).problem.config
        changes = min(changes, _changes(measured, config), key=len)
    return " ".join([verb, *(f"--set {name}={_yaml(value)}" for name, value in changes.items())])


def _changes(shipped: AnyConfig, config: AnyConfig) -> dict[str, Any]:
    """The settings of a config that matter and are not those of one that comes with the package."""
    settings, nothing = flat(shipped.model_dump(mode="json")), free(config)
    return {
        setting: value
        for setting, value in flat(config.model_dump(mode="json")).items()
        if settings.get(setting) != value and (setting == "seed" or not setting.startswith(nothing))
    }


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
