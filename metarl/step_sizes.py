"""Step sizes of the inner loop: given, or learned with θ, in every domain.

Meta-parameters are what the outer step changes: θ and, where they are learned, the step sizes α.
They are one dictionary of tensors, as the outer step wants it; this module alone knows which of
them are which.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metarl.config.sections import InnerSection
from metarl.context import CONTEXT
from metarl.params import Params

PREFIX = "step_size."  # what the names of learned step sizes begin with

StepSizes = Mapping[str, float | Tensor]


def meta_parameters(settings: InnerSection, theta: Params, head: Sequence[str]) -> Params:
    """θ, and the α that are learned with it: as large as they are given, at first.

    Args:
        settings: of the inner loop.
        theta: θ.
        head: the names of the last layer's parameters.
    """
    if settings.learned_step_sizes == "none":
        return theta
    alpha: Params = {}
    for name in _adapted(settings, theta, head):
        one_each = settings.learned_step_sizes == "meta_sgd"
        shape = theta[name].shape if one_each else (settings.steps,)
        alpha[PREFIX + name] = torch.full(shape, settings.step_size)
    return theta | alpha


def split(meta: Mapping[str, Tensor]) -> tuple[Params, Params]:
    """θ and the learned α, each by the names of θ's parameters."""
    theta = {name: leaf for name, leaf in meta.items() if not name.startswith(PREFIX)}
    alpha = {
        name.removeprefix(PREFIX): leaf for name, leaf in meta.items() if name.startswith(PREFIX)
    }
    return theta, alpha


def initial_params(meta: Mapping[str, Tensor]) -> Params:
    """Where the adaptation of every task starts: θ, with a context of zeros where there is one."""
    theta, _ = split(meta)
    if CONTEXT not in theta:
        return theta
    # zeros of zero slope, so that no outer step moves them; as a product, and not as constants,
    # because an inner step is differentiated only where what moves requires gradients
    return theta | {CONTEXT: 0.0 * theta[CONTEXT]}


def step_sizes(
    settings: InnerSection, meta: Mapping[str, Tensor], head: Sequence[str], given: Sequence[float]
) -> list[StepSizes]:
    """α of each step, for every parameter that adapts.

    Args:
        settings: of the inner loop.
        meta: the meta-parameters.
        head: the names of the last layer's parameters.
        given: one number a step. Where there are learned ones they take its place; where more steps
            are taken than were learned, the last is repeated.
    """
    theta, alpha = split(meta)
    if not alpha:  # given, or the meta-parameters of a method that learns none
        return [dict.fromkeys(_adapted(settings, theta, head), size) for size in given]
    if settings.learned_step_sizes == "meta_sgd":
        return [alpha] * len(given)
    last = settings.steps - 1
    return [
        {name: size[min(step, last)] for name, size in alpha.items()} for step in range(len(given))
    ]


def mean_step_sizes(sizes: Sequence[StepSizes]) -> tuple[float, ...]:
    """Of each step, the mean over all parameters that adapt; one given for all as it is."""

    def mean(step: StepSizes) -> float:
        learned = [size.reshape(-1) for size in step.values() if isinstance(size, Tensor)]
        return float(torch.cat(learned).mean()) if learned else float(next(iter(step.values())))

    return tuple(map(mean, sizes))


def _adapted(settings: InnerSection, theta: Params, head: Sequence[str]) -> list[str]:
    if CONTEXT in theta:
        return [CONTEXT]
    return list(head) if settings.adapt == "head" else list(theta)
