"""Meta-World (Yu et al. 2019), batched: its scenes in mujoco.batch, its rewards vectorised."""
