"""The methods of reinforcement learning: where each is, and what it alone can be told.

The settings stand here and not with their methods, which import torch: a mistake in a config should
not wait a second for it.
"""

from typing import ClassVar, Literal

from metarl.config.registry import Registry
from metarl.config.sections import (
    METHOD_MEMBERS,
    ContextSettings,
    Fraction,
    MethodSection,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    UnitInterval,
)

MEMBERS = (*METHOD_MEMBERS, "outer_steps")  # what a method of one's own must have
METHODS = Registry(
    "method of reinforcement learning",
    {
        "maml": "metarl.rl.maml:MAML",
        "promp": "metarl.rl.promp:ProMP",
        "cavia": "metarl.rl.cavia:CAVIA",
        "e_maml": "metarl.rl.e_maml:EMAML",
        "rl2": "metarl.baselines.rl2:RL2",
        "pretrained": "metarl.baselines.pretrained_policy:Pretrained",
        "random": "metarl.baselines.random_policy:Random",
        "oracle": "metarl.baselines.pretrained_policy:Oracle",
    },
)


class ProMPSettings(MethodSection):
    """`clip` bounds the ratio to 1 ± clip; `kl_penalty` is η, on the mean over inner steps.

    The outer step is that of `outer: {algorithm: adam, epochs: 5}`, the inner loss the likelihood
    ratio, whose meta-gradient has a low variance (section 5.1 of the paper).
    """

    name: Literal["promp"] = "promp"
    clip: Fraction = 0.3
    kl_penalty: NonNegativeFloat = 5e-4

    outer_steps: ClassVar[tuple[str, ...]] = ("adam",)  # clipped: no line search measures that


class EMAMLSettings(MethodSection):
    """`credit` weighs what actions before adaptation are credited with.

    1 takes the mean over time steps, as of every surrogate here. The derivation sums over the K
    trajectories of a task: that is K times as much, of a signal that is mostly noise.
    """

    name: Literal["e_maml"] = "e_maml"
    credit: PositiveFloat = 1.0


class RL2Settings(MethodSection):
    """Trials of `episodes` each, `inner.episodes_per_task` trials of a task; and PPO's settings.

    The outer step is that of `outer: {algorithm: adam, epochs: …}`, each epoch `minibatches` steps.
    """

    name: Literal["rl2"] = "rl2"
    episodes: PositiveInt = 2
    hidden_size: PositiveInt = 64
    clip: Fraction = 0.2
    gae_lambda: UnitInterval = 0.95
    minibatches: PositiveInt = 4
    value_weight: NonNegativeFloat = 0.5
    entropy_weight: NonNegativeFloat = 0.005

    outer_steps: ClassVar[tuple[str, ...]] = ("adam",)


# whose name is not here has no settings but those of the whole experiment
SETTINGS: dict[str, type[MethodSection]] = {
    "promp": ProMPSettings,
    "cavia": ContextSettings,
    "e_maml": EMAMLSettings,
    "rl2": RL2Settings,
}
