"""First and second derivatives of `mlp`, written by hand: matrix products and little else.

Backward of a forward pass, its derivative along a direction of the parameters, and that of the
backward pass (Pearlmutter 1994, R{·}), for parameters stacked over tasks. Autograd finds the same
from a graph whose nodes it visits one by one; here what a pass computed is kept once, and every
derivative at the same point takes it from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.networks.layers import depth
from metarl.params import Params


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass of `mlp`, without normalisation.

    Attributes:
        params: stacked over tasks; weights (N, F, F'), biases (N, F').
        activation: `relu` or `tanh`.
        inputs: of each layer, (N, M, F): the observations first.
        outputs: (N, M, O).
    """

    params: Mapping[str, Tensor]
    activation: str
    inputs: list[Tensor]
    outputs: Tensor

    @property
    def rest(self) -> Params:
        """The parameters that belong to no layer."""
        ours = {f"{kind}{layer}" for layer in self._layers for kind in ("weight", "bias")}
        return {name: leaf for name, leaf in self.params.items() if name not in ours}

    @property
    def _layers(self) -> range:
        return range(len(self.inputs))

    @property
    def _last(self) -> int:
        return len(self.inputs) - 1

    def backward(self, cotangent: Tensor) -> "BackwardPass":
        """The gradient of Σ cotangent · outputs, with a cotangent (N, M, O)."""
        gradient: Params = {}
        arrived, reaching = [cotangent], list[Tensor]()
        for layer in reversed(self._layers):
            hidden = self.inputs[layer]
            gradient[f"weight{layer}"] = _outer(hidden, arrived[-1], layer == self._last)
            gradient[f"bias{layer}"] = arrived[-1].sum(1)
            if layer:
                above = torch.bmm(arrived[-1], self.params[f"weight{layer}"].mT)
                if self.activation == "tanh":  # alone needs it again: the second derivative
                    reaching.append(above)
                arrived.append(_through(self.activation, above, hidden))
        return BackwardPass(self, gradient, arrived[::-1], reaching[::-1])

    def tangent(self, direction: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """How the outputs change along a direction, stacked parameters, and each layer's inputs.

        The inputs of the first layer don't: the list begins with those of the second.
        """
        changes: list[Tensor] = []
        for layer in self._layers:
            narrow, weight = layer == self._last, self.params[f"weight{layer}"]
            moved = direction[f"weight{layer}"], direction[f"bias{layer}"]
            change = _affine(self.inputs[layer], *moved, narrow)
            if layer and narrow:
                change += _narrow(changes[-1], weight)
            elif layer:
                change.baddbmm_(changes[-1], weight)
            if layer < self._last:
                changes.append(_through_(self.activation, change, self.inputs[layer + 1]))
        return change, changes


@dataclass(frozen=True)
class BackwardPass:
    """A backward pass.

    Attributes:
        forward: what it went back through.
        gradient: of every layer's parameters, stacked.
        arrived: the cotangent of each layer's outputs before activation, (N, M, F').
        reaching: that of each hidden layer's activations, where a derivative asks for it.
    """

    forward: ForwardPass
    gradient: Params
    arrived: list[Tensor]
    reaching: list[Tensor]

    def tangent(
        self, direction: Mapping[str, Tensor], changes: list[Tensor], cotangent: Tensor
    ) -> Params:
        """How the gradient changes along a direction.

        Args:
            direction: stacked parameters.
            changes: of the layers' inputs, as `ForwardPass.tangent` tells them.
            cotangent: how the outputs' cotangent changes, (N, M, O).
        """
        forward, change = self.forward, {}
        for layer in reversed(forward._layers):
            hidden, arrived = forward.inputs[layer], self.arrived[layer]
            weight = _outer(hidden, cotangent, layer == forward._last)
            if layer:
                weight = weight + _outer(changes[layer - 1], arrived, layer == forward._last)
            change[f"weight{layer}"], change[f"bias{layer}"] = weight, cotangent.sum(1)
            if layer:
                above = torch.bmm(cotangent, forward.params[f"weight{layer}"].mT)
                above.baddbmm_(arrived, direction[f"weight{layer}"].mT)
                cotangent = _through_(forward.activation, above, hidden)
                if forward.activation == "tanh":
                    bend = self.reaching[layer - 1] * hidden * changes[layer - 1]
                    cotangent.sub_(bend, alpha=2.0)
        return change


def forward_pass(params: Mapping[str, Tensor], inputs: Tensor, activation: str) -> ForwardPass:
    """`mlp` at inputs (N, M, S), with what its derivatives need."""
    each, last = [inputs], depth(params) - 1
    for layer in range(last):
        hidden = _affine(each[-1], params[f"weight{layer}"], params[f"bias{layer}"])
        each.append(torch.relu_(hidden) if activation == "relu" else torch.tanh_(hidden))
    outputs = _affine(each[-1], params[f"weight{last}"], params[f"bias{last}"], narrow=True)
    return ForwardPass(params, activation, each, outputs)


def _affine(inputs: Tensor, weight: Tensor, bias: Tensor, narrow: bool = False) -> Tensor:
    """Inputs times weight plus bias.

    A product of few columns is many times faster as its transpose, which has few rows.
    """
    if narrow:
        return (_narrow(inputs, weight) + bias.unsqueeze(1)).contiguous()
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight)


def _narrow(inputs: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(weight.mT.contiguous(), inputs.mT).mT


def _outer(inputs: Tensor, cotangent: Tensor, narrow: bool = False) -> Tensor:
    """The gradient of a weight: Σ over samples of inputs times cotangents."""
    if narrow:
        return torch.bmm(cotangent.mT, inputs).mT
    return torch.bmm(inputs.mT, cotangent)


def _through(activation: str, cotangent: Tensor, activated: Tensor) -> Tensor:
    """The cotangent times the activation's slope, which what was activated tells."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(cotangent, activated, 0.0)  # type: ignore[no-any-return]
    return torch.ops.aten.tanh_backward(cotangent, activated)  # type: ignore[no-any-return]


def _through_(activation: str, cotangent: Tensor, activated: Tensor) -> Tensor:
    """The same in place."""
    if activation == "relu":
        torch.ops.aten.threshold_backward.grad_input(
            cotangent, activated, 0.0, grad_input=cotangent
        )
    else:
        torch.ops.aten.tanh_backward.grad_input(cotangent, activated, grad_input=cotangent)
    return cotangent
