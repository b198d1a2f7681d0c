"""The adaptation curve: how good a model is after 0, 1, 2, ... gradient steps on new tasks.

This is the only evaluation. Meta-learned, pretrained and random models are all measured by it, on
the same tasks and with the same randomness where the seed is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.statistics import Summary, mean_over_tasks


@dataclass(frozen=True)
class Quantity:
    """What a score is.

    Attributes:
        name: of the score, such as `return`.
        axis: the same as a plot's axis says it, such as `undiscounted return`.
        samples: what trainings are given the same number of, such as `environment steps`.
        higher_is_better: whether it is.
        trimmed: whether several runs are summed up by their interquartile mean.
    """

    name: str
    axis: str
    samples: str
    higher_is_better: bool = True
    trimmed: bool = False


@dataclass(frozen=True)
class AdaptationCurve:
    """Scores on unseen tasks against the number of gradient steps.

    Attributes:
        tasks: (N, T).
        scores: (N, K + 1): of each task after k updates, k = 0...K.
        step_sizes: of the K updates.
    """

    tasks: NDArray[np.float64]
    scores: NDArray[np.float64]
    step_sizes: tuple[float, ...]

    @property
    def summary(self) -> Summary:
        """Mean over tasks, with its interval."""
        return mean_over_tasks(self.scores)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        summary = self.summary
        return {
            "mean": summary.centre.tolist(),
            "interval_95": (summary.high - summary.centre).tolist(),
            "step_sizes": list(self.step_sizes),
            "tasks": self.tasks.tolist(),
            "scores": self.scores.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AdaptationCurve":
        """The inverse of `to_json`."""
        return cls(np.array(value["tasks"]), np.array(value["scores"]), tuple(value["step_sizes"]))
