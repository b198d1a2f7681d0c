"""A policy that was never trained, fine-tuned on new tasks (Finn et al. 2017, section 5.3)."""

from typing import ClassVar

from metarl.baselines.pretrained_policy import Pretrained


class Random(Pretrained):
    """What pretraining would begin with."""

    label: ClassVar[str] = "random"
    num_iterations: ClassVar[int] = 0
