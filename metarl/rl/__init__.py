"""Reinforcement learning with MAML: Algorithm 3 of Finn et al. (2017)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
