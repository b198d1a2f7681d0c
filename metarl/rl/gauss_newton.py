"""Gauss-Newton products: Jᵀ M J of a function of parameters that gives action distributions."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from metarl.params import Params
from metarl.rl.policies import Densities
from metarl.rl.trajectories import Distribution


def gauss_newton(
    outputs: Callable[[Params], Distribution],
    params: Params,
    metric: Callable[[Distribution, Distribution], Distribution],
) -> Callable[[Params], Params]:
    """v to Jᵀ M J v, J the derivative of the outputs at the parameters, M v = metric(outputs, v).

    The graph of u ↦ Jᵀ u is built once and kept. It is linear in u, so that its own derivative is
    the product with J, and neither product computes the outputs again.
    """
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    values = outputs(leaves)
    fixed = {name: leaf.detach() for name, leaf in values.items()}
    # any u does, since the graph is linear in it; zeros are as good as others
    cotangent = {name: torch.zeros_like(leaf, requires_grad=True) for name, leaf in values.items()}

    def backward(
        out: Iterable[Tensor], into: Iterable[Tensor], along: Iterable[Tensor], again: bool = False
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            tuple(out),
            tuple(into),
            tuple(along),
            retain_graph=True,
            create_graph=again,
            allow_unused=True,
            materialize_grads=True,
        )

    pulled = backward(values.values(), leaves.values(), cotangent.values(), again=True)

    def product(tangent: Params) -> Params:
        # J v: the derivative of u ↦ Jᵀ u, applied to v, is the transpose of a transpose
        change = backward(pulled, cotangent.values(), (tangent[name] for name in leaves))
        weighted = metric(fixed, dict(zip(values, change, strict=True)))
        pushed = backward(values.values(), leaves.values(), (weighted[name] for name in values))
        return dict(zip(leaves, pushed, strict=True))

    return product


def fisher_metric(
    policy: Densities, weights: Tensor
) -> Callable[[Distribution, Distribution], Distribution]:
    """The Fisher matrix of distributions (N, M, ·), weighted by weights (N, M), times a change."""

    def metric(distribution: Distribution, change: Distribution) -> Distribution:
        return {
            name: _reduce_to(weights.unsqueeze(-1) * leaf, distribution[name])
            for name, leaf in policy.fisher(distribution, change).items()
        }

    return metric


def _reduce_to(leaf: Tensor, like: Tensor) -> Tensor:
    """Sum over the samples (axis 1) where the distribution has one row for all of them."""
    return leaf if leaf.shape == like.shape else leaf.sum(1, keepdim=True)
