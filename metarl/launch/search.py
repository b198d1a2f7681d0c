"""A search: settings take values from ranges, more often where those before did well.

The values are optuna's, by its tree-structured Parzen estimator (Bergstra et al. 2011). What was
tried is read from the runs themselves, so that a search goes on from its directory alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from metarl.config.sections import current_name
from metarl.errors import UserError
from metarl.experiment import flatten
from metarl.launch.grid import check_varied

if TYPE_CHECKING:
    from metarl.report.groups import ExperimentGroup

DECADE = 10.0  # a range that is wider than so many times its lower end is searched by magnitude


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are among them.

    Attributes:
        low: the lower end.
        high: the upper end.
        whole: whether they are whole numbers.
    """

    low: float
    high: float
    whole: bool

    @property
    def by_magnitude(self) -> bool:
        """Whether 0.01 to 0.1 is as much as 0.1 to 1."""
        return self.low > 0.0 and self.high >= DECADE * self.low

    def clipped(self, value: float) -> float:
        """A value within the ends, with three digits, which is as exact as its name needs."""
        return min(max(float(f"{value:.3g}"), self.low), self.high)


def require_optuna() -> None:
    """Raise UserError if the package is not installed."""
    if find_spec("optuna") is None:
        raise UserError(
            "--search needs the package optuna: pip install 'metarl-maml[search]', or leave it out "
            "and give the values themselves, such as inner.step_size=0.1,0.2"
        )


def ranges_of(settings: Sequence[str]) -> tuple[list[str], dict[str, Range]]:
    """The settings that are given a value, and the ranges of the others.

    Args:
        settings: such as `inner.step_size=0.01..0.5` and `outer.iterations=50`.

    Raises:
        UserError: if there is no range, or one that is none.
    """
    fixed, ranges = [], {}
    for setting in settings:
        name, _, text = setting.partition("=")
        ends = text.split("..")
        if len(ends) == 1:
            fixed.append(setting)
            continue
        try:
            low, high = map(float, ends)
        except ValueError as error:
            raise UserError(f"--set {setting!r}: a range has the form 0.01..0.5") from error
        if not low < high:
            raise UserError(f"--set {setting!r}: a range begins below its end, as 0.01..0.5 does")
        check_varied(name)
        whole = all(re.fullmatch(r"-?\d+", end) for end in ends)
        ranges[name] = Range(low, high, whole)
    if not ranges:
        raise UserError("--search needs a range, such as --set inner.step_size=0.01..0.5")
    return fixed, ranges


def propose(
    ranges: Mapping[str, Range],
    entries: Sequence["ExperimentGroup"],
    begun: int,
    number: int,
    higher_is_better: bool,
) -> list[dict[str, str]]:
    """What to try next.

    Args:
        ranges: by the names of the settings.
        entries: what came of those that were tried.
        begun: how many these are, and those that failed: the randomness depends on it alone.
        number: how many to propose.
        higher_is_better: whether scores are.

    Returns:
        Values by the names of the settings.
    """
    # imported here, as optuna is: with it comes torch, which a mistake should not wait for
    from metarl.rng import make_rng

    optuna: Any = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {
        name: optuna.distributions.IntDistribution(int(r.low), int(r.high), log=r.by_magnitude)
        if r.whole
        else optuna.distributions.FloatDistribution(r.low, r.high, log=r.by_magnitude)
        for name, r in ranges.items()
    }
    seed = int(make_rng(0, "search", begun).integers(2**31))
    study = optuna.create_study(
        direction="maximize" if higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    )
    for entry in entries:
        settings = flatten(entry.runs[0].config.model_dump(mode="json"))
        values = {name: settings[current_name(name, settings)] for name in ranges}
        if all(ranges[name].low <= value <= ranges[name].high for name, value in values.items()):
            score = float(entry.summary.estimate[-1])
            trial = optuna.trial.create_trial(params=values, distributions=spaces, value=score)
            study.add_trial(trial)
    asked = [study.ask(spaces).params for _ in range(number)]
    return [
        {name: f"{ranges[name].clipped(value):.10g}" for name, value in params.items()}
        for params in asked
    ]
