"""Step sizes α of the inner loop: constants, or learned with θ (Meta-SGD, LSLR).

The meta-parameters are all parameters that the outer step changes: θ and, if learned, α. They are
one dictionary of tensors, in which the names of step sizes begin with `PREFIX`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metarl.config.sections import InnerSection
from metarl.context import CONTEXT
from metarl.params import Params, split_prefix

PREFIX = "step_size."

StepSizes = Mapping[str, float | Tensor]


def meta_parameters(settings: InnerSection, theta: Params, head: Sequence[str]) -> Params:
    """θ and the learned α, which are initialised to `inner.step_size`.

    Args:
        settings: settings of the inner loop.
        theta: θ.
        head: the names of the last layer's parameters.
    """
    if settings.learned_step_sizes == "none":
        return theta
    alpha: Params = {}
    for name in _adapted_names(settings, theta, head):
        meta_sgd = settings.learned_step_sizes == "meta_sgd"
        shape = theta[name].shape if meta_sgd else (settings.steps,)
        alpha[PREFIX + name] = torch.full(shape, settings.step_size)
    return theta | alpha


def split(meta: Mapping[str, Tensor]) -> tuple[Params, Params]:
    """θ and the learned α, both keyed by the names of θ's parameters."""
    return split_prefix(meta, PREFIX)


def initial_params(meta: Mapping[str, Tensor]) -> Params:
    """The parameters that adaptation starts from: θ, with the context (if any) set to zeros."""
    theta, _ = split(meta)
    if CONTEXT not in theta:
        return theta
    # a product with zero: its derivative is zero, so that the outer step never changes the context,
    # but it requires gradients, so that the inner step is differentiated
    return theta | {CONTEXT: 0.0 * theta[CONTEXT]}


def step_sizes(
    settings: InnerSection, meta: Mapping[str, Tensor], head: Sequence[str], sizes: Sequence[float]
) -> list[StepSizes]:
    """α of each step, for every parameter that adapts.

    Args:
        settings: settings of the inner loop.
        meta: the meta-parameters.
        head: the names of the last layer's parameters.
        sizes: one number for each step. Learned step sizes take precedence; for additional steps
            the last learned one is repeated.
    """
    theta, alpha = split(meta)
    if not alpha:  # also for parameters of a method that does not learn step sizes
        return [dict.fromkeys(_adapted_names(settings, theta, head), size) for size in sizes]
    if settings.learned_step_sizes == "meta_sgd":
        return [alpha] * len(sizes)
    last = settings.steps - 1
    return [
        {name: size[min(step, last)] for name, size in alpha.items()} for step in range(len(sizes))
    ]


def mean_step_sizes(sizes: Sequence[StepSizes]) -> tuple[float, ...]:
    """The mean step size of each step, over all parameters that adapt."""

    def mean(step: StepSizes) -> float:
        learned = [size.reshape(-1) for size in step.values() if isinstance(size, Tensor)]
        return float(torch.cat(learned).mean()) if learned else float(next(iter(step.values())))

    return tuple(map(mean, sizes))


def _adapted_names(settings: InnerSection, theta: Params, head: Sequence[str]) -> list[str]:
    if CONTEXT in theta:
        return [CONTEXT]
    return list(head) if settings.adapt == "head" else list(theta)
