"""Reinforcement learning with MAML: Algorithm 3 of Finn et al. (2017)."""

from metarl.rl.config import Config
from metarl.rl.maml import MAML
from metarl.rl.problem import PolicyProblem

__all__ = ["MAML", "Config", "PolicyProblem"]
