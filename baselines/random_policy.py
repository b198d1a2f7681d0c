"""A randomly initialised policy, fine-tuned to new tasks (Finn et al. 2017, section 5.3)."""

from typing import ClassVar

from metarl.baselines.pretrained_policy import Pretrained


class Random(Pretrained):
    """The initial policy of pretraining."""

    label: ClassVar[str] = "random"
    num_iterations: ClassVar[int] = 0
