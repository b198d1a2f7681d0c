"""A randomly initialised policy, fine-tuned to new tasks (Finn et al. 2017, section 5.3)."""

from typing import ClassVar

from metarl.baselines.pretrained_policy import Pretrained
from metarl.rl.config import PPO_SETTINGS, Config


class Random(Pretrained):
    """The initial policy of pretraining."""

    label: ClassVar[str] = "random"
    num_iterations: ClassVar[int] = 0

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        names = ["outer.", "inner.steps", "inner.episodes_per_task", *PPO_SETTINGS]
        return super().unused_settings(config) | dict.fromkeys(names, "which is not trained")
