"""Adaptation of multilayer perceptrons with derivatives that are matrix products and little else.

A policy's network is differentiated by `metarl.networks.mlp_gradients`, a loss of its few outputs
by autograd. Nothing is approximated: `metarl.rl.meta_objective` has the same by autograd alone, for
every other policy and to compare with.

All functions work on some tasks at a time, with parameters stacked over them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.networks.mlp_gradients import BackwardPass, ForwardPass, forward_pass
from metarl.params import Params, flatten, repeat, unflatten
from metarl.rl.gauss_newton import fisher_metric, gauss_newton
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import Loss, mean_kl, reinforce
from metarl.rl.policies import CategoricalPolicy, Densities, GaussianPolicy, Policy, Readout
from metarl.rl.trajectories import Samples
from metarl.step_sizes import PREFIX, StepSizes, split

PIECE = 2000  # samples whose temporaries stay in the processor's cache
OUTPUTS = "outputs"

MLPPolicy = GaussianPolicy | CategoricalPolicy
PolicyLoss = Callable[[Densities, Params, Samples], Tensor]


def serves(policy: Policy) -> TypeGuard[MLPPolicy]:
    """Whether a policy's network is a plain MLP; a subclass of these may have another."""
    if type(policy) not in (GaussianPolicy, CategoricalPolicy):
        return False
    return policy.network is None and not policy.context  # type: ignore[attr-defined] # of these


def _policy(inner: InnerLoop) -> MLPPolicy:
    assert serves(inner.policy)
    return inner.policy


@dataclass(frozen=True)
class _Piece:
    forward: ForwardPass
    leaves: Params
    slopes: tuple[Tensor, ...]
    backward: BackwardPass


@dataclass(frozen=True)
class Differentiated:
    """A loss at stacked parameters, in sum over the tasks.

    Attributes:
        value: the loss.
        gradient: of each task's loss, stacked.
        pieces: what the second derivative takes up again.
    """

    value: Tensor
    gradient: Params
    pieces: list[_Piece]

    def hessian(self, direction: Mapping[str, Tensor]) -> Params:
        """Each task's Hessian times a direction, stacked."""
        return _summed(self._hessian(piece, direction) for piece in self.pieces)

    def _hessian(self, piece: _Piece, direction: Mapping[str, Tensor]) -> Params:
        outputs, inputs = piece.forward.tangent(direction)
        along = {name: direction[name] for name in piece.leaves if name != OUTPUTS}
        # the loss's own Hessian, in its few arguments, is symmetric: forward is backward
        bent = _grad(piece.slopes, piece.leaves, (outputs, *along.values()), retain_graph=True)
        change = piece.backward.tangent(direction, inputs, bent.pop(OUTPUTS))
        every = {**change, **bent}
        return {name: every[name] for name in self.gradient}


def differentiate(
    policy: MLPPolicy,
    loss: Loss,
    params: Params,
    samples: Samples,
    twice: bool = False,
) -> Differentiated:
    """A loss and its gradient.

    Args:
        policy: whose network it is.
        loss: of the network's outputs, in place of observations, and of the other parameters.
        params: stacked.
        samples: (N, M).
        twice: whether Hessians will be asked for.
    """
    values, pieces, slopes = [], [], []
    for piece in _pieces(samples):
        forward = forward_pass(params, piece.observations, policy.activation)
        with torch.enable_grad():
            rest = {name: leaf.detach() for name, leaf in forward.rest.items()}
            leaves = {name: leaf.requires_grad_() for name, leaf in rest.items()}
            leaves = {OUTPUTS: forward.outputs.requires_grad_(), **leaves}
            value = loss(leaves, piece._replace(observations=leaves[OUTPUTS]))
            slope = _grad((value,), leaves, None, create_graph=twice)
        backward = forward.backward(slope[OUTPUTS].detach())
        every = {**slope, **backward.gradient}
        slopes.append({name: every[name].detach() for name in params})
        values.append(value.detach())
        if twice:
            pieces.append(_Piece(forward, leaves, tuple(slope.values()), backward))
    return Differentiated(torch.stack(values).sum(), _summed(slopes), pieces)


class Adaptation:
    """θ'_i of some tasks, and the products with its Jacobian with respect to meta-parameters.

    Attributes:
        stages: θ_i before each inner step and after the last, stacked.
    """

    def __init__(
        self,
        inner: InnerLoop,
        meta: Params,
        pre: Sequence[Samples],
        linearised: bool = True,
    ) -> None:
        self.inner, self.meta = inner, meta
        theta, self._learned = split(meta)
        self._tasks = len(pre[0].weights)
        self._steps: list[tuple[Differentiated, StepSizes]] = []
        self._twice = linearised and not inner.settings.first_order
        self.stages: list[Params] = [repeat(theta, self._tasks)]
        for samples, rates in zip(pre, inner.step_sizes(meta), strict=True):
            params, step = adapted_once(inner, self.stages[-1], samples, rates, self._twice)
            self._steps.append((step, rates))
            self.stages.append(params)

    @property
    def adapted(self) -> Params:
        """θ'_i, stacked."""
        return self.stages[-1]

    def push(self, tangent: Params) -> Params:
        """How θ'_i change along a change of the meta-parameters, stacked."""
        theta, _ = split(tangent)
        change: Params = repeat(theta, self._tasks)
        steps = self.inner.step_sizes(tangent) if self._learned else [{}] * len(self._steps)
        for (step, rates), changed in zip(self._steps, steps, strict=True):
            bent = step.hessian(change) if self._twice else {}
            change = dict(change)
            for name in rates:
                if self._twice:
                    change[name] = change[name] - rates[name] * bent[name]
                if name in changed:
                    change[name] = change[name] - changed[name] * step.gradient[name]
        return change

    def pull(self, cotangent: Params, before: Sequence[Params] = ()) -> Params:
        """The gradient of the meta-parameters, summed over tasks, from those of θ'_i, stacked.

        Args:
            cotangent: of θ'_i.
            before: of what each inner step starts from, if there are any.
        """
        sizes: list[dict[str, Tensor]] = []
        for number, (step, rates) in reversed(list(enumerate(self._steps))):
            if self._learned:
                sizes.append(
                    {
                        name: -(step.gradient[name] * cotangent[name])
                        .sum(0)
                        .sum_to_size(rate.shape)
                        for name, rate in rates.items()
                        if isinstance(rate, Tensor)
                    }
                )
            if self._twice:
                scaled = {
                    name: rates[name] * leaf if name in rates else torch.zeros_like(leaf)
                    for name, leaf in cotangent.items()
                }
                bent = step.hessian(scaled)
                cotangent = {name: leaf - bent[name] for name, leaf in cotangent.items()}
            if before:
                cotangent = _summed([cotangent, before[number]])
        gradient = {name: leaf.sum(0) for name, leaf in cotangent.items()}
        if self._learned:
            alpha = {PREFIX + name: leaf for name, leaf in self._learned.items()}
            pulled = torch.func.vjp(self.inner.step_sizes, alpha)[1]
            gradient |= pulled(sizes[::-1])[0]
        return {name: gradient[name] for name in self.meta}


def adapted_once(
    inner: InnerLoop, params: Params, samples: Samples, rates: StepSizes, twice: bool = False
) -> tuple[Params, Differentiated]:
    """Stacked parameters after an inner step, and the step's loss."""
    policy = _policy(inner)
    loss = reinforce(Readout(policy), inner.settings.estimator)
    step = differentiate(policy, loss, params, samples, twice)
    moved = {name: params[name] - rate * step.gradient[name] for name, rate in rates.items()}
    return {**params, **moved}, step


def gradient(
    inner: InnerLoop,
    meta: Params,
    pre: Sequence[Samples],
    post: Samples,
    costed: Sequence[Samples],
    reached: PolicyLoss,
    cost: PolicyLoss,
) -> Tensor:
    """The meta-gradient and the objective, (P + 1,), in sum over tasks.

    Args:
        inner: how policies adapt.
        meta: the meta-parameters.
        pre: samples of the inner steps.
        post: samples after them.
        costed: what the cost of each inner step is measured on; empty where there is none.
        reached: what is to grow, at the adapted parameters.
        cost: what it costs, at the parameters that each inner step starts from.
    """
    policy = _policy(inner)
    readout, adaptation = Readout(policy), Adaptation(inner, meta, pre)

    def sloped(loss: PolicyLoss, params: Params, samples: Samples) -> Differentiated:
        return differentiate(policy, lambda p, s: loss(readout, p, s), params, samples)

    after = sloped(reached, adaptation.adapted, post)
    spent = [sloped(cost, *stage) for stage in zip(adaptation.stages, costed, strict=False)]
    value = after.value - sum(one.value for one in spent)
    before = [{name: -leaf for name, leaf in one.gradient.items()} for one in spent]
    return torch.cat([flatten(adaptation.pull(after.gradient, before)), value.view(1)])


def evaluate(
    inner: InnerLoop,
    meta: Params,
    pre: Sequence[Samples],
    post: Samples,
    costed: Sequence[Samples],
    reached: PolicyLoss,
    cost: PolicyLoss,
) -> Tensor:
    """The objective, and the divergence from the distributions sampled from, summed over tasks.

    The arguments are those of `gradient`.
    """
    policy = _policy(inner)
    readout, adaptation = Readout(policy), Adaptation(inner, meta, pre, linearised=False)

    def summed(params: Params, samples: Samples, *losses: PolicyLoss) -> Tensor:
        sums = []
        for piece in _pieces(samples):
            forward = forward_pass(params, piece.observations, policy.activation)
            seen = piece._replace(observations=forward.outputs)
            sums.append(torch.stack([f(readout, params, seen) for f in losses]).double())
        return torch.stack(sums).sum(0)

    value, divergence = summed(adaptation.adapted, post, reached, mean_kl)
    for params, samples in zip(adaptation.stages, costed, strict=False):
        value = value - summed(params, samples, cost)[0]
    return torch.stack([value, divergence])


def curvature(
    inner: InnerLoop, meta: Params, pre: Sequence[Samples], post: Samples
) -> Callable[[Tensor], Tensor]:
    """Products with Σ_i J_iᵀ F_i J_i over some tasks; see `MetaObjective.curvature`."""
    policy = _policy(inner)
    readout, adaptation = Readout(policy), Adaptation(inner, meta, pre)
    forwards, products = [], []
    for piece in _pieces(post):
        forward = forward_pass(adaptation.adapted, piece.observations, policy.activation)
        forwards.append(forward)
        products.append(
            gauss_newton(
                lambda leaves: readout.distribution(leaves, leaves[OUTPUTS]),
                {OUTPUTS: forward.outputs, **forward.rest},
                fisher_metric(readout, piece.weights),
            )
        )

    def product(vector: Tensor) -> Tensor:
        change = adaptation.push(unflatten(vector, meta))
        parts = []
        for forward, weighted in zip(forwards, products, strict=True):
            outputs, _ = forward.tangent(change)
            slope = weighted({OUTPUTS: outputs, **{name: change[name] for name in forward.rest}})
            backward = forward.backward(slope.pop(OUTPUTS))
            every = {**slope, **backward.gradient}
            parts.append({name: every[name] for name in change})
        return flatten(adaptation.pull(_summed(parts)))

    return product


def _pieces(samples: Samples) -> Iterator[Samples]:
    """Some of the time steps of every task at a time; losses are sums over them."""
    num_tasks, length = samples.weights.shape
    size = max(1, PIECE // num_tasks)
    for start in range(0, length, size):
        part: Samples = pytree.tree_map(
            lambda leaf, start=start: (
                leaf[:, start : start + size] if leaf.shape[1] == length else leaf
            ),
            samples,
        )
        yield part


def _summed(parts: Iterator[Params] | Sequence[Params]) -> Params:
    total, *others = parts
    for part in others:
        total = {name: leaf + part[name] for name, leaf in total.items()}
    return total


def _grad(
    out: Sequence[Tensor],
    leaves: Params,
    along: Sequence[Tensor] | None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Params:
    slopes = torch.autograd.grad(
        tuple(out),
        tuple(leaves.values()),
        along,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(leaves, slopes, strict=True))
