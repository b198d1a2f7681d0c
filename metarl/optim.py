"""Adam (Kingma and Ba, 2015, algorithm 1) as a function of parameters, gradient and its own state.

torch's own is an object, and to make one for every step takes longer than the step: for a sine
wave a tenth of the iteration.
"""

import torch
from torch import Tensor

from metarl.params import Params, flatten, unflatten

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


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
        The new parameters, and the new state: `step`, and the moments `exp_avg` and `exp_avg_sq`
        (P,), as torch calls them.
    """
    zero = torch.zeros_like(gradient)
    step = state.get("step", torch.tensor(0.0)) + 1.0
    first = torch.lerp(state.get("exp_avg", zero), gradient, 1.0 - BETA1)
    second = torch.lerp(state.get("exp_avg_sq", zero), gradient * gradient, 1.0 - BETA2)
    count = float(step)
    size = learning_rate / (1.0 - BETA1**count)
    scale = second.sqrt().div_((1.0 - BETA2**count) ** 0.5).add_(EPSILON)
    vector = torch.addcdiv(flatten(params), first, scale, value=-size)
    return unflatten(vector, params), {"step": step, "exp_avg": first, "exp_avg_sq": second}
