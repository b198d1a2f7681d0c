"""Gauss-Newton products Jᵀ M J v for a function from parameters to action distributions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metarl.params import Params
from metarl.rl.policies import ActionDistribution
from metarl.rl.trajectories import Distribution


def gauss_newton(
    function: Callable[[Params], Distribution],
    params: Params,
    metric: Callable[[Distribution, Distribution], Distribution],
) -> Callable[[Params], Params]:
    """v to Jᵀ M J v, with the Jacobian J of `function` at `params`, M u = metric(outputs, u).

    The graph of the backward pass g(u) = Jᵀ u is built once and kept. g is linear in u, so that
    its own vector-Jacobian product with v is (Jᵀ)ᵀ v = J v: forward mode by two reverse passes. No
    product evaluates `function` again.
    """
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    outputs = function(leaves)
    inputs, output_leaves = tuple(leaves.values()), tuple(outputs.values())
    fixed = {name: leaf.detach() for name, leaf in outputs.items()}
    # g is linear, so that its derivative is the same at every u; zeros are sufficient
    cotangent = {name: torch.zeros_like(leaf, requires_grad=True) for name, leaf in outputs.items()}
    u = tuple(cotangent.values())
    grads = vjp(output_leaves, inputs, u, create_graph=True)  # g(u) = Jᵀ u

    def product(tangent: Params) -> Params:
        change = vjp(grads, u, [tangent[name] for name in leaves])  # J v
        weighted = metric(fixed, dict(zip(outputs, change, strict=True)))  # M J v
        result = vjp(output_leaves, inputs, [weighted[name] for name in outputs])
        return dict(zip(leaves, result, strict=True))  # Jᵀ M J v

    return product


def vjp(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor] | None = None,
    create_graph: bool = False,
    retain_graph: bool = True,
) -> tuple[Tensor, ...]:
    """uᵀ ∂outputs/∂inputs; zeros for inputs without an effect. The graph is kept by default."""
    return torch.autograd.grad(
        outputs,
        inputs,
        grad_outputs,
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=True,  # such as log σ in the mean of the actions
        materialize_grads=True,
    )


def fisher_metric(
    policy: ActionDistribution, weights: Tensor
) -> Callable[[Distribution, Distribution], Distribution]:
    """Products with the Fisher matrix of distributions (N, M, ·), weighted by weights (N, M)."""

    def metric(distribution: Distribution, tangent: Distribution) -> Distribution:
        return {
            name: _sum_to_shape(weights.unsqueeze(-1) * leaf, distribution[name])
            for name, leaf in policy.fisher(distribution, tangent).items()
        }

    return metric


def _sum_to_shape(leaf: Tensor, like: Tensor) -> Tensor:
    """Sum over samples (axis 1) where the distribution has one row for all of them, (N, 1, ·)."""
    return leaf if leaf.shape == like.shape else leaf.sum(1, keepdim=True)
