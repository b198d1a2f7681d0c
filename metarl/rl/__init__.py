"""Reinforcement learning with MAML: Algorithm 3 of Finn et al. (2017)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.rl.config import Config as Config
    from metarl.rl.maml import MAML as MAML
    from metarl.rl.problem import PolicyProblem as PolicyProblem

_MODULES = {"Config": "config", "MAML": "maml", "PolicyProblem": "problem"}
__all__ = list(_MODULES)


# PEP 562, as in `metarl`: the help of the command line reads `metarl.rl.methods` without torch
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"metarl.rl.{_MODULES[name]}"), name)
