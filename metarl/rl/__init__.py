"""Reinforcement learning with MAML: Algorithm 3 of Finn et al. (2017)."""

from typing import TYPE_CHECKING

from metarl.lazy import imported_from

if TYPE_CHECKING:
    from metarl.rl.config import Config
    from metarl.rl.maml import MAML
    from metarl.rl.problem import PolicyProblem

__all__ = ["MAML", "Config", "PolicyProblem"]

# imported when they are asked for: a config is of this package, and need not wait for torch
_MODULES = {
    "MAML": "metarl.rl.maml",
    "Config": "metarl.rl.config",
    "PolicyProblem": "metarl.rl.problem",
}

__getattr__ = imported_from(__name__, _MODULES)
