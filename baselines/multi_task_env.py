"""A stable-baselines3 vector environment with a new task in every episode."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from metarl.envs import TaskFamily
from metarl.envs.family import check_finite, check_outcome, check_spaces, checked_tasks
from metarl.errors import UserError
from metarl.rng import make_rng

BOUND = 1e30  # which no action exceeds


class MultiTaskEnv(VecEnv):
    """A family's vector environment with the interface of stable-baselines3.

    When an episode ends, or at the horizon, a new task is sampled and the next episode starts in
    the same step, as stable-baselines3 requires. A time limit counts as any other end: no value is
    bootstrapped, as in this package's own advantages by default.

    Raises:
        UserError: if no policy supports the spaces; `reset` and `step` raise it if the
            environments return arrays of the wrong shape.
    """

    def __init__(self, family: TaskFamily, num_envs: int) -> None:
        self._family = family
        self._envs = family.make_vec(num_envs)
        space = self._envs.single_observation_space
        check_spaces(space, self._envs.single_action_space)
        assert space.shape is not None  # of a flat Box
        # in single precision, like the observations of our own policies
        observation_space = gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
        action_space = self._envs.single_action_space
        if isinstance(action_space, gym.spaces.Box):
            # stable-baselines3 clips actions to finite bounds; meta-training does not clip them
            action_space = gym.spaces.Box(-BOUND, BOUND, action_space.shape, np.float32)
        super().__init__(num_envs, observation_space, action_space)
        self._actions: NDArray[Any] = np.zeros(0)
        self._returns = np.zeros(num_envs)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self.start(0)

    def start(self, seed: int, *indices: int) -> None:
        """Seed everything that follows the next reset."""
        self._rng = make_rng(seed, "mixed tasks", *indices)
        self.finished_returns: list[float] = []

    def reset(self) -> NDArray[np.float32]:
        self._tasks = checked_tasks(self._family, self._rng, self.num_envs)
        self._returns[:] = 0.0
        self._steps[:] = 0
        seeds = self._rng.integers(2**31, size=self.num_envs).tolist()
        observations, _ = self._envs.reset(seed=seeds, options={"task": self._tasks})
        check_outcome(self._row, observations)
        return self._as_float32(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        if not np.isfinite(actions).all():
            raise FloatingPointError(
                "the policy chose an action that is not finite: its last update was too large; "
                "lower baseline.learning_rate"
            )
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Advance by one step; start a new episode on a new task where one ended."""
        observations, rewards, terminated, truncated, _ = self._envs.step(self._actions)
        check_outcome(self._row, observations, rewards, terminated, truncated)
        self._returns += rewards
        self._steps += 1
        check_finite("a reward", rewards, self._tasks, self._steps)
        rows = self._as_float32(observations)
        # environments that do not report the horizon are cut off here
        done = terminated | truncated | (self._steps >= self._family.horizon)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            for index in np.flatnonzero(done):
                infos[index]["terminal_observation"] = rows[index]
            self.finished_returns += self._returns[done].tolist()
            self._returns[done] = 0.0
            self._steps[done] = 0
            self._tasks[done] = checked_tasks(self._family, self._rng, int(done.sum()))
            rows = self._restarted(done, rows)
        return rows, rewards.astype(np.float32), done, infos

    def _restarted(self, done: NDArray[np.bool_], rows: NDArray[np.float32]) -> NDArray[np.float32]:
        observations, _ = self._envs.reset(options={"task": self._tasks, "reset_mask": done})
        check_outcome(self._row, observations)
        restarted = self._as_float32(observations)
        if not np.array_equal(restarted[~done], rows[~done]):
            raise UserError(
                "the vector environment reset sub-environments that are not in "
                "options['reset_mask'], and without it episodes cannot end one by one; have its "
                "reset respect that, or construct it with metarl.envs.vectorise"
            )
        return restarted

    @property
    def _row(self) -> tuple[int, int]:
        return self.num_envs, self.observation_space.shape[0]  # type: ignore[index] # a flat Box

    def _as_float32(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        """Finite observations in single precision."""
        with np.errstate(over="ignore"):
            rows: NDArray[np.float32] = observations.astype(np.float32)
        check_finite("an observation", rows, self._tasks, self._steps)
        return rows

    def close(self) -> None:
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Only the render mode, which is None; there are no single environments inside."""
        if attr_name == "render_mode":
            return [None] * self.num_envs
        raise AttributeError(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not offered: there are no single environments inside."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Not offered: there are no single environments inside."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No sub-environment is wrapped."""
        return [False] * self.num_envs
