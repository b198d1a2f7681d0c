"""The runs of a sweep: every combination of the values of settings, each with every seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config.safe_yaml import as_json
from metarl.errors import UserError
from metarl.experiment import SEED_INDEPENDENT

_NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
RANGE = re.compile(rf"\s*{_NUMBER}\.\.{_NUMBER}\s*")  # 0.01..0.5
# prefixes of settings that a sweep cannot vary: runs would not be comparable, or not differ
NOT_VARIABLE = ("family.", "data.", *SEED_INDEPENDENT)


@dataclass(frozen=True)
class Variant:
    """One run of a sweep."""

    path: Path  # relative to the directory of the sweep
    overrides: tuple[str, ...]  # settings such as `inner.step_size=0.2`, including the seed


def variants(grid: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> list[Variant]:
    """Every combination of values, in YAML by name of the setting, with every seed.

    Raises:
        UserError: if a setting cannot be varied, or a value or a seed is given twice.
    """
    for name, values in grid.items():
        if len(values) > 1 or name == "seed":
            check_variable(name)
    result = []
    for combination in product(*grid.values()):
        overrides = [f"{name}={value}" for name, value in zip(grid, combination, strict=True)]
        # a single value is the same for all runs, and not part of the path
        varied = [
            override
            for override, values in zip(overrides, grid.values(), strict=True)
            if len(values) > 1
        ]
        folder = folder_name(varied)
        result += [Variant(folder / f"seed-{seed}", (*overrides, f"seed={seed}")) for seed in seeds]
    # by paths: two values whose directories have one name would train in one
    if len({variant.path for variant in result}) < len(result):
        raise UserError("a value of a setting, or a seed, is given twice; name each once")
    return result


def as_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds 1 to n for a number n, or those of a sequence.

    Raises:
        UserError: if there is none, one is negative or not a whole number, or given twice.
    """
    if isinstance(seeds, int | np.integer):
        if seeds < 1:
            raise UserError(f"seeds: their number must be at least 1, not {seeds}")
        return list(range(1, int(seeds) + 1))
    if isinstance(seeds, str) or not isinstance(seeds, Sequence | np.ndarray):
        raise UserError(f"seeds: must be a number of seeds, or a list of them, not {seeds!r}")
    if wrong := [seed for seed in seeds if not isinstance(seed, int | np.integer) or seed < 0]:
        raise UserError(f"seeds: a seed must be a whole number of at least 0, not {wrong[0]}")
    if len({*seeds}) < len(seeds):
        raise UserError("seeds: a seed is given twice; name each once")
    if not len(seeds):
        raise UserError("seeds: name at least one")
    return [int(seed) for seed in seeds]


def as_mapping(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values by the name of their setting; UserError if they are not a mapping."""
    if not isinstance(values, Mapping):
        raise UserError(
            f"values by setting must be a dict, such as {{'inner.step_size': …}}, not {values!r}"
        )
    return values


def as_grid(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """A grid in the form that `variants` takes, of Python values, or lists of them, by name."""
    grid = {}
    for name, choices in as_mapping(values).items():
        choices = choices.tolist() if isinstance(choices, np.ndarray) else choices
        is_single = isinstance(choices, str) or not isinstance(choices, Sequence)
        grid[name] = [_yaml(value) for value in ([choices] if is_single else choices)]
    return grid


def parse_grid(settings: Sequence[str]) -> dict[str, list[str]]:
    """Parse settings such as `inner.step_size=0.05,0.1` into a grid.

    Raises:
        UserError: if a setting has another form, or is given twice.
    """
    check_once(settings)
    return dict(map(_split_values, settings))


def check_once(settings: Sequence[str]) -> None:
    """Raise UserError if one of settings such as `inner.step_size=0.1` is given twice."""
    names = [setting.partition("=")[0] for setting in settings]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the setting {name} is given twice; name it once")


def check_variable(name: str) -> None:
    """Raise UserError if runs that differ in a setting cannot be compared."""
    if f"{name}.".startswith(NOT_VARIABLE) or name.startswith(NOT_VARIABLE):
        fix = "use --seeds" if name == "seed" else "start a sweep for each value"
        raise UserError(f"--set {name}: runs that differ in it cannot be compared; {fix}")


def folder_name(overrides: Sequence[str]) -> Path:
    """The directory, within a sweep, of the runs with these settings."""
    # shells and Windows give other characters, such as brackets and colons, a meaning
    names = [re.sub(r"[^A-Za-z0-9._=+-]+", "_", override) for override in overrides]
    return Path(",".join(names))


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)


def _split_values(setting: str) -> tuple[str, list[str]]:
    """Split `name=a,b` at commas outside brackets, braces and quotes."""
    name, equals, text = setting.partition("=")
    if not equals or not name:
        raise UserError(f"--set {setting!r} must have the form section.setting=value,value")
    if RANGE.fullmatch(text):
        raise UserError(
            f"--set {setting}: a range needs --search N, the number of values to try; or give "
            f"values, such as {name}={text.strip().replace('..', ',')}"
        )
    # as text, not by a YAML parser: a value keeps its spelling, which names its directory
    depth, values, quote = 0, [""], ""
    for character in text:
        if character == "," and not depth and not quote:
            values.append("")
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        values[-1] += character
    stripped = [value.strip() for value in values]
    if "" in stripped:
        raise UserError(f"--set {setting!r} has an empty value; write section.setting=value,value")
    return name, stripped
