"""Losses and scores of stacked tasks.

A loss is the sum over tasks of the mean over a task's examples. Its gradient with respect to the
parameters of one task is therefore the gradient of that task's loss, and the size of an inner step
does not depend on the number of examples.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from metarl.evaluation import Metric


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over tasks of the mean squared error (Finn et al. 2017, equation 2, per example).

    Args:
        outputs: (N, M, 1).
        targets: (N, M, 1).
    """
    return F.mse_loss(outputs, targets, reduction="sum") / outputs.shape[1]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ over tasks of the mean cross-entropy (Finn et al. 2017, equation 3, per example).

    Args:
        logits: (N, M, ways).
        labels: (N, M).
    """
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / logits.shape[1]


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of each task, (N,)."""
    return (outputs - targets).square().mean((1, 2))


def accuracies(logits: Tensor, labels: Tensor) -> Tensor:
    """The accuracy of each task in percent, (N,); NaN where a logit is not finite."""
    correct = (logits.argmax(-1) == labels).float()
    # argmax of NaN is some class, so a diverged network could score by chance: 0 · NaN is NaN
    return 100.0 * (correct + 0.0 * logits.sum(-1)).mean(1)


@dataclass(frozen=True)
class TaskType:
    """Regression or classification.

    Attributes:
        name: the name in configs and messages.
        loss: of outputs and targets of stacked tasks, summed over tasks.
        score: the metric of each task, (N,).
        metric: how the score is called.
        chunk: the number of examples, in whole tasks, that are computed together: about as many as
            have their activations in the processor's cache. It affects the speed only.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    metric: Metric
    chunk: int


REGRESSION = TaskType(
    "regression",
    squared_error,
    squared_errors,
    Metric("error", "mean squared error", "examples", higher_is_better=False),
    chunk=4096,
)
CLASSIFICATION = TaskType(
    "classification",
    cross_entropy,
    accuracies,
    Metric("accuracy", "accuracy (%)", "examples"),
    chunk=80,
)


def __getattr__(name: str) -> Any:
    if name != "Kind":  # the name in version 0.1, which custom methods may import
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Kind is deprecated: use TaskType", DeprecationWarning, stacklevel=2)
    return TaskType
