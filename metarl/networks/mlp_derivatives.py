"""Analytic first and second derivatives of `mlp`, for parameters stacked over tasks.

With activations h_l, pre-activations z_l, an activation function φ and a scalar f of the outputs:

    forward    h_0 = x,  z_l = h_l W_l + b_l,  h_{l+1} = φ(z_l),  outputs y = z_L
    backward   δ_L = ∂f/∂y,  δ_l = ∂f/∂z_l = (δ_{l+1} W_{l+1}ᵀ) ⊙ φ'(z_l)
               ∂f/∂W_l = h_lᵀ δ_l,  ∂f/∂b_l = Σ_m δ_l[m]

The derivative of both along a direction (Ẇ, ḃ), Pearlmutter's R-operator (1994), as a dot:

    forward    ḣ_0 = 0,  ż_l = ḣ_l W_l + h_l Ẇ_l + ḃ_l,  ḣ_{l+1} = φ'(z_l) ⊙ ż_l
    backward   δ̇_l = (δ̇_{l+1} W_{l+1}ᵀ + δ_{l+1} Ẇ_{l+1}ᵀ) ⊙ φ'(z_l)
                     + (δ_{l+1} W_{l+1}ᵀ) ⊙ φ''(z_l) ⊙ ż_l
               (∂f/∂W_l)˙ = h_lᵀ δ̇_l + ḣ_lᵀ δ_l,  (∂f/∂b_l)˙ = Σ_m δ̇_l[m]

φ' and φ'' follow from h alone: for tanh, φ' = 1 − h² and φ'' ż = −2 h φ' ż = −2 h ḣ; for ReLU,
φ' = [h > 0] and φ'' = 0. Autograd would build and traverse a graph for each derivative; here the
intermediate values of a pass are stored once and shared by all derivatives at the same point.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.networks.layers import depth
from metarl.params import Params


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass of `mlp`, without normalisation."""

    params: Mapping[str, Tensor]  # stacked over tasks; weights (N, F, F'), biases (N, F')
    activation: str  # `relu` or `tanh`
    inputs: list[Tensor]  # h_l, the input of each layer, (N, M, F); h_0 are the observations
    outputs: Tensor  # y, (N, M, O)

    @property
    def other_params(self) -> Params:
        """The parameters that belong to no layer."""
        layer_params = {f"{kind}{layer}" for layer in self._layers for kind in ("weight", "bias")}
        return {name: leaf for name, leaf in self.params.items() if name not in layer_params}

    @property
    def _layers(self) -> range:
        return range(len(self.inputs))

    @property
    def _last(self) -> int:
        return len(self.inputs) - 1

    def backward(self, grad_outputs: Tensor) -> "BackwardPass":
        """The gradient of f for ∂f/∂y = `grad_outputs` (N, M, O)."""
        gradient: Params = {}
        # from the last layer to the first; reversed at the end, to be indexed by layer
        grad_preact, grad_act = [grad_outputs], list[Tensor]()
        for layer in reversed(self._layers):
            hidden, delta = self.inputs[layer], grad_preact[-1]
            gradient[f"weight{layer}"] = _weight_grad(hidden, delta, layer == self._last)
            gradient[f"bias{layer}"] = delta.sum(1)
            if layer:
                grad_hidden = torch.bmm(delta, self.params[f"weight{layer}"].mT)  # δ_l W_lᵀ
                if self.activation == "tanh":  # stored for the φ'' term, which is 0 for ReLU
                    grad_act.append(grad_hidden)
                grad_preact.append(_act_backward(self.activation, grad_hidden, hidden))
        return BackwardPass(self, gradient, grad_preact[::-1], grad_act[::-1])

    def jvp(self, direction: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Derivatives along a direction in parameter space (stacked parameters).

        Returns:
            ẏ, (N, M, O), and ḣ_l of every layer but the first, whose ḣ_0 is 0.
        """
        # ḣ_0 = 0: observations do not depend on the parameters
        hidden_tangents: list[Tensor] = []
        for layer in self._layers:
            narrow, weight = layer == self._last, self.params[f"weight{layer}"]
            weight_tangent, bias_tangent = direction[f"weight{layer}"], direction[f"bias{layer}"]
            # h Ẇ + ḃ, to which ḣ W is added in place
            tangent = _affine(self.inputs[layer], weight_tangent, bias_tangent, narrow)
            if layer and narrow:
                tangent += _narrow_product(hidden_tangents[-1], weight)
            elif layer:
                tangent.baddbmm_(hidden_tangents[-1], weight)
            if layer < self._last:  # ḣ = φ' ⊙ ż is the same product as in the backward pass
                activated = self.inputs[layer + 1]
                hidden_tangents.append(_act_backward_(self.activation, tangent, activated))
        return tangent, hidden_tangents


@dataclass(frozen=True)
class BackwardPass:
    """The backward pass of a forward pass."""

    forward: ForwardPass
    gradient: Params  # ∂f/∂W_l and ∂f/∂b_l of all layers, stacked
    grad_preact: list[Tensor]  # δ_l = ∂f/∂z_l of each layer, (N, M, F')
    grad_act: list[Tensor]  # δ_l W_lᵀ = ∂f/∂h_l of each layer but the first; for tanh only

    def jvp(
        self,
        direction: Mapping[str, Tensor],
        hidden_tangents: list[Tensor],
        grad_outputs_tangent: Tensor,
    ) -> Params:
        """The derivative of the gradient along a direction in parameter space.

        `hidden_tangents` are ḣ_l, as returned by `ForwardPass.jvp`. `grad_outputs_tangent` is δ̇_L,
        the derivative of ∂f/∂y along the direction, (N, M, O).
        """
        forward, tangents, delta_tangent = self.forward, dict[str, Tensor](), grad_outputs_tangent
        for layer in reversed(forward._layers):
            hidden, delta = forward.inputs[layer], self.grad_preact[layer]
            weight_tangent = _weight_grad(hidden, delta_tangent, layer == forward._last)  # hᵀ δ̇
            if layer:  # + ḣᵀ δ
                weight_tangent = weight_tangent + _weight_grad(
                    hidden_tangents[layer - 1], delta, layer == forward._last
                )
            tangents[f"weight{layer}"] = weight_tangent
            tangents[f"bias{layer}"] = delta_tangent.sum(1)
            if layer:
                # (δ̇ Wᵀ + δ Ẇᵀ) ⊙ φ'
                grad_tangent = torch.bmm(delta_tangent, forward.params[f"weight{layer}"].mT)
                grad_tangent.baddbmm_(delta, direction[f"weight{layer}"].mT)
                delta_tangent = _act_backward_(forward.activation, grad_tangent, hidden)
                if forward.activation == "tanh":  # + (δ Wᵀ) ⊙ φ'' ż, where φ'' ż = −2 h ḣ
                    product = self.grad_act[layer - 1] * hidden * hidden_tangents[layer - 1]
                    delta_tangent.sub_(product, alpha=2.0)
        return tangents


def forward_pass(params: Mapping[str, Tensor], inputs: Tensor, activation: str) -> ForwardPass:
    """Apply `mlp` to inputs (N, M, S) and keep what its derivatives need."""
    layer_inputs, last = [inputs], depth(params) - 1
    for layer in range(last):
        hidden = _affine(layer_inputs[-1], params[f"weight{layer}"], params[f"bias{layer}"])
        layer_inputs.append(torch.relu_(hidden) if activation == "relu" else torch.tanh_(hidden))
    weight, bias = params[f"weight{last}"], params[f"bias{last}"]
    outputs = _affine(layer_inputs[-1], weight, bias, narrow=True)
    return ForwardPass(params, activation, layer_inputs, outputs)


def _affine(inputs: Tensor, weight: Tensor, bias: Tensor, narrow: bool = False) -> Tensor:
    """h W + b; `narrow` for a W of few columns."""
    if narrow:
        return (_narrow_product(inputs, weight) + bias.unsqueeze(1)).contiguous()
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight)


def _narrow_product(inputs: Tensor, weight: Tensor) -> Tensor:
    # a product with few columns is several times slower than its transpose (Wᵀ hᵀ)ᵀ
    return torch.bmm(weight.mT.contiguous(), inputs.mT).mT


def _weight_grad(inputs: Tensor, grad_preact: Tensor, narrow: bool = False) -> Tensor:
    """hᵀ δ, summed over samples."""
    if narrow:
        return torch.bmm(grad_preact.mT, inputs).mT
    return torch.bmm(inputs.mT, grad_preact)


def _act_backward(activation: str, grad: Tensor, activated: Tensor) -> Tensor:
    """Gradient times φ', which is computed from the activations h = φ(z)."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad, activated, 0.0)  # type: ignore[no-any-return]
    return torch.ops.aten.tanh_backward(grad, activated)  # type: ignore[no-any-return]


def _act_backward_(activation: str, grad: Tensor, activated: Tensor) -> Tensor:
    """Like `_act_backward`, in place."""
    if activation == "relu":
        torch.ops.aten.threshold_backward.grad_input(grad, activated, 0.0, grad_input=grad)
    else:
        torch.ops.aten.tanh_backward.grad_input(grad, activated, grad_input=grad)
    return grad
