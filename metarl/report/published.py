"""Figures that others published, for runs of the same protocol; see published.yaml."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel

from metarl.experiment import flat
from metarl.method import Problem

Figure = float | tuple[float, float]


class Published(BaseModel):
    """What one source says of one family of tasks.

    Attributes:
        where: settings that make a run comparable, with their values.
        source: who published it, and of how many tasks and seeds.
        tasks: how many, where it is told.
        rows: by method, then by stage of adaptation: a figure, or a figure and its ±.
    """

    where: dict[str, Any]
    source: str
    tasks: int | None = None
    rows: dict[str, dict[int, Figure]]

    def fits(self, problem: Problem) -> bool:
        """Whether figures of such a problem, evaluated so, stand beside these."""
        settings = flat(problem.config.model_dump(mode="json"))
        settings |= flat(problem.evaluation_settings, "evaluation.")
        return all(
            settings.get(name) in (value if isinstance(value, list) else [value])
            for name, value in self.where.items()
        )


@cache
def _all() -> list[Published]:
    text = resources.files("metarl.report").joinpath("published.yaml").read_text()
    return [Published.model_validate(values) for values in yaml.safe_load(text)]


def published(problem: Problem) -> Published | None:
    """What was published of a problem's tasks; None where nothing was."""
    return next((figures for figures in _all() if figures.fits(problem)), None)


def estimates(row: Mapping[int, Figure]) -> dict[int, float]:
    """A row without its intervals."""
    return {k: value[0] if isinstance(value, tuple) else value for k, value in row.items()}


def in_words(figure: Figure) -> str:
    """Such as `315.7 ± 13.8`."""
    return " ± ".join(
        f"{number:g}" for number in (figure if isinstance(figure, tuple) else [figure])
    )
