"""Corrections of torch operations whose second derivatives are wrong or missing (torch 2.13).

Fused normalisation: for y = w ⊙ (x − μ(x)) / σ(x) + b, the gradient ∂f/∂w = Σ ∂f/∂y ⊙ (x − μ) / σ
depends on x through μ and σ as well. Under `vmap`, torch takes both for constants, and ∂²f/∂w∂x is
silently wrong. With scale and shift as separate operations it is exact.

Weight normalisation w = g v / ‖v‖: the gradient takes ‖v‖ for a constant, with and without `vmap`.

Attention: the fused kernels have no second derivative; the composite of products and softmax does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metarl.errors import UserError

# functions with a fused scale, and the position of `weight`, which `bias` follows
NORMALISATIONS: dict[Callable[..., Any], int] = {
    F.layer_norm: 2,
    torch.layer_norm: 2,
    F.batch_norm: 3,
    torch.batch_norm: 1,
    F.instance_norm: 3,
    torch.instance_norm: 1,
}
RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")


class ExactDerivatives(TorchFunctionMode):
    """Within this context, derivatives of torch's layers under `vmap` are exact, or an error.

    Raises:
        UserError: if `vmap` does not support a recurrent layer.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        # modules call the functions of torch.nn.functional, which call those of torch inside
        if func in NORMALISATIONS:
            return _separate_scale(func, list(args), keywords)
        if func is torch._weight_norm:
            return _weight_norm(*args, **keywords)
        if func is F.scaled_dot_product_attention:
            return torch._scaled_dot_product_attention_math(*args, **keywords)[0]
        if func is F.multi_head_attention_forward and not keywords.get("need_weights", True):
            # without weights it would call the fused kernel, which this mode does not see inside
            return func(*args, **{**keywords, "need_weights": True})[0], None
        layer = getattr(func, "__name__", "")
        if layer.removesuffix("_cell") in RECURRENT:
            try:
                # under vmap its forward fails and its gradient does not: it is refused in both
                if layer in RECURRENT and _is_batched(args):
                    raise RuntimeError("no batching rule")
                return func(*args, **keywords)
            except RuntimeError as error:
                raise UserError(
                    f"torch.{layer} raised RuntimeError ({str(error).splitlines()[0]}); vmap does "
                    "not support recurrent layers: loop over the tasks, or write the step with "
                    "torch.nn.Linear"
                ) from error
        return func(*args, **keywords)


def _is_batched(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_batched, value))
    # under `vmap` a tensor hides its task axis
    return isinstance(value, Tensor) and torch.func.debug_unwrap(value).dim() > value.dim()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    # w = g v / ‖v‖, by operations whose derivatives torch takes
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _separate_scale(func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    scale_and_shift: list[Tensor | None] = []
    for position, name in enumerate(("weight", "bias"), NORMALISATIONS[func]):
        if position < len(args):  # None leaves the kernel to normalise only
            scale_and_shift.append(args[position])
            args[position] = None
        else:
            scale_and_shift.append(kwargs.get(name))
            kwargs[name] = None
    result = func(*args, **kwargs)
    # layer normalisation scales the last axes, the others axis 1
    per_channel = func.__name__ != "layer_norm"
    scale, shift = (
        leaf.view(-1, *[1] * (result.dim() - 2)) if per_channel and leaf is not None else leaf
        for leaf in scale_and_shift
    )
    result = result if scale is None else result * scale
    return result if shift is None else result + shift
