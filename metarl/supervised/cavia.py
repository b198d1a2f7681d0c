"""CAVIA (Zintgraf et al. 2019) for few-shot regression: Algorithm 1.

MAML whose inner loop adapts only context parameters: additional inputs of the network, which start
at zero for each task.
"""

from dataclasses import replace
from typing import ClassVar

from metarl.config.sections import MethodSection
from metarl.context import ContextSettings, context_size
from metarl.supervised.losses import REGRESSION, TaskType
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem


class CAVIA(MAML):
    """Learns a network that a few context parameters adapt to a task."""

    label: ClassVar[str] = "CAVIA"
    Settings: ClassVar[type[MethodSection]] = ContextSettings
    # for images the paper modulates channels by the context instead (FiLM), which is not here
    kinds: ClassVar[tuple[TaskType, ...]] = (REGRESSION,)

    def __init__(self, problem: SupervisedProblem) -> None:
        size = context_size(problem.config.inner, problem.config.method)
        super().__init__(replace(problem, context=size))
