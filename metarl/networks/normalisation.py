"""Batch normalisation with batch statistics, for one task or for N stacked tasks.

Stacked tasks are groups of channels: inputs (M, N·F, ...), scale and shift (N, F).
"""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarl.derivatives import ExactDerivatives
from metarl.errors import UserError

EPSILON = 1e-5


def normalise(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise each channel of (M, F, ...), then scale and shift it by (F,) each.

    Stacked over tasks, inputs are (M, N·F, ...), scale and shift (N, F).
    """
    if inputs[:, 0].numel() == 1:
        raise UserError(
            "batch normalisation needs more than one number in each channel, but there is one input"
            ", of one pixel; predict several inputs at once, or evaluate with "
            "evaluation.transductive=false, where the examples are in the batch of each input"
        )
    # vmap over tasks calls this function with the parameters of a single task
    with nullcontext() if scale.dim() == 2 else ExactDerivatives():
        return F.batch_norm(
            inputs, None, None, scale.flatten(), shift.flatten(), training=True, eps=EPSILON
        )


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` and `2d` with `track_running_stats=False`; axis 1 has `num_features`.

    Its second derivatives under `vmap` are exact, also outside of `metarl.adapt`.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, inputs: Tensor) -> Tensor:
        return normalise(inputs, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` with exact second derivatives under `vmap`, also outside of `adapt`."""

    def forward(self, inputs: Tensor) -> Tensor:
        with ExactDerivatives():
            return super().forward(inputs)


def normalise_and_pool(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """2x2 max-pooling of `normalise(inputs, scale, shift)`.

    An increasing function commutes with the maximum: max(a x + b) = a max(x) + b for a ≥ 0. Hence
    the inputs are pooled first, and the normalised image of full size is never stored. For a
    channel with a negative scale, change the sign of the scale and of the inputs; the result is the
    same.
    """
    mean, variance, maxima, _ = _moments_and_maxima(inputs)
    # γ (max − μ) / √(σ² + ε) + β, as one product and one sum
    factor = scale.reshape(1, -1, 1, 1) * torch.rsqrt(variance + EPSILON)
    return torch.addcmul(shift.reshape(1, -1, 1, 1) - mean * factor, maxima, factor)


class _MomentsAndMaxima(torch.autograd.Function):
    """Each channel's mean and variance, (1, C, 1, 1), and its 2x2 maxima.

    One function, because its backward pass fills one gradient image; separate operations fill
    three and add them.
    """

    @staticmethod
    def forward(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # the biased variance, as in training; two to four times as fast as torch.var_mean
        mean, variance = torch.batch_norm_update_stats(inputs, None, None, 0.0)
        maxima, indices = F.max_pool2d(inputs, 2, return_indices=True)
        return mean.view(1, -1, 1, 1), variance.view(1, -1, 1, 1), maxima, indices

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        mean, _, _, indices = output
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(inputs[0], mean, indices)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], inputs: Tensor) -> tuple[Any, tuple[int, ...]]:
        # tasks become groups of channels, so that one call normalises all of them
        channels = inputs.movedim(in_dims[0], 1).flatten(1, 2)
        outputs = _moments_and_maxima(channels)
        return tuple(out.unflatten(1, (info.batch_size, -1)) for out in outputs), (1, 1, 1, 1)

    @staticmethod
    def backward(
        ctx: Any, grad_mean: Tensor, grad_variance: Tensor, grad_maxima: Tensor, _: Any
    ) -> Any:
        inputs, mean, indices = ctx.saved_tensors
        count = inputs.numel() // inputs.shape[1]
        # ∂mean/∂x = 1 / count, ∂variance/∂x = 2 (x − mean) / count, in one pass over the image
        factor = grad_variance * (2.0 / count)
        gradient = torch.addcmul(grad_mean / count - factor * mean, inputs, factor)
        flat = gradient.flatten(-2)
        flat.scatter_add_(-1, indices.flatten(-2), grad_maxima.flatten(-2))  # ∂max/∂x = [x is max]
        return flat.view_as(inputs)


_moments_and_maxima: Any = _MomentsAndMaxima.apply  # torch has no types for it
