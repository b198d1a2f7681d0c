"""Adam as a function."""

import pytest
import torch

from metarl.optim import Adam, adam_step
from metarl.params import flatten


@pytest.mark.slow
def test_adam_equals_torchs_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    params = {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(4, generator=generator)}
    vector = flatten(params).requires_grad_()
    optimizer = torch.optim.Adam([vector], lr=0.01)
    state = {}
    for step in range(20):
        gradient = 10.0 ** (step - 10) * torch.randn(10, generator=generator)
        vector.grad = gradient.clone()
        optimizer.step()
        params, state = adam_step(params, gradient, state, 0.01)
        torch.testing.assert_close(flatten(params), vector.detach(), rtol=1e-6, atol=1e-7)
    for name, value in optimizer.state[vector].items():
        torch.testing.assert_close(state[name], value)


def test_a_gradient_whose_square_overflows_stops_training() -> None:
    class Steep:
        def minibatches(self):
            return [self]

        def gradient(self, theta):
            return torch.full((2,), 1e30), 1.0

    with pytest.raises(FloatingPointError, match=r"state .* lower outer\.learning_rate"):
        Adam().step({"x": torch.zeros(2)}, Steep(), {}, 0)
