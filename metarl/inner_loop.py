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
Scalar = Callable[[Params], Tensor]
Gradient = Callable[[Scalar], Callable[[Params], Params]]


def adapt(
    loss: Callable[[Params, Batch], Tensor],
    params: Params | torch.nn.Module,
    batches: Sequence[Batch],
    step_sizes: StepSize | Sequence[StepSize],
    first_order: bool = False,
    gradient: Gradient = torch.func.grad,
) -> Params:
    """Take one gradient step on each batch: θ ← θ − α ∇θ loss(θ, batch).

    Finn et al. (2017), equation 1. The result is differentiable with respect to `params` and to
    `step_sizes`, through any of torch's ways: `torch.func.grad`, `jvp`, `vmap` over tasks, or
    `backward`.

    Written for one task. For many put `torch.func.vmap` around it; or stack their parameters, and
    give a loss that sums over tasks: its gradient is then that of each task for itself.

    Args:
        loss: a scalar function of the parameters and of one batch.
        params: the parameters θ from which adaptation starts, or a module that has them. They are
            not modified. The loss is given a dictionary of them in either case, and a module's
            outputs with these are `torch.func.functional_call(module, params, inputs)`.
        batches: the data of each step, in order; its length is the number of steps. Repeat the
            support set for several steps on the same data.
        step_sizes: α. One number or tensor for all steps, or a mapping from parameter names for
            step sizes of their own (Meta-SGD, Li et al. 2017), or a sequence with one of these a
            step. Parameters that a mapping leaves out stay as they are.
        first_order: treat the gradients as constants, so that derivatives of the result ignore
            how they depend on θ (FOMAML, section 5.2 of the paper). The result is the same.
        gradient: what makes a gradient function of a scalar one. `torch.func.grad` works within
            torch's other transforms; `reverse` is faster where there are none.

    Returns:
        The adapted parameters θ', a new dictionary.

    Raises:
        ValueError: if there is one step size a step, but not as many as batches.
        KeyError: if a mapping of step sizes names a parameter that does not exist.
        TypeError: if `params` are neither a dictionary of tensors nor a module.

    Example:
        >>> import torch
        >>> def loss(params, batch):
        ...     x, y = batch
        ...     return ((params["w"] * x - y) ** 2).mean()
        >>> support = (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
        >>> adapt(loss, {"w": torch.tensor(0.0)}, [support], 0.1)
        {'w': tensor(1.)}
    """
    params = _dictionary(params)
    if not isinstance(step_sizes, Sequence):
        step_sizes = [step_sizes] * len(batches)
    if len(step_sizes) != len(batches):
        raise ValueError(
            f"there are {len(batches)} batches but {len(step_sizes)} step sizes; give one step "
            "size for all steps, or one for each"
        )
    for batch, step_size in zip(batches, step_sizes, strict=True):
        params = _step(loss, params, batch, step_size, first_order, gradient)
    return params


def _dictionary(params: Mapping[str, Tensor] | torch.nn.Module) -> Params:
    if isinstance(params, torch.nn.Module):
        return {name: leaf for name, leaf in params.named_parameters() if leaf.requires_grad}
    if not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
        raise TypeError(
            "params must be a dictionary of tensors, such as dict(module.named_parameters()), or a "
            f"torch.nn.Module, not {type(params).__name__}"
        )
    return dict(params)


def reverse(function: Scalar) -> Callable[[Params], Params]:
    """The gradient of a scalar function of parameters by plain reverse mode, without transforms.

    Under stacked tasks it takes a quarter off the time of small networks. It keeps the graph for a
    second derivative only where somebody asks for one: where one of these parameters requires
    gradients, however many others may that the function has from elsewhere.
    """

    def gradient(params: Params) -> Params:
        tracked = any(leaf.requires_grad for leaf in params.values())
        with torch.enable_grad():
            if not tracked:
                params = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
            leaves = torch.autograd.grad(
                function(params),
                list(params.values()),
                create_graph=tracked,
                allow_unused=True,
                materialize_grads=True,
            )
        return dict(zip(params, leaves, strict=True))

    return gradient


def _step(
    loss: Callable[[Params, Batch], Tensor],
    params: Params,
    batch: Batch,
    step_size: StepSize,
    first_order: bool,
    gradient: Gradient,
) -> Params:
    rates = step_size if isinstance(step_size, Mapping) else dict.fromkeys(params, step_size)
    if unknown := rates.keys() - params.keys():
        raise KeyError(f"step sizes are given for unknown parameters: {', '.join(sorted(unknown))}")
    adapted = {name: params[name] for name in rates}
    # gradients with respect to what moves only: a head adapted alone costs what a head costs
    slope = gradient(lambda moving: loss({**params, **moving}, batch))(adapted)
    if first_order:
        slope = {name: value.detach() for name, value in slope.items()}
    return {**params, **{name: adapted[name] - rates[name] * slope[name] for name in rates}}
