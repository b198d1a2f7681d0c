"""Context parameters: further inputs of a network, which alone adapt (Zintgraf et al. 2019).

They stand among the meta-parameters for their name and their number alone: where a task begins
they are zeros, always, and the outer step learns what the network makes of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from metarl.params import Params

CONTEXT = "context"


def with_context(params: Params, size: int) -> Params:
    """The same parameters, and `context` (size,), zeros; none where the size is 0."""
    return params | {CONTEXT: torch.zeros(size)} if size else params


def beside_context(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Inputs (..., M, S) with the context (..., C) beside each, (..., M, S + C).

    As they are where the parameters have no context.
    """
    if CONTEXT not in params:
        return inputs
    context = params[CONTEXT].unsqueeze(-2).expand(*inputs.shape[:-1], -1)
    return torch.cat([inputs, context], dim=-1)


def without_context(params: Mapping[str, Tensor]) -> Params:
    """The other parameters."""
    return {name: leaf for name, leaf in params.items() if name != CONTEXT}
