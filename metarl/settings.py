"""What all experiments' settings are made of."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0, le=1e30)]  # a number in single precision
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Method = Literal["maml", "pretrained", "random", "oracle", "nearest_neighbour"]


class Section(BaseModel):
    """Settings that belong together. What they don't know they refuse, and they never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OuterSection(Section):
    """Meta-training: how long, and on how many tasks an iteration."""

    iterations: PositiveInt = 100
    meta_batch: PositiveInt = 20
    anneal: bool = False

    def annealed(self, value: float, iteration: int) -> float:
        """A step's size at an iteration: with `anneal` it falls to zero by half a cosine."""
        progress = iteration / self.iterations
        return value * 0.5 * (1.0 + math.cos(math.pi * progress)) if self.anneal else value
