"""Losses and scores of tasks side by side.

A loss is the sum over tasks of the mean over a task's examples. So its gradient with respect to one
task's parameters is that of the task alone, and a task with more examples has no bigger steps. As
parts of a config they are imported before torch, which takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metarl.evaluation import Metric

if TYPE_CHECKING:
    from torch import Tensor


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over tasks of the mean squared error (Finn et al. 2017, equation 2, per example).

    Args:
        outputs: (N, M, 1).
        targets: (N, M, 1).
    """
    from torch.nn.functional import mse_loss

    return mse_loss(outputs, targets, reduction="sum") / outputs.shape[1]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ over tasks of the mean cross-entropy (Finn et al. 2017, equation 3, per example).

    Args:
        logits: (N, M, ways).
        labels: (N, M).
    """
    from torch.nn import functional

    total = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / logits.shape[1]


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of each task, (N,)."""
    return (outputs - targets).square().mean((1, 2))


def accuracies(logits: Tensor, labels: Tensor) -> Tensor:
    """The percentage of each task's examples with the highest logit at their label, (N,)."""
    correct = (logits.argmax(-1) == labels).float()
    # where a logit is not a number, neither is this
    return 100.0 * (correct + 0.0 * logits.sum(-1)).mean(1)


@dataclass(frozen=True)
class Kind:
    """What one wants of outputs: to be near a number, or to tell classes apart.

    Attributes:
        name: in a word.
        loss: of outputs and targets of stacked tasks, summed over tasks.
        score: what each task is judged by, (N,).
        metric: what that is called.
        chunk: how many examples, in whole tasks, are worked on together: as many as the processor's
            cache holds the activations of, about. It changes the time alone.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    chunk: int


REGRESSION = Kind(
    "regression",
    squared_error,
    squared_errors,
    Metric("error", "mean squared error", "examples", higher_is_better=False),
    chunk=4096,
)
CLASSIFICATION = Kind(
    "classification",
    cross_entropy,
    accuracies,
    Metric("accuracy", "accuracy (%)", "examples"),
    chunk=80,
)
