"""Any optimiser of `torch.optim` as an outer step."""

from __future__ import annotations

import inspect
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from metarl.config.sections import Arguments
from metarl.optim.gradient import GradientSection
from metarl.params import Params, flatten, unflatten


class TorchOptimizer(GradientSection):
    """An optimiser of `torch.optim` by its class's name.

    `optimizer` is the class, and `settings` are its arguments:
    `outer: {algorithm: torch, optimizer: RMSprop, settings: {alpha: 0.9}}`. The parameters are one
    vector: optimisers that look at matrices or call a closure (Muon, LBFGS) are refused, and so are
    schedules of those that read the step size at their first step only (Rprop). Adam is quicker as
    `algorithm: adam`.
    """

    algorithm: Literal["torch"] = "torch"
    optimizer: str = "RMSprop"
    settings: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """A first step, so that bad settings are refused before the training."""
        if not isinstance(getattr(torch.optim, self.optimizer, None), type):
            raise ValueError(f"optimizer: torch.optim has no class {self.optimizer!r}")
        for name in ("lr", "maximize", "weight_decay"):
            if name in self.settings:
                ours = {"lr": "learning_rate", "weight_decay": "weight_decay"}.get(name)
                fix = f"set outer.{ours}" if ours else "leave it out"
                raise ValueError(f"settings: {name} is set by metarl; {fix}")
        try:
            theta, rate = {"x": torch.zeros(2)}, self.learning_rate
            theta, state = self.ascend(theta, torch.ones(2), {}, rate)
            steps = [self.ascend(theta, torch.ones(2), state, x * rate)[0]["x"] for x in (1.0, 0.5)]
        except Exception as error:  # torch promises no kind of error
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"optimizer: {self.optimizer} cannot be used ({reason})") from error
        if torch.equal(*steps) and (self.depends_on_length or self.warmup):
            raise ValueError(
                f"schedule: has no effect on {self.optimizer}, whose steps after the first do not "
                "depend on learning_rate; leave schedule, anneal and warmup out"
            )
        return self

    def ascend(
        self, theta: Params, gradient: Tensor, state: Params, rate: float
    ) -> tuple[Params, Params]:
        vector, cls = flatten(theta).requires_grad_(), getattr(torch.optim, self.optimizer)
        settings = dict(self.settings)
        if "weight_decay" in inspect.signature(cls).parameters:
            settings["weight_decay"] = 0.0  # decay is in `step`; AdamW has some by default
        optimizer = cls([vector], lr=rate, **settings)
        if state:
            copies = {name: leaf.clone() for name, leaf in state.items()}  # a step writes into them
            optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: copies}})
        vector.grad = -gradient  # torch minimises
        optimizer.step()
        state = {n: torch.as_tensor(x) for n, x in optimizer.state[vector].items() if x is not None}
        return unflatten(vector.detach(), theta), state
