"""Checks of arguments that several commands share."""

import argparse
import json
from collections.abc import Sequence

from metarl.errors import UserError
from metarl.launch.grid import as_seeds

# advice where --out cannot be written
OTHER_FILE = "; choose another file with --out"
OTHER_FOLDER = "; choose another directory with --out"
# options that stand for a setting
SETTINGS = {
    "seed": "seed",
    "iterations": "outer.iterations",
    "device": "device",
    "init_from": "init_from",
    "kind": "method",
}


def missing_config_error(alternative: str) -> UserError:
    """The error for a missing config; `alternative` is an option that takes its place."""
    return UserError(
        "name a config: a YAML file, or a name from `metarl list`, such as quickstart; or use "
        f"{alternative}"
    )


def overrides_of(options: argparse.Namespace) -> list[str]:
    """The settings of the options that stand for a setting, then those of `--set`.

    In this order, `--set` can change the settings of the method that `--kind` names.

    Raises:
        UserError: if a setting is given in both ways.
    """
    overrides = []
    # `method.name` is `method`
    names = [override.partition("=")[0].removesuffix(".name") for override in options.set]
    for option, setting in SETTINGS.items():
        value = getattr(options, option, None)  # not every command has every option
        if value is None:
            continue
        if setting in names:
            flag = "--from" if option == "init_from" else f"--{option}"
            raise UserError(
                f"{flag} and --set {setting}=... contradict each other; use one of them"
            )
        # JSON is YAML: a name such as `null` or `1e3` stays text in its quotes
        overrides.append(f"{setting}={json.dumps(value)}")
    return [*overrides, *options.set]


def seeds_of(seeds: Sequence[int] | None) -> list[int]:
    """The seeds that the values of `--seeds` stand for; empty if there are none."""
    if not seeds:
        return []
    # one is a number of seeds; the seed 4 alone is --seed 4
    return as_seeds(seeds[0] if len(seeds) == 1 else seeds)
