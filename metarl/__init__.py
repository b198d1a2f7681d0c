"""Meta-reinforcement learning around MAML (Finn et al., 2017)."""
