"""Context parameters: additional inputs of a network, the only ones adapted (Zintgraf et al. 2019).

They are part of the meta-parameters for their name and their size only: adaptation starts from
zeros on every task, and the outer loop learns how the network uses them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from metarl.config.sections import MethodSection, PositiveInt
from metarl.params import Params

CONTEXT = "context"
UNUSED = {"inner.adapt": "which adapts context parameters only"}


class ContextSettings(MethodSection):
    """CAVIA: `context` is the number of context parameters.

    Their step size is `inner.step_size`. It is larger than for a whole network, because they are
    few and far from the output.
    """

    context: PositiveInt = 5


def context_size(method: MethodSection) -> int:
    """The number of context parameters."""
    assert isinstance(method, ContextSettings)
    return method.context


def with_context(params: Params, size: int) -> Params:
    """Add `context` (size,), zeros, unless the size is 0."""
    return params | {CONTEXT: torch.zeros(size)} if size else params


def concat_context(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Append the context (..., C) to each input (..., M, S): (..., M, S + C).

    Parameters without a context leave the inputs unchanged.
    """
    if CONTEXT not in params:
        return inputs
    context = params[CONTEXT].unsqueeze(-2).expand(*inputs.shape[:-1], -1)
    return torch.cat([inputs, context], dim=-1)


def without_context(params: Mapping[str, Tensor]) -> Params:
    """All parameters except the context."""
    return {name: leaf for name, leaf in params.items() if name != CONTEXT}
