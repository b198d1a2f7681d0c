"""Losses and scores of stacked tasks.

A loss is the sum over tasks of the mean over a task's examples and their outputs. Its gradient with
respect to the parameters of one task is therefore the gradient of that task's loss, and the size of
an inner step does not depend on the number of examples.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from metarl.config.registry import Registry
from metarl.config.sections import ImportString, MethodSection
from metarl.errors import UserError
from metarl.evaluation import Metric

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over tasks of the mean squared error (N, M, O) (Finn et al. 2017, eq. 2, as a mean)."""
    return F.mse_loss(outputs, targets, reduction="sum") / outputs[0].numel()


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over tasks of the mean Huber loss with δ = 1: ½ e² for |e| ≤ 1, |e| − ½ beyond."""
    return F.huber_loss(outputs, targets, reduction="sum") / outputs[0].numel()


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Σ over tasks of the mean cross-entropy (Finn et al. 2017, equation 3, per example).

    Args:
        logits: (N, M, ways).
        labels: (N, M).
        label_smoothing: probability that is spread evenly over all classes.
    """
    total = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
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
    loss: Loss
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


LOSSES = Registry(
    "loss",
    {
        "mse": "metarl.supervised.losses:squared_error",
        "huber": "metarl.supervised.losses:huber",
        "cross_entropy": "metarl.supervised.losses:cross_entropy",
    },
    functions=True,
)
NAMES = {"regression": ("mse", "huber"), "classification": ("cross_entropy",)}


class LossSettings(MethodSection):
    """The `loss` of the inner and the outer loop: mse or huber in regression, cross_entropy in
    classification, or `module:function`. By default it is the first one of the task type.

    A function takes outputs (N, M, O) and targets (N, M, ...) of N tasks, and returns the loss of
    every example, (N, M) or (N, M, ...). `label_smoothing` is the probability that targets of
    cross_entropy spread over all classes. Scores do not depend on the loss.
    """

    loss: ImportString | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


def loss_function(kind: TaskType, settings: MethodSection) -> Loss:
    """The loss of stacked tasks, summed over tasks, that the settings of a method choose.

    Raises:
        UserError: if it is not for this task type, or cannot be loaded.
    """
    if not isinstance(settings, LossSettings):
        return kind.loss
    names, smoothing = NAMES[kind.name], settings.label_smoothing
    name = settings.loss or names[0]
    if name not in names and ":" not in name:
        raise UserError(
            f"method.loss: must be {' or '.join(names)} for {kind.name}, or module:function, not "
            f"{name!r}"
        )
    if smoothing and name != "cross_entropy":
        raise UserError(f"method.label_smoothing: belongs to cross_entropy, not to {name}")
    function: Loss = LOSSES.load(name, ())
    if name not in LOSSES:
        return partial(mean_per_task, function, name)
    return partial(cross_entropy, label_smoothing=smoothing) if smoothing else function


def mean_per_task(function: Loss, name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over tasks of the mean of a custom function's losses.

    Raises:
        UserError: if it does not return one loss or more for every example.
    """
    losses = function(outputs, targets)
    expected = tuple(outputs.shape[:2])
    if not isinstance(losses, Tensor) or tuple(losses.shape[:2]) != expected:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise UserError(
            f"method.loss: {name} must return the loss of every example, {expected}, for outputs "
            f"of shape {tuple(outputs.shape)}, not {shape}; do not take the mean"
        )
    return losses.reshape(*expected, -1).mean((1, 2)).sum()


def check_loss(loss: Loss, kind: TaskType, outputs: int) -> None:
    """Try a loss on two tasks of three examples, before a training.

    Raises:
        UserError: if it raises an exception, or has no gradient.
    """
    predictions = torch.linspace(-1.0, 1.0, 6 * outputs).view(2, 3, outputs).requires_grad_()
    is_class = kind is CLASSIFICATION
    targets = torch.zeros(2, 3).long() if is_class else torch.zeros(2, 3, outputs)
    try:
        torch.autograd.grad(loss(predictions, targets), predictions)
    except UserError:
        raise
    except Exception as error:  # user code may raise anything
        raise UserError(
            f"method.loss: raised {type(error).__name__} for outputs {tuple(predictions.shape)} "
            f"and targets {tuple(targets.shape)} ({' '.join(str(error).split())[:200]})"
        ) from error


def __getattr__(name: str) -> Any:
    if name != "Kind":  # the name in version 0.1, which custom methods may import
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Kind is deprecated: use TaskType", DeprecationWarning, stacklevel=2)
    return TaskType
