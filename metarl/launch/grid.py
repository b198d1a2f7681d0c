"""Which runs a sweep has: every combination of the values of settings, each with the same seeds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from metarl.errors import UserError
from metarl.experiment import SEED_INDEPENDENT

# settings of which runs cannot be compared where they differ, or of which results do not depend
FIXED = ("family.", "data.", *SEED_INDEPENDENT)


@dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        path: in the sweep's directory.
        overrides: settings such as `inner.step_size=0.2`, the seed among them.
    """

    path: Path
    overrides: tuple[str, ...]


def variants(settings: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
    """Every combination of values, with every seed.

    Args:
        settings: such as `inner.step_size=0.05,0.1`; one value is the same for all.
        seeds: of each combination.

    Raises:
        UserError: if a setting has another form, varies what cannot be compared, or one that
            nothing depends on.
    """
    given = [_values(setting) for setting in settings]
    names = [overrides[0].partition("=")[0] for overrides in given]
    for name, overrides in zip(names, given, strict=True):
        if len(overrides) > 1:
            check_varied(name)
    found = []
    for combination in product(*given):
        several = [o for o, values in zip(combination, given, strict=True) if len(values) > 1]
        folder = folder_of(several)
        for seed in seeds:
            found.append(Variant(folder / f"seed-{seed}", (*combination, f"seed={seed}")))
    if len({variant.path for variant in found}) < len(found) or len({*names}) < len(names):
        raise UserError("a setting, one of its values, or a seed is given twice; once is enough")
    return found


def check_varied(name: str) -> None:
    """Raise UserError if runs that differ in a setting cannot be compared."""
    if f"{name}.".startswith(FIXED) or name.startswith(FIXED):
        fix = "give --seeds" if name == "seed" else "make a sweep for each value"
        raise UserError(
            f"--set {name}: runs that differ in it are not to be compared in one sweep; {fix}"
        )


def folder_of(overrides: Sequence[str]) -> Path:
    """Where the runs with these values are, in the directory of the sweep."""
    names = [re.sub(r"[^A-Za-z0-9._=+-]+", "_", override) for override in overrides]
    return Path(",".join(names))


def _values(setting: str) -> list[str]:
    """`name=a,b` as `name=a` and `name=b`; no commas within brackets, braces or quotes."""
    name, equals, text = setting.partition("=")
    if not equals or not name:
        raise UserError(f"--set {setting!r} must have the form section.setting=value,value")
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
    if "" in (stripped := [value.strip() for value in values]):
        raise UserError(f"--set {setting!r} has an empty value; write section.setting=value,value")
    return [f"{name}={value}" for value in stripped]
