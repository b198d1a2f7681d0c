"""CAVIA (Zintgraf et al. 2019) for few-shot regression: Algorithm 1.

MAML whose inner loop adapts only context parameters: additional inputs of the network, which start
at zero for each task.
"""

from dataclasses import replace
from typing import ClassVar

from metarl.config.sections import MethodSection
from metarl.context import UNUSED, ContextSettings, context_size
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.losses import REGRESSION, LossSettings, TaskType
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem


class CAVIASettings(ContextSettings, LossSettings):
    """The settings of CAVIA with a choice of the loss."""


class CAVIA(MAML):
    """Learns a network that a few context parameters adapt to a task."""

    label: ClassVar[str] = "CAVIA"
    Settings: ClassVar[type[MethodSection]] = CAVIASettings
    # for images the paper modulates channels by the context instead (FiLM), which is not here
    kinds: ClassVar[tuple[TaskType, ...]] = (REGRESSION,)

    def __init__(self, problem: SupervisedProblem) -> None:
        size = context_size(problem.config.method)
        super().__init__(replace(problem, context=size))

    @classmethod
    def unused_settings(cls, config: SupervisedConfig) -> dict[str, str]:
        return super().unused_settings(config) | UNUSED
