"""What the methods of this folder can be told, apart from the methods themselves.

They import torch, which takes a second: a mistake in a config should not wait for it.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metarl.settings import Bounded, Fraction, MethodSection, PositiveInt, Unit


class RL2Settings(MethodSection):
    """Trials of `episodes` each, `inner.trajectories` trials of a task; and PPO's settings.

    The outer step is that of `outer: {algorithm: adam, epochs: …}`, each epoch `minibatches` steps.
    """

    name: Literal["rl2"] = "rl2"
    episodes: PositiveInt = 2
    hidden_size: PositiveInt = 64
    clip: Fraction = 0.2
    lam: Unit = 0.95
    minibatches: PositiveInt = 4
    value_weight: Bounded = 0.5
    entropy_weight: Bounded = 0.005

    outer_steps: ClassVar[tuple[str, ...]] = ("adam",)


class PrototypicalSettings(MethodSection):
    """`ways` classes an episode in training: more than at the test make better embeddings."""

    name: Literal["prototypical"] = "prototypical"
    ways: Annotated[int, Field(ge=2)] = 60
