"""CAVIA (Zintgraf et al. 2019) for reinforcement learning: algorithm 2.

MAML whose inner loop adapts nothing but a few further inputs of the policy, from zeros.
"""

from dataclasses import replace
from typing import ClassVar

from metarl.config.sections import MethodSection
from metarl.context import UNUSED, ContextSettings, context_size
from metarl.errors import UserError
from metarl.rl.config import Config
from metarl.rl.maml import MAML
from metarl.rl.problem import PolicyProblem


class CAVIA(MAML):
    """Learns a policy that a few context parameters adapt to a task."""

    label: ClassVar[str] = "CAVIA"
    Settings: ClassVar[type[MethodSection]] = ContextSettings

    def __init__(self, problem: PolicyProblem) -> None:
        size = context_size(problem.config.method)
        if problem.policy.image:
            raise UserError(
                f"family.name: {problem.title} has image observations, which method cavia does not "
                "support; use another method"
            )
        super().__init__(replace(problem, context=size))

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        return super().unused_settings(config) | UNUSED
