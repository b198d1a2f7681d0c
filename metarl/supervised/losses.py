"""Losses and scores of tasks side by side.

A loss is the sum over tasks of the mean over a task's examples. So its gradient with respect to one
task's parameters is that of the task alone, and a task with more examples has no bigger steps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """The percentage of each task's examples with the highest logit at their label, (N,)."""
    correct = (logits.argmax(-1) == labels).to(torch.float32)
    # where a logit is not a number, neither is this
    return 100.0 * (correct + 0.0 * logits.sum(-1)).mean(1)
