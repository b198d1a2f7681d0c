"""What the families of this package share: environments made from their world."""

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit

from metarl.envs.batched import BatchedEnv
from metarl.envs.single import TaskEnv
from metarl.envs.world import NativeFamily


class NativeTaskFamily(NativeFamily):
    """Makes single and vector environments of a family that has a world."""

    def check_horizon(self) -> None:
        """Refuse a horizon that is no number of steps."""
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, not {self.horizon!r}")

    def make(self, render_mode: str | None = None) -> gym.Env:
        """A single environment, truncated at the horizon."""
        return TimeLimit(TaskEnv(self, render_mode), self.horizon)

    def make_vec(self, num_envs: int) -> BatchedEnv:
        """Many environments; one whose episode has ended rests until the next reset."""
        return BatchedEnv(self, num_envs, autoreset_mode=AutoresetMode.DISABLED)
