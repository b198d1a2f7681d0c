"""Regularisation, clipping, epochs and step sizes of outer steps along the gradient."""

from __future__ import annotations

from torch import Tensor

from metarl.config.sections import NonNegativeFloat, OuterSection, PositiveFloat, PositiveInt
from metarl.errors import UserError
from metarl.optim.objective import Objective, check_gradient
from metarl.params import Params
from metarl.step_sizes import PREFIX


class GradientSection(OuterSection):
    """Steps along the gradient: one for each minibatch of the objective, `epochs` times.

    `clip` bounds the absolute value of each element of the gradient, `max_grad_norm` its norm; both
    together in this order. `weight_decay` is decoupled from the gradient, as in AdamW (Loshchilov
    and Hutter 2019): θ ← (1 − learning_rate · weight_decay) θ before a step. Learned step sizes of
    the inner loop do not decay.
    """

    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = None
    max_grad_norm: PositiveFloat | None = None
    epochs: PositiveInt = 1

    def ascend(
        self, theta: Params, gradient: Tensor, state: Params, rate: float
    ) -> tuple[Params, Params]:
        """Parameters after one step that increases the objective, and the new state."""
        raise NotImplementedError

    def step(
        self, theta: Params, objective: Objective, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """See `metarl.optim`.

        Raises:
            FloatingPointError: if a gradient, or the optimiser's state, is not finite.
        """
        rate = self.annealed(self.learning_rate, iteration)
        first_value: float | None = None
        for minibatch in objective.minibatches() * self.epochs:
            gradient, value = minibatch.gradient(theta)
            check_gradient(gradient, value, "outer.learning_rate")
            first_value = value if first_value is None else first_value
            if self.clip is not None:
                gradient = gradient.clamp(-self.clip, self.clip)
            if self.max_grad_norm is not None and (norm := gradient.norm()) > self.max_grad_norm:
                gradient = gradient * (self.max_grad_norm / norm)
            if self.weight_decay:
                kept = 1.0 - rate * self.weight_decay
                theta = {n: x if n.startswith(PREFIX) else kept * x for n, x in theta.items()}
            theta, state = self._checked(self.ascend(theta, gradient, state, rate), theta)
            # the square of a finite gradient may overflow in Adam's state, and stop all learning
            if not all(leaf.isfinite().all() for leaf in state.values()):
                raise FloatingPointError(
                    "the state of the optimiser is not finite; lower outer.learning_rate"
                )
        assert first_value is not None
        return theta, state, {"outer/objective": first_value}

    def _checked(self, result: tuple[Params, Params], theta: Params) -> tuple[Params, Params]:
        """The result of `ascend`, which a custom class may implement.

        Raises:
            UserError: if it is not a pair of parameters and state.
        """
        try:
            new, state = result
            fits = {n: x.shape for n, x in new.items()} == {n: x.shape for n, x in theta.items()}
            fits = fits and all(isinstance(leaf, Tensor) for leaf in state.values())
        except (AttributeError, TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(
                f"{type(self).__name__}.ascend must return the parameters, with the names and "
                "shapes of theta (see metarl.params.unflatten), and the state, a dictionary of "
                "tensors"
            )
        return result
