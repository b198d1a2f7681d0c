"""Reinforcement learning with MAML: Algorithm 3 of Finn et al. (2017)."""
