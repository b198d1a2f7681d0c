"""CAVIA (Zintgraf et al. 2019) for few-shot regression: algorithm 1.

MAML whose inner loop adapts nothing but a few further inputs of the network, from zeros.
"""

from dataclasses import replace
from typing import ClassVar

from metarl.config.sections import ContextSettings, MethodSection
from metarl.step_sizes import check_context
from metarl.supervised.losses import REGRESSION, Kind
from metarl.supervised.maml import MAML
from metarl.supervised.problem import SupervisedProblem


class CAVIA(MAML):
    """Learns a network that a few context parameters adapt to a task."""

    label: ClassVar[str] = "CAVIA"
    Settings: ClassVar[type[MethodSection]] = ContextSettings
    kinds: ClassVar[tuple[Kind, ...]] = (REGRESSION,)  # images take a modulation of channels

    def __init__(self, problem: SupervisedProblem) -> None:
        size = check_context(problem.config.inner, problem.config.method)
        super().__init__(replace(problem, context=size))
