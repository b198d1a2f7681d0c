"""Batch normalisation by the statistics of the batch itself, of one task or of many side by side.

Many are groups of channels: inputs (M, N·F, ...), with scale and shift (N, F).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


def normalise(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise each channel, then scale and shift it.

    Args:
        inputs: (M, F, ...), or (M, N·F, ...) where scale and shift are stacked.
        scale: (F,) or (N, F).
        shift: (F,) or (N, F).
    """
    if scale.dim() == 2:
        return _batch_norm(inputs, scale.flatten(), shift.flatten())
    # torch.func.vmap through an affine batch norm gives wrong second derivatives without a word
    # (torch 2.13), and parameters of a single task are what one vmaps over
    shape = (-1, *[1] * (inputs.dim() - 2))
    return _batch_norm(inputs, None, None) * scale.view(shape) + shift.view(shape)


def _batch_norm(inputs: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return F.batch_norm(inputs, None, None, scale, shift, training=True, eps=EPSILON)


class BatchNorm(nn.Module):
    """Batch normalisation for modules that are to adapt: by the statistics of the batch itself.

    In the place of `torch.nn.BatchNorm1d` and `2d`: it keeps no running statistics, and its second
    derivatives under `vmap` are right.

    Args:
        num_features: F, the size of axis 1.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (M, F, ...), normalised, scaled and shifted."""
        return normalise(inputs, self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` with the right second derivatives under `vmap`; torch 2.13's are not."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (..., F), normalised, and then scaled and shifted by operations of their own."""
        hidden = F.layer_norm(inputs, self.normalized_shape, None, None, self.eps)
        if self.elementwise_affine:
            hidden = hidden * self.weight
            hidden = hidden if self.bias is None else hidden + self.bias
        return hidden


def normalise_and_pool(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The 2x2 maxima of `normalise`, which is never computed at full size.

    An increasing function commutes with the maximum, so that maxima of the inputs are normalised,
    by the statistics of all of them. Where large pictures are bound by memory, that is most of it.

    Args:
        inputs: (M, F, H, W), or (M, N·F, H, W) where scale and shift are stacked.
        scale: (F,) or (N, F), and not negative: where it is, give its absolute value, and the
            inputs with the opposite sign, which normalise to the same.
        shift: (F,) or (N, F).

    Returns:
        (M, F, H // 2, W // 2), or with N·F channels.
    """
    mean, variance, maxima, _ = _moments_and_maxima(inputs)
    factor = scale.reshape(1, -1, 1, 1) * torch.rsqrt(variance + EPSILON)
    return torch.addcmul(shift.reshape(1, -1, 1, 1) - mean * factor, maxima, factor)


class _MomentsAndMaxima(torch.autograd.Function):
    """Each channel's mean and variance, (1, C, 1, 1), and its 2x2 maxima.

    As one function because one picture is then filled on the way back, where torch would fill three
    and add them up.
    """

    @staticmethod
    def forward(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # what batch normalisation computes them with: two to four times as fast as torch.var_mean
        mean, variance = torch.batch_norm_update_stats(inputs, None, None, 0.0)
        maxima, places = F.max_pool2d(inputs, 2, return_indices=True)
        return mean.view(1, -1, 1, 1), variance.view(1, -1, 1, 1), maxima, places

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        mean, _, _, places = output
        ctx.mark_non_differentiable(places)
        ctx.save_for_backward(inputs[0], mean, places)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], inputs: Tensor) -> tuple[Any, tuple[int, ...]]:
        channels = inputs.movedim(in_dims[0], 1).flatten(1, 2)
        outputs = _moments_and_maxima(channels)
        return tuple(out.unflatten(1, (info.batch_size, -1)) for out in outputs), (1, 1, 1, 1)

    @staticmethod
    def backward(ctx: Any, to_mean: Tensor, to_variance: Tensor, to_maxima: Tensor, _: Any) -> Any:
        inputs, mean, places = ctx.saved_tensors
        count = inputs.numel() // inputs.shape[1]
        # d variance / dx = 2 (x - mean) / count
        slope = to_variance * (2.0 / count)
        gradient = torch.addcmul(to_mean / count - slope * mean, inputs, slope)
        flat = gradient.flatten(-2)
        flat.scatter_add_(-1, places.flatten(-2), to_maxima.flatten(-2))
        return flat.view_as(inputs)


_moments_and_maxima: Any = _MomentsAndMaxima.apply  # torch has no types for it
