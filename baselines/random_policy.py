"""A policy that was never trained, fine-tuned on new tasks (Finn et al. 2017, section 5.3)."""

from typing import ClassVar, Literal

from metarl.baselines.pretrained_policy import Pretrained
from metarl.settings import MethodSection


class RandomSettings(MethodSection):
    """None."""

    name: Literal["random"] = "random"


class Random(Pretrained):
    """What pretraining would begin with."""

    label: ClassVar[str] = "random"
    Settings: ClassVar[type[MethodSection]] = RandomSettings
    updates: ClassVar[int] = 0
