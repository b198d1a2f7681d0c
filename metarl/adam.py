"""Adam (Kingma and Ba, 2015) as a function of parameters, gradient and its own state."""

import torch
from torch import Tensor

from metarl.params import Params, flatten, unflatten


def adam_step(
    params: Params, gradient: Tensor, state: Params, learning_rate: float
) -> tuple[Params, Params]:
    """One step down a gradient.

    Args:
        params: to start from.
        gradient: (P,).
        state: as a previous call returned it; empty at first.
        learning_rate: the step's size.

    Returns:
        The new parameters, and the new state.
    """
    vector = flatten(params).requires_grad_()
    vector.grad = gradient
    adam = torch.optim.Adam([vector], lr=learning_rate)
    if state:
        adam.state[vector] = {name: value.clone() for name, value in state.items()}
    adam.step()
    return unflatten(vector.detach(), params), dict(adam.state[vector])
