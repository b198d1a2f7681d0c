"""The inner loop of MAML: gradient steps as a differentiable function of the initial parameters.

It is shared by reinforcement learning, regression and classification, and independent of all: a
loss, parameters and the data of each step go in, adapted parameters come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from metarl.derivatives import ExactDerivatives
from metarl.errors import UserError
from metarl.params import Params, with_prefix

Batch = TypeVar("Batch")
StepSize = float | Tensor | Mapping[str, float | Tensor]
Scalar = Callable[[Params], Tensor]
Gradient = Callable[[Scalar], Callable[[Params], Params]]
Algorithm = Literal["sgd", "momentum", "adam"]

MOMENTUM, BETA1, BETA2, EPSILON = 0.9, 0.9, 0.999, 1e-8  # the defaults of torch.optim


@dataclass(frozen=True)
class InnerOptimizer:
    """The optimiser of the inner loop, for `metarl.adapt(..., optimizer=InnerOptimizer("adam"))`.

    Its steps are differentiable. Those of `torch.optim` are not, because they modify parameters in
    place. The state is zero at the first step of every task.

    Attributes:
        algorithm: "sgd"; "momentum" with μ = 0.9, as torch.optim.SGD; or "adam" with the default β
            and ε of torch.optim.Adam.
        clip: the maximum norm of all gradients of a task together; None to disable clipping.
        stacked: whether the first axis of every parameter is that of tasks.
    """

    algorithm: Algorithm = "sgd"
    clip: float | None = None
    stacked: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm must be sgd, momentum or adam, not {self.algorithm!r}")
        if self.clip is not None and not self.clip > 0.0:
            raise ValueError(f"clip must be positive, or None, not {self.clip!r}")

    @property
    def is_plain(self) -> bool:
        """Whether a step is −α ∇θ loss."""
        return self.algorithm == "sgd" and self.clip is None

    def direction(self, grads: Params, state: Params, step: int) -> tuple[Params, Params]:
        """The update that α multiplies, and the new state, {} before the first step."""
        if self.clip is not None:
            # by vmap, since the norm is that of one task, not of all tasks together
            clip = partial(_clip_norm, max_norm=self.clip)
            grads = torch.func.vmap(clip)(grads) if self.stacked else clip(grads)
        if self.algorithm == "sgd":
            return grads, {}
        mean = {
            name: state.get(f"mean.{name}", torch.zeros_like(grad)) for name, grad in grads.items()
        }
        if self.algorithm == "momentum":  # m ← μ m + g
            mean = {name: MOMENTUM * mean[name] + grad for name, grad in grads.items()}
            return mean, with_prefix(mean, "mean.")
        new, directions = dict[str, Tensor](), dict[str, Tensor]()
        for name, grad in grads.items():  # Kingma and Ba (2015), algorithm 1
            first = BETA1 * mean[name] + (1.0 - BETA1) * grad
            square = state.get(f"square.{name}", torch.zeros_like(grad))
            second = BETA2 * square + (1.0 - BETA2) * grad**2
            new |= {f"mean.{name}": first, f"square.{name}": second}
            # α m̂ / (√v̂ + ε) with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ)
            # the derivative of √v at v = 0 is infinite: there the direction is 0, a constant
            root = (
                torch.where(second > 0.0, second, 1.0).sqrt() / (1.0 - BETA2 ** (step + 1)) ** 0.5
            )
            ratio = first / (1.0 - BETA1 ** (step + 1)) / (root + EPSILON)
            directions[name] = torch.where(second > 0.0, ratio, 0.0)
        return directions, new


SGD = InnerOptimizer()


def adapt(
    loss: Callable[[Params, Batch], Tensor],
    params: Params | torch.nn.Module,
    batches: Sequence[Batch],
    step_sizes: StepSize | Sequence[StepSize],
    first_order: bool = False,
    gradient: Gradient = torch.func.grad,
    optimizer: InnerOptimizer = SGD,
) -> Params:
    """Take one gradient step on each batch: θ ← θ − α ∇θ loss(θ, batch).

    Finn et al. (2017), section 2.2. The result is differentiable with respect to `params` and
    `step_sizes`, by `torch.func.grad`, `jvp`, `vmap` over tasks, or `backward`.

    This function adapts to one task. For many tasks, apply `torch.func.vmap` to it; or stack the
    parameters and sum the loss over tasks: the gradient of the sum with respect to the stacked
    parameters is the stacked gradient of each task.

    torch's second derivatives of layer and batch normalisation under `vmap`, and of weight
    normalisation, are silently wrong; within `loss`, `metarl.derivatives` replaces them.

    Args:
        loss: a scalar function of the parameters and of one batch.
        params: the initial parameters θ, or a module that holds them. They are not modified. The
            loss receives a dictionary in both cases; the outputs of a module with these parameters
            are `torch.func.functional_call(module, params, inputs)`. Integers, and instances of
            `torch.nn.Parameter` with `requires_grad=False`, are not adapted.
        batches: the data of each step, in order; their number is the number of steps. Repeat the
            support set for several steps on the same data.
        step_sizes: α. A number or tensor for all steps; a mapping from parameter names to step
            sizes (Meta-SGD, Li et al. 2017); or a sequence of these, one for each step. Parameters
            that a mapping omits are not adapted.
        first_order: treat the gradients as constants (FOMAML, section 5.2 of the paper). This
            changes derivatives of the result, not the result.
        gradient: transforms a scalar function into its gradient function. `torch.func.grad`
            composes with `vmap` and torch's other transforms; without them,
            `metarl.inner_loop.reverse` is faster.
        optimizer: plain gradient descent by default, or momentum, Adam, or clipped gradients.

    Returns:
        The adapted parameters θ', a new dictionary.

    Raises:
        ValueError: if `step_sizes` is a sequence of another length than `batches`, or has another
            shape than a parameter.
        KeyError: if a mapping of step sizes names an unknown parameter.
        TypeError: if `params` is neither a dictionary of tensors nor a module.
        UserError: if a layer of the module has two names, which `functional_call` does not support;
            or if the loss applies a recurrent layer under `vmap`.

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
    if isinstance(step_sizes, Tensor) and step_sizes.shape == (len(batches),) != (1,):
        raise ValueError(
            f"a tensor of {len(batches)} step sizes could be one for each step or for each element "
            "of a parameter: pass list(step_sizes), or a mapping from names to tensors"
        )
    if not isinstance(step_sizes, Sequence):
        step_sizes = [step_sizes] * len(batches)
    if len(step_sizes) != len(batches):
        raise ValueError(
            f"there are {len(batches)} batches but {len(step_sizes)} step sizes; give one step "
            "size for all steps, or one for each"
        )
    state: Params = {}
    for step, (batch, alpha) in enumerate(zip(batches, step_sizes, strict=True)):
        params, state = adapt_step(
            loss, params, batch, alpha, first_order, gradient, optimizer, state, step
        )
    return params


def _dictionary(params: Mapping[str, Tensor] | torch.nn.Module) -> Params:
    if isinstance(params, torch.nn.Module):
        names: dict[torch.nn.Module, str] = {}
        for name, layer in params.named_modules(remove_duplicate=False):
            # functional_call would leave the tensors of the first call in such a layer
            if names.setdefault(layer, name) != name and any(True for _ in layer.parameters()):
                raise UserError(
                    f"layer {names[layer]!r} is also named {name!r}, which "
                    "torch.func.functional_call does not support; register it under one name (it "
                    "may be called twice)"
                )
        params = {name: leaf for name, leaf in params.named_parameters() if leaf.requires_grad}
    elif not isinstance(params, Mapping) or not all(isinstance(p, Tensor) for p in params.values()):
        raise TypeError(
            "params must be a dictionary of tensors, such as dict(module.named_parameters()), or a "
            f"torch.nn.Module, not {type(params).__name__}"
        )
    if all(map(_is_frozen, params.values())):
        raise UserError("no parameter requires gradients, so that there is nothing to adapt")
    return dict(params)


def reverse(function: Scalar) -> Callable[[Params], Params]:
    """The gradient function of a scalar function by `torch.autograd.grad`.

    For stacked tasks and small networks it takes three quarters of the time of `torch.func.grad`.
    The graph for second derivatives is kept only if one of the parameters requires gradients;
    other tensors that the function refers to are ignored. The corrections of `metarl.derivatives`
    are left to the function.
    """

    def gradient(params: Params) -> Params:
        tracked = any(leaf.requires_grad for leaf in params.values())
        # also where the caller has disabled gradients, such as in an evaluation
        with torch.enable_grad():
            # constants become fresh leaves, whose graph is freed by `grad`
            params = {
                name: leaf if leaf.requires_grad else leaf.detach().requires_grad_()
                for name, leaf in params.items()
            }
            leaves = torch.autograd.grad(
                function(params),
                list(params.values()),
                create_graph=tracked,
                allow_unused=True,
                materialize_grads=True,  # like torch.func.grad: zeros for unused parameters
            )
        return dict(zip(params, leaves, strict=True))

    return gradient


def adapt_step(
    loss: Callable[[Params, Batch], Tensor],
    params: Params,
    batch: Batch,
    step_size: StepSize,
    first_order: bool = False,
    gradient: Gradient = torch.func.grad,
    optimizer: InnerOptimizer = SGD,
    state: Params | None = None,
    step: int = 0,
) -> tuple[Params, Params]:
    """One step of `adapt`: the new parameters, and the state of the optimiser for the next step."""
    rates = step_size if isinstance(step_size, Mapping) else dict.fromkeys(params, step_size)
    if unknown := rates.keys() - params.keys():
        raise KeyError(f"step sizes are given for unknown parameters: {', '.join(sorted(unknown))}")
    adapted = {name: params[name] for name in rates if not _is_frozen(params[name])}
    # only parameters that adapt are differentiated, so that adapting the head costs no more than
    # backpropagation through the head
    # corrections cost a call in Python for each operation, 18% of the time of a small network
    with nullcontext() if gradient is reverse else ExactDerivatives():
        grads = gradient(lambda adapting: loss({**params, **adapting}, batch))(adapted)
    if first_order:  # ∂θ'/∂θ is then I instead of I − α ∇²L
        grads = {name: value.detach() for name, value in grads.items()}
    directions, state = optimizer.direction(grads, state or {}, step)
    # step sizes in another precision must not change that of the parameters
    moves = {
        name: (rates[name] * directions[name]).to(leaf.dtype) for name, leaf in adapted.items()
    }
    for name, leaf in adapted.items():
        if moves[name].shape != leaf.shape:
            raise ValueError(
                f"a step size of {name} has shape {tuple(rates[name].shape)}, which does not fit "  # type: ignore[union-attr]
                f"the parameter's {tuple(leaf.shape)}; for one step size for each step pass a list"
            )
    return {**params, **{name: leaf - moves[name] for name, leaf in adapted.items()}}, state


def _clip_norm(grads: Params, max_norm: float) -> Params:
    """Gradients scaled so that their joint norm is at most `max_norm`."""
    squared = torch.stack([grad.square().sum() for grad in grads.values()]).sum()
    is_long = squared > max_norm**2
    # the norm is not differentiable at 0: it is computed only where it is used
    scale = torch.where(is_long, max_norm * torch.where(is_long, squared, 1.0).rsqrt(), 1.0)
    return {name: scale * grad for name, grad in grads.items()}


def _is_frozen(leaf: Tensor) -> bool:
    leaf = torch.func.debug_unwrap(leaf)  # torch.func's transforms wrap a Parameter in a Tensor
    # any tensor may be adapted, as torch.func.grad does; requires_grad=False is a decision only for
    # a Parameter
    is_constant = isinstance(leaf, torch.nn.Parameter) and not leaf.requires_grad
    if leaf.is_complex() and not is_constant:
        raise TypeError("complex parameters cannot be adapted; use their real and imaginary parts")
    return is_constant or not leaf.is_floating_point()
