"""Published results for runs of the same protocol; see published.yaml."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel

from metarl.experiment import all_settings, by_full_name
from metarl.method import Problem

Figure = float | tuple[float, float]  # an estimate, or an estimate and its ±


class Published(BaseModel):
    """Results that one source reports for one family of tasks.

    Attributes:
        where: settings that a comparable run must have: name to value, or to a list of values.
        source: the publication, its number of tasks and seeds.
        tasks: number of tasks, if reported.
        rows: figures by method and number of adaptation steps.
    """

    where: dict[str, Any]
    source: str
    tasks: int | None = None
    rows: dict[str, dict[int, Figure]]

    @property
    def target(self) -> float | None:
        """MAML's return after one step, until which training is timed.

        None for networks: they are trained and tested on different classes, so that scores differ.
        """
        return estimates(self.rows.get("MAML", {})).get(1) if "family.name" in self.where else None

    def matches(self, problem: Problem) -> bool:
        """Whether a problem, with its evaluation settings, follows the same protocol."""
        settings = all_settings(problem.config)
        settings |= by_full_name(problem.evaluation_settings, "evaluation.")
        # a setting of the family that `where` does not name makes other tasks
        unnamed = {
            name
            for name, value in settings.items()
            if name.startswith("family.settings.") and value is not None
        } - {*self.where, "family.settings.num_threads"}
        return not unnamed and all(
            settings.get(name) in (value if isinstance(value, list) else [value])
            for name, value in self.where.items()
        )


@cache
def _load_all() -> list[Published]:
    text = resources.files("metarl.report").joinpath("published.yaml").read_text(encoding="utf-8")
    return [Published.model_validate(values) for values in yaml.safe_load(text)]


def find_published(problem: Problem) -> Published | None:
    """The published results for a problem's tasks, if there are any."""
    return next((results for results in _load_all() if results.matches(problem)), None)


def estimates(row: Mapping[int, Figure]) -> dict[int, float]:
    """The figures of a row without their intervals."""
    return {k: value[0] if isinstance(value, tuple) else value for k, value in row.items()}


def format_figure(figure: Figure) -> str:
    """Format a figure as in `315.7 ± 13.8`."""
    return " ± ".join(
        f"{number:g}" for number in (figure if isinstance(figure, tuple) else [figure])
    )
