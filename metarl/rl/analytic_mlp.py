"""Analytic meta-gradients of multilayer perceptrons.

The network is differentiated by `metarl.networks.mlp_derivatives`, the loss of its few outputs by
autograd. The results are exact; `metarl.rl.meta_gradient.Autograd` computes them for any policy.

With θ_0 = θ, an inner step is θ_{k+1} = θ_k − α_k ⊙ ∇L_k(θ_k). Its Jacobian is I − diag(α_k) H_k,
with the Hessian H_k of the inner loss L_k at θ_k, which is symmetric. Derivatives pass through it
by Hessian-vector products:

    forward  (jvp)   θ̇_{k+1} = θ̇_k − α_k ⊙ H_k θ̇_k − α̇_k ⊙ ∇L_k
    backward (vjp)   v ← v − H_k (α_k ⊙ v),   ∂/∂α_k = −∇L_k ⊙ v

FOMAML replaces H_k by 0. All functions work on a chunk of tasks, with parameters stacked over them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.networks.mlp_derivatives import BackwardPass, ForwardPass, forward_pass
from metarl.params import Params, flatten, repeat, unflatten, with_prefix
from metarl.rl.gauss_newton import fisher_metric, gauss_newton, vjp
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.losses import Loss, inner_loss, mean_kl
from metarl.rl.policies import (
    ActionDistribution,
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    Policy,
    PolicyHead,
)
from metarl.rl.trajectories import Samples
from metarl.step_sizes import PREFIX, StepSizes, split

BLOCK_SAMPLES = 2000  # samples differentiated at once: their temporaries fit into the CPU cache
OUTPUTS = "outputs"

MLPPolicy = GaussianPolicy | CategoricalPolicy
PolicyLoss = Callable[[ActionDistribution, Params, Samples], Tensor]


class TaskData(NamedTuple):
    """Samples of a chunk of tasks.

    Attributes:
        pre: the samples of each inner step.
        post: samples after adaptation.
        penalty: samples of the penalty of each inner step; empty without a penalty.
    """

    pre: list[Samples]
    post: Samples
    penalty: list[Samples]


class ObjectiveTerms(Protocol):
    """The meta-objective of a task: post_objective(θ_K) − Σ_k pre_penalty(θ_k)."""

    def post_objective(self, policy: ActionDistribution, params: Params, post: Samples) -> Tensor:
        """The term of the adapted parameters."""

    def pre_penalty(self, policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
        """The term of the parameters before an inner step."""


def supports(policy: Policy) -> TypeGuard[MLPPolicy]:
    """Whether a policy's network is a plain MLP; a subclass may use a different network."""
    if type(policy) not in (GaussianPolicy, CategoricalPolicy, MultiCategoricalPolicy):
        return False
    return policy.network is None and not policy.context  # type: ignore[attr-defined] # of these


@dataclass(frozen=True)
class AnalyticMLP:
    """See `metarl.rl.meta_gradient.MetaGradient`; for policies that `supports` accepts."""

    inner: InnerLoop

    @property
    def _policy(self) -> MLPPolicy:
        assert supports(self.inner.policy)
        return self.inner.policy

    def adapt_chunk(
        self, params: Params, samples: Samples, step_sizes: StepSizes, state: Params, step: int
    ) -> tuple[Params, Params]:
        return inner_step(self.inner, self._policy, params, samples, step_sizes)[0], state

    def gradient(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        readout = PolicyHead(self._policy)
        adaptation = Adaptation(self.inner, self._policy, meta, data)

        def grad_of(term: PolicyLoss, params: Params, samples: Samples) -> LossGradient:
            return loss_gradient(self._policy, lambda p, s: term(readout, p, s), params, samples)

        post = grad_of(terms.post_objective, adaptation.adapted, data.post)
        # ∂/∂θ_k of each penalty joins the backward pass where it reaches θ_k; θ_K has none
        penalties = [
            grad_of(terms.pre_penalty, params, samples)
            for params, samples in zip(adaptation.params, data.penalty, strict=False)
        ]
        value = post.value - sum(penalty.value for penalty in penalties)
        cotangents = [
            {name: -leaf for name, leaf in penalty.gradient.items()} for penalty in penalties
        ]
        gradient = adaptation.vjp(post.gradient, cotangents)
        return torch.cat([flatten(gradient), value.view(1)])

    def value_and_kl(self, terms: ObjectiveTerms, meta: Params, data: TaskData) -> Tensor:
        readout = PolicyHead(self._policy)
        # a line search needs values only: the inner steps keep no second derivatives
        adaptation = Adaptation(self.inner, self._policy, meta, data, linearised=False)

        def sums(params: Params, samples: Samples, *losses: PolicyLoss) -> Tensor:
            block_sums = []
            for block in _blocks(samples):
                forward = forward_pass(params, block.observations, self._policy.activation)
                outputs = block._replace(observations=forward.outputs)  # the input of `readout`
                values = [loss(readout, params, outputs) for loss in losses]
                block_sums.append(torch.stack(values).double())
            return torch.stack(block_sums).sum(0)

        value, kl = sums(adaptation.adapted, data.post, terms.post_objective, mean_kl)
        for params, samples in zip(adaptation.params, data.penalty, strict=False):
            value = value - sums(params, samples, terms.pre_penalty)[0]
        return torch.stack([value, kl])

    def curvature(self, meta: Params, data: TaskData) -> Callable[[Tensor], Tensor]:
        readout = PolicyHead(self._policy)
        adaptation = Adaptation(self.inner, self._policy, meta, data)
        forwards, products = [], []
        for block in _blocks(data.post):
            forward = forward_pass(adaptation.adapted, block.observations, self._policy.activation)
            forwards.append(forward)
            # F of the few outputs by autograd, with the parameters outside the layers (log σ) as
            # further outputs of the network
            products.append(
                gauss_newton(
                    lambda leaves: readout.distribution(leaves, leaves[OUTPUTS]),
                    {OUTPUTS: forward.outputs, **forward.other_params},
                    fisher_metric(readout, block.weights),
                )
            )

        def product(vector: Tensor) -> Tensor:
            # Jᵀ F J v, with J = (outputs by θ'_i) · (θ'_i by θ)
            tangent = adaptation.jvp(unflatten(vector, meta))  # θ̇'_i
            block_grads = []
            for forward, fisher in zip(forwards, products, strict=True):
                outputs, _ = forward.jvp(tangent)  # ẏ
                grad = fisher(
                    {OUTPUTS: outputs, **{name: tangent[name] for name in forward.other_params}}
                )
                backward = forward.backward(grad.pop(OUTPUTS))  # (∂y/∂θ'_i)ᵀ F ẏ
                grads = {**grad, **backward.gradient}
                block_grads.append({name: grads[name] for name in tangent})
            return flatten(adaptation.vjp(_sum(block_grads)))

        return product


class Adaptation:
    """The adapted parameters of a chunk of tasks, and products with their Jacobian.

    Attributes:
        params: θ_k before each inner step and after the last, stacked over tasks.
    """

    def __init__(
        self,
        inner: InnerLoop,
        policy: MLPPolicy,
        meta: Params,
        data: TaskData,
        linearised: bool = True,
    ) -> None:
        self.inner, self.meta = inner, meta
        theta, self._learned = split(meta)
        self._num_tasks = len(data.post.weights)
        self._steps: list[tuple[LossGradient, StepSizes]] = []
        self._second_order = linearised and not inner.settings.first_order
        self.params: list[Params] = [repeat(theta, self._num_tasks)]
        for samples, alpha in zip(data.pre, inner.step_sizes(meta), strict=True):
            params, loss = inner_step(
                inner, policy, self.params[-1], samples, alpha, self._second_order
            )
            self._steps.append((loss, alpha))
            self.params.append(params)

    @property
    def adapted(self) -> Params:
        """θ'_i, stacked."""
        return self.params[-1]

    def jvp(self, tangent: Params) -> Params:
        """The derivative of θ'_i along a direction of the meta-parameters, stacked."""
        theta, _ = split(tangent)
        change: Params = repeat(theta, self._num_tasks)
        # step sizes are linear in their parameters: their tangents are those of the same function
        alpha_tangents = (
            self.inner.step_sizes(tangent) if self._learned else [{}] * len(self._steps)
        )
        for (loss, alpha), alpha_tangent in zip(self._steps, alpha_tangents, strict=True):
            hvp = loss.hvp(change) if self._second_order else {}
            change = dict(change)
            for name in alpha:
                if self._second_order:  # − α H θ̇
                    change[name] = change[name] - alpha[name] * hvp[name]
                if name in alpha_tangent:  # − α̇ ∇L
                    change[name] = change[name] - alpha_tangent[name] * loss.gradient[name]
        return change

    def vjp(self, cotangent: Params, penalty_cotangents: Sequence[Params] = ()) -> Params:
        """The gradient with respect to the meta-parameters, summed over tasks.

        Args:
            cotangent: the gradient with respect to θ'_i, stacked.
            penalty_cotangents: gradients with respect to θ_k before each inner step, if any.
        """
        alpha_grads: list[dict[str, Tensor]] = []
        for step, (loss, alpha) in reversed(list(enumerate(self._steps))):
            if self._learned:  # ∂/∂α = −∇L ⊙ v, summed over what shares a step size
                grads = loss.gradient
                alpha_grads.append(
                    {
                        name: -(grads[name] * cotangent[name]).sum(0).sum_to_size(size.shape)
                        for name, size in alpha.items()
                        if isinstance(size, Tensor)
                    }
                )
            if self._second_order:  # v ← v − H (α ⊙ v); parameters that do not adapt have α = 0
                scaled = {
                    name: alpha[name] * leaf if name in alpha else torch.zeros_like(leaf)
                    for name, leaf in cotangent.items()
                }
                hvp = loss.hvp(scaled)
                cotangent = {name: leaf - hvp[name] for name, leaf in cotangent.items()}
            if penalty_cotangents:
                cotangent = _sum([cotangent, penalty_cotangents[step]])
        gradient = {name: leaf.sum(0) for name, leaf in cotangent.items()}
        if self._learned:
            learned = with_prefix(self._learned, PREFIX)
            step_sizes_vjp = torch.func.vjp(self.inner.step_sizes, learned)[1]
            gradient |= step_sizes_vjp(alpha_grads[::-1])[0]
        return {name: gradient[name] for name in self.meta}


@dataclass(frozen=True)
class _Block:
    forward: ForwardPass
    leaves: Params  # the network's outputs, and the parameters outside its layers
    grads: tuple[Tensor, ...]  # of the loss, with respect to `leaves`
    backward: BackwardPass


@dataclass(frozen=True)
class LossGradient:
    """A loss and its gradient at stacked parameters.

    Attributes:
        value: sum of the loss over tasks.
        gradient: of each task's loss, stacked.
        blocks: intermediate values for `hvp`.
    """

    value: Tensor
    gradient: Params
    blocks: list[_Block]

    def hvp(self, direction: Mapping[str, Tensor]) -> Params:
        """H v: each task's Hessian times a direction, stacked."""
        return _sum(self._block_hvp(block, direction) for block in self.blocks)

    def _block_hvp(self, block: _Block, direction: Mapping[str, Tensor]) -> Params:
        outputs_tangent, hidden_tangents = block.forward.jvp(direction)
        other_leaves = {name: direction[name] for name in block.leaves if name != OUTPUTS}
        # derivative of the loss's gradient with respect to its own arguments along their tangents;
        # this Hessian is symmetric, so that reverse mode computes the product with it
        tangents = (outputs_tangent, *other_leaves.values())
        products = vjp(block.grads, tuple(block.leaves.values()), tangents)
        hvp = dict(zip(block.leaves, products, strict=True))
        layers = block.backward.jvp(direction, hidden_tangents, hvp.pop(OUTPUTS))
        all_leaves = {**layers, **hvp}
        return {name: all_leaves[name] for name in self.gradient}


def loss_gradient(
    policy: MLPPolicy, loss: Loss, params: Params, samples: Samples, create_hvp: bool = False
) -> LossGradient:
    """The gradient of a loss.

    Args:
        policy: the policy.
        loss: a function of the network's outputs, which `samples.observations` hold when it is
            called, and of the parameters outside the layers.
        params: stacked.
        samples: (N, M).
        create_hvp: keep what `LossGradient.hvp` needs.
    """
    values, blocks, gradients = [], [], []
    for block in _blocks(samples):
        forward = forward_pass(params, block.observations, policy.activation)
        with torch.enable_grad():
            other_leaves = {name: leaf.detach() for name, leaf in forward.other_params.items()}
            leaves = {name: leaf.requires_grad_() for name, leaf in other_leaves.items()}
            leaves = {OUTPUTS: forward.outputs.requires_grad_(), **leaves}
            value = loss(leaves, block._replace(observations=leaves[OUTPUTS]))
            # for `hvp`, the gradient is a function of the leaves, whose graph is kept
            inputs = tuple(leaves.values())
            gradient = vjp([value], inputs, create_graph=create_hvp, retain_graph=create_hvp)
            grads = dict(zip(leaves, gradient, strict=True))
        backward = forward.backward(grads[OUTPUTS].detach())
        all_leaves = {**grads, **backward.gradient}
        gradients.append({name: all_leaves[name].detach() for name in params})
        values.append(value.detach())
        if create_hvp:
            blocks.append(_Block(forward, leaves, tuple(grads.values()), backward))
    return LossGradient(torch.stack(values).sum(), _sum(gradients), blocks)


def inner_step(
    inner: InnerLoop,
    policy: MLPPolicy,
    params: Params,
    samples: Samples,
    step_sizes: StepSizes,
    create_hvp: bool = False,
) -> tuple[Params, LossGradient]:
    """Stacked parameters after an inner step, and the step's loss."""
    task_loss = inner_loss(PolicyHead(policy), inner.settings.estimator)
    loss = loss_gradient(policy, task_loss, params, samples, create_hvp)
    adapted = {name: params[name] - size * loss.gradient[name] for name, size in step_sizes.items()}
    return {**params, **adapted}, loss


def _blocks(samples: Samples) -> Iterator[Samples]:
    """Blocks of time steps of all tasks; losses are sums over time steps."""
    num_tasks, length = samples.weights.shape
    # blocks divide time, not tasks, so that stacked products stay as large as they are
    size = max(1, BLOCK_SAMPLES // num_tasks)
    for start in range(0, length, size):
        block: Samples = pytree.tree_map(
            lambda leaf, start=start: (
                # leaves that depend on the task only, such as (N, 1, A), belong to every block
                leaf[:, start : start + size] if leaf.shape[1] == length else leaf
            ),
            samples,
        )
        yield block


def _sum(trees: Iterator[Params] | Sequence[Params]) -> Params:
    total, *rest = trees
    for tree in rest:
        total = {name: leaf + tree[name] for name, leaf in total.items()}
    return total
