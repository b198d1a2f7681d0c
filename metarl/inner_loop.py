"""The inner loop of MAML: a few gradient steps as a differentiable function of where they start.

This is the one thing that reinforcement learning, regression and classification share, so it knows
of none of them: a loss, parameters, and the data of each step go in, adapted parameters come out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from metarl.params import Params

Batch = TypeVar("Batch")
StepSize = float | Tensor | Mapping[str, float | Tensor]


def adapt(
    loss: Callable[[Params, Batch], Tensor],
    params: Params,
    batches: Sequence[Batch],
    step_sizes: StepSize | Sequence[StepSize],
    first_order: bool = False,
) -> Params:
    """Take one gradient step on each batch: θ ← θ − α ∇θ loss(θ, batch).

    Finn et al. (2017), equation 1. The result is differentiable with respect to `params` and to
    `step_sizes`, through any of torch's ways: `torch.func.grad`, `jvp`, `vmap` over tasks, or
    `backward`. Written for one task; put `torch.func.vmap` around it for many.

    Args:
        loss: a scalar function of the parameters and of one batch.
        params: the parameters θ from which adaptation starts. They are not modified.
        batches: the data of each step, in order; its length is the number of steps. Repeat the
            support set for several steps on the same data.
        step_sizes: α. One number or tensor for all steps, or a mapping from parameter names for
            step sizes of their own (Meta-SGD, Li et al. 2017), or a sequence with one of these a
            step. Parameters that a mapping leaves out stay as they are.
        first_order: treat the gradients as constants, so that derivatives of the result ignore
            how they depend on θ (FOMAML, section 5.2 of the paper). The result is the same.

    Returns:
        The adapted parameters θ', a new dictionary.

    Raises:
        ValueError: if there is one step size a step, but not as many as batches.
        KeyError: if a mapping of step sizes names a parameter that does not exist.

    Example:
        >>> import torch
        >>> def loss(params, batch):
        ...     x, y = batch
        ...     return ((params["w"] * x - y) ** 2).mean()
        >>> support = (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
        >>> adapt(loss, {"w": torch.tensor(0.0)}, [support], 0.1)
        {'w': tensor(1.)}
    """
    if not isinstance(step_sizes, Sequence):
        step_sizes = [step_sizes] * len(batches)
    if len(step_sizes) != len(batches):
        raise ValueError(
            f"there are {len(batches)} batches but {len(step_sizes)} step sizes; give one step "
            "size for all steps, or one for each"
        )
    for batch, step_size in zip(batches, step_sizes, strict=True):
        params = _step(loss, params, batch, step_size, first_order)
    return params


def _step(
    loss: Callable[[Params, Batch], Tensor],
    params: Params,
    batch: Batch,
    step_size: StepSize,
    first_order: bool,
) -> Params:
    rates = step_size if isinstance(step_size, Mapping) else dict.fromkeys(params, step_size)
    if unknown := rates.keys() - params.keys():
        raise KeyError(f"step sizes are given for unknown parameters: {', '.join(sorted(unknown))}")
    adapted = {name: params[name] for name in rates}
    # gradients with respect to what moves only: a head adapted alone costs what a head costs
    gradient = torch.func.grad(lambda moving: loss({**params, **moving}, batch))(adapted)
    if first_order:
        gradient = {name: value.detach() for name, value in gradient.items()}
    return {**params, **{name: adapted[name] - rates[name] * gradient[name] for name in rates}}
