"""The agent of a policy of this package; see `metarl.rl.agent` for how agents are used."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from metarl.envs.family import as_task
from metarl.envs.observations import AnyEnv, FlatFamily, FlatSpace, flat_env
from metarl.envs.scaling import scale_observations
from metarl.envs.wrappers import observe_task
from metarl.errors import UserError
from metarl.parallel import CPU, one_thread
from metarl.params import Params, split_prefix, with_prefix
from metarl.rl.adaptation import baseline_priors
from metarl.rl.advantages import Prior
from metarl.rl.external_data import (
    EpisodeArrays,
    Episodes,
    Trajectory,
    check_fits,
    collect_episodes,
    from_arrays,
    to_arrays,
)
from metarl.rl.policies import Memory, Policy
from metarl.rl.problem import PolicyProblem
from metarl.rl.recorder import Recorder
from metarl.rl.sampler import INFINITE_ACTION
from metarl.rl.trajectories import Samples, Trajectories
from metarl.rng import RngKey, make_rng
from metarl.step_sizes import split


class PolicyAgent:
    """An agent whose policy is feedforward or recurrent, adapted by gradient steps or not.

    Attributes:
        params: the current parameters, and the learned step sizes if there are any.
        steps: the number of gradient steps since the last reset.
        returns: for each of these steps, the mean return of the episodes that it used.
    """

    def __init__(
        self,
        problem: PolicyProblem,
        policy: Policy,
        params: Params,
        seed: int = 0,
        step_sizes: tuple[float, ...] = (),
    ) -> None:
        self.problem = problem
        self.policy = policy
        self.params = self._initial_params = params
        self.seed = seed
        self.step_sizes = step_sizes
        self.steps = 0
        self.returns: tuple[float, ...] = ()
        self._priors: list[Prior | None] = []  # of the baseline at each step; copies share the list
        self._optimizer_state: Params = {}  # of the gradient steps since the last reset
        self._task: NDArray[np.float64] | None = None
        self._autoreset = AutoresetMode.NEXT_STEP
        self._forget()

    def _forget(self) -> None:
        self._theta, _ = split(self.params)
        # by the number of gradient steps: what was played before one does not shift what follows
        self._rng = make_rng(self.seed, "acting", self.steps)
        self._memory: Memory = ()
        self._memory_after: Memory | None = None  # after the last act, before its outcome
        self._recorder = Recorder()

    def reset(
        self, task: ArrayLike | None = None, autoreset_mode: str | AutoresetMode = "NextStep"
    ) -> None:
        """Start a new task; see `metarl.rl.agent.Agent`.

        Args:
            task: (T,).
            autoreset_mode: of the vector environment, if the agent acts in one. With gymnasium's
                default "NextStep", the step after an end only resets, and is ignored.
        """
        try:
            self._autoreset = AutoresetMode(autoreset_mode)
        except ValueError as error:
            names = ", ".join(mode.value for mode in AutoresetMode)
            raise UserError(f"autoreset_mode must be {names}, not {autoreset_mode!r}") from error
        self._task = as_task(task)
        self.params, self.steps, self.returns = self._initial_params, 0, ()
        self._optimizer_state = {}
        self._forget()

    @torch.no_grad()
    def act(self, observation: ArrayLike, deterministic: bool = False) -> Any:
        """Choose an action for an observation; see `AdaptivePolicy.act`."""
        rows, is_single = self._rows(observation)
        self._recorder.start(rows, is_single)
        inputs = torch.from_numpy(self._policy_inputs(rows))
        if not self._memory:
            self._memory = self.policy.initial_memory((len(rows),))
        self._check_memory(len(rows))
        distribution, self._memory_after = self.policy.step(self._theta, self._memory, inputs)
        # noise is drawn in any case: a deterministic action must not shift the random stream
        noise = torch.from_numpy(self.policy.noise(self._rng, (len(rows),)))
        actions = self.policy.act(distribution, noise * 0.0 if deterministic else noise)
        if not torch.isfinite(actions).all():
            raise FloatingPointError(INFINITE_ACTION)
        self._recorder.actions = actions
        chosen = actions.numpy().copy()  # a caller may clip or scale them in place
        return chosen[0] if is_single else chosen

    def observe(
        self,
        reward: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        next_observation: ArrayLike | None = None,
    ) -> None:
        """Record the outcome of the last action; see `AdaptivePolicy.observe`."""
        recorder = self._recorder
        if recorder.actions is None:
            raise UserError("observe() takes the outcome of an action: call act() first")
        shape = (len(recorder.actions),)
        try:
            rewards = np.broadcast_to(np.asarray(reward, dtype=np.float32), shape)
            is_terminal = np.broadcast_to(np.asarray(terminated, dtype=bool), shape)
            is_end = is_terminal | np.broadcast_to(np.asarray(truncated, dtype=bool), shape)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"reward, terminated and truncated must have shape {shape}, one for each "
                f"environment: {error}"
            ) from error
        if not np.isfinite(rewards).all():
            raise UserError("the reward is not finite")
        # with autoreset on the next step, this step of an environment that ended only resets it
        is_reset = recorder.ended & (self._autoreset is AutoresetMode.NEXT_STEP)
        if self._memory:
            assert self._memory_after is not None
            memory = self.policy.remember(
                self._memory_after,
                recorder.actions,
                torch.from_numpy(rewards.copy()),
                torch.from_numpy(is_end),
            )
            kept = torch.from_numpy(is_reset)
            self._memory = tuple(
                torch.where(kept.view(-1, *[1] * (new.dim() - 1)), old, new)
                for old, new in zip(self._memory, memory, strict=True)
            )
        # a policy that takes no gradient step would only collect what nobody reads
        if self.step_sizes:
            # with autoreset in the same step, it is the first observation of the next episode
            if next_observation is None or self._autoreset is AutoresetMode.SAME_STEP:
                last = None
            else:
                last = self._rows(next_observation)[0]
            recorder.record(rewards, is_terminal, is_end, is_reset, last)
        recorder.finish(is_end & ~is_reset)
        self._memory_after = None

    def adapt(self, episodes: Episodes | None = None, step_size: float | None = None) -> Self:
        """A copy of the agent, adapted to episodes of the task.

        A policy without memory takes a gradient step (Finn et al. 2017, section 2.2), unless its
        method has none; a recurrent policy updates its memory.

        Args:
            episodes: that this very policy played; by default those that it observed since the last
                reset or adaptation.
            step_size: α, in place of the evaluation's or the learned ones.

        Raises:
            UserError: if there is no episode, or one has wrong shapes.
            FloatingPointError: if a parameter is not finite after the step.
        """
        agent = self._copy()
        adapts = self.step_sizes or self.has_memory
        if not adapts or (episodes is None and self.has_memory):  # its memory is up to date
            return agent
        if episodes is None:
            episodes = self._recorder.episodes
            if not episodes:
                raise UserError(
                    "no complete episode was observed since the last adaptation: act and observe "
                    "until an episode ends, or pass an environment or episodes"
                )
        arrays = to_arrays(self.policy, episodes, self._space, self._scale)
        if self.has_memory:
            agent._replay(arrays)
        elif self.step_sizes:
            bootstraps = self.problem.config.inner.bootstrap
            if bootstraps and any(episode.last_observation is None for episode in arrays):
                raise UserError(
                    "inner.bootstrap needs the observation after the last step of each episode: "
                    "pass Trajectory(..., last_observation=...), or observe(..., next_observation)"
                )
            trajectories = from_arrays(self.policy, self._theta, arrays)
            # the environments go on: those that have ended are still to be reset
            recorder = agent._recorder
            agent._learn(trajectories, step_size)
            agent._recorder = recorder
        return agent

    def adapt_in(
        self,
        env: AnyEnv,
        episodes: int,
        horizon: int,
        task: ArrayLike | None = None,
        step_size: float | None = None,
    ) -> Self:
        """A copy of the agent, adapted to episodes that it plays in an environment.

        Args:
            env: single or vector; it is reset for every episode, and stays open.
            episodes: the number of episodes.
            horizon: the longest that an episode is played.
            task: (T,), passed to every reset as `options={"task": task}`.
            step_size: see `adapt`.
        """
        agent = self._copy()
        if self._task_size and task is not None:
            agent._task = as_task(task)
        # every sub-environment has a memory of its own, and one is kept: it has all episodes
        number = episodes * getattr(env, "num_envs", 1) if self.has_memory else episodes
        trajectories, memory = agent.play(env, number, horizon, task)
        if self.has_memory:
            agent._memory = tuple(leaf[:1] for leaf in memory)
        elif self.step_sizes:
            agent._learn(trajectories, step_size)
        return agent

    def play(
        self,
        env: AnyEnv,
        episodes: int,
        horizon: int,
        task: ArrayLike | None = None,
        stream: Sequence[int | str] = (),
    ) -> tuple[Trajectories, Memory]:
        """Episodes of this policy in an environment, (1, B, H, ·), and its memory after them.

        Args:
            env, task: as for `adapt_in`.
            episodes: B.
            horizon: H.
            stream: selects a random stream; the empty one is that of the evaluation.
        """
        row = None if task is None else as_task(task)
        if row is None and self._task_size:  # a policy that observes its task
            row = self._known_task()
        key = RngKey(self.seed).fold_in(self.steps, *stream)
        num_envs = getattr(env, "num_envs", 1)
        self._check_memory_size(num_envs)
        # all sub-environments have the same task, and start from the same memory
        memory = tuple(leaf.expand(num_envs, *leaf.shape[1:]) for leaf in self._memory)
        return collect_episodes(
            self.policy, self._theta, self.wrap(env), episodes, horizon, key, row, memory
        )

    def unscaled(self, trajectories: Trajectories) -> list[Trajectory]:
        """Trajectories (1, B, H, ·) as episodes with the observations of the environment."""
        last = trajectories.last_observations
        assert last is not None
        # a scaled observation is o · scale: divide, for episodes as the environment returned them
        factors = torch.tensor(self._scale) if self._scale is not None else torch.ones(())
        columns = last.shape[-1] - self._task_size  # without the task, if it is observed
        observations = (trajectories.observations[0] / factors)[..., :columns]
        last_observations = (last[0] / factors)[..., :columns]
        return [
            Trajectory(
                observations[number, :length].numpy(),
                trajectories.actions[0, number, :length].numpy(),
                trajectories.rewards[0, number, :length].numpy(),
                bool(trajectories.terminated[0, number]),
                last_observations[number].numpy(),
            )
            for number, length in enumerate(trajectories.lengths[0].tolist())
        ]

    @property
    def takes_arrays(self) -> bool:
        """Whether observations are arrays, not to be flattened first."""
        return self._space is None

    @property
    def has_memory(self) -> bool:
        """Whether the policy is recurrent."""
        return bool(self.policy.initial_memory((1,)))

    def fork(self, seed: int, task: ArrayLike | None = None) -> Self:
        """A copy of the agent with random actions from a seed, on a task if it is conditioned."""
        agent = self._copy()
        agent._rng = make_rng(seed, "acting")
        agent._task = self._task if task is None else as_task(task)
        return agent

    def tensors(self) -> dict[str, Tensor]:
        """The adapted state as tensors: of parameters, optimiser and memory, to be saved."""
        state = with_prefix(self.params, "params.")
        state |= with_prefix(self._optimizer_state, "optimizer.")
        return state | {f"memory.{index}": leaf for index, leaf in enumerate(self._memory)}

    def with_tensors(
        self, tensors: Mapping[str, Tensor], steps: int, returns: Sequence[float]
    ) -> Self:
        """A copy of the agent with a state that `tensors` returned.

        Raises:
            UserError: if the tensors are not those of this policy, or the values are damaged.
        """
        _, params = split_prefix(tensors, "params.")
        own, new = ({n: (t.shape, t.dtype) for n, t in p.items()} for p in (self.params, params))
        if own != new:
            raise UserError("these parameters are of another policy")
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise UserError("these parameters or memories are not finite")
        numbers = isinstance(returns, list | tuple) and all(
            isinstance(value, int | float) for value in returns
        )
        if not isinstance(steps, int) or steps < 0 or not numbers:
            raise UserError(f"the adapted policy is damaged: steps {steps!r}, returns {returns!r}")
        agent = self._copy()
        # in the order of the policy: a file may hold names sorted
        agent.params = {name: params[name] for name in self.params}
        agent.steps, agent.returns = steps, tuple(returns)
        _, agent._optimizer_state = split_prefix(tensors, "optimizer.")
        agent._forget()
        agent._memory = tuple(tensors[n] for n in sorted(tensors) if n.startswith("memory."))
        return agent

    def wrap(self, env: AnyEnv) -> Any:
        """An environment whose observations are those that the policy takes."""
        wrapped = flat_env(env)
        if self._task_size:
            wrapped = observe_task(wrapped, self._task_size)
        check_fits(self.policy, wrapped)
        return wrapped if self._scale is None else scale_observations(wrapped, self._scale)

    def _copy(self) -> Self:
        # parameters are never written in place, so that a copy may share them
        agent = copy.copy(self)
        agent._rng = copy.deepcopy(self._rng)
        agent._recorder = self._recorder.without_episodes()
        return agent

    def _learn(self, trajectories: Trajectories, step_size: float | None) -> None:
        # episodes and parameters of one task stay on the CPU, whatever device training used
        inner = replace(self.problem.inner, device=CPU)
        if step_size is None:
            # past the end of the schedule, its last step size is repeated
            schedule = (*self.step_sizes, *[self.step_sizes[-1]] * self.steps)[: self.steps + 1]
            size = inner.step_sizes(self.params, schedule)[self.steps]
        else:
            size = inner.step_sizes(self._theta, (step_size,))[0]
        inner.warn_if_too_few(int(trajectories.mask.sum()))
        with one_thread():
            batch = inner.with_advantages(trajectories, self._prior())
            samples: Samples = pytree.tree_map(lambda leaf: leaf[0], batch)
            theta, state = inner.adapt_step(
                self._theta, samples, size, self._optimizer_state, self.steps
            )
        for name, leaf in theta.items():
            if not torch.isfinite(leaf).all():
                raise FloatingPointError(
                    f"{name} is not finite after the gradient step; lower the step size"
                )
        self.params = {**theta, **{n: leaf for n, leaf in self.params.items() if n not in theta}}
        self.steps, self._optimizer_state = self.steps + 1, state
        self.returns = (*self.returns, float(trajectories.returns.mean()))
        self._forget()

    def _prior(self) -> Prior | None:
        """The baseline's prior at this step; the first call simulates training tasks for it."""
        if not self._priors:
            params = self._initial_params
            self._priors += baseline_priors(self.problem, params, self.step_sizes)
        return self._priors[min(self.steps, len(self._priors) - 1)]

    @torch.no_grad()
    def _replay(self, episodes: Sequence[EpisodeArrays]) -> None:
        """Update the memory by episodes that were played elsewhere."""
        self._check_memory_size(1)
        self._memory = self._memory or self.policy.initial_memory((1,))
        for episode in episodes:
            length = len(episode.rewards)
            for t in range(length):
                row = slice(t, t + 1)
                _, memory = self.policy.step(self._theta, self._memory, episode.observations[row])
                is_end = torch.tensor([t + 1 == length])
                self._memory = self.policy.remember(
                    memory, episode.actions[row], episode.rewards[row], is_end
                )

    def _rows(self, observation: ArrayLike) -> tuple[NDArray[np.float32], bool]:
        """Observations as rows (num_envs, S), and whether it was a single one."""
        title = self.problem.title
        if self._space:
            observation = self._space.flatten(observation)
        try:
            # a copy: the environment may go on writing into its own array
            array = np.array(observation, dtype=np.float32, order="C")
        except (TypeError, ValueError) as error:
            raise UserError(
                f"an observation must be an array of numbers: {error} (reset and step return it "
                "with other values: observation, info = env.reset())"
            ) from error
        size = self.policy.observation_size - self._task_size
        rows = array[None] if array.ndim == 1 else array
        if rows.ndim != 2 or rows.shape[1] != size:
            raise UserError(
                f"an observation of {title} has shape ({size},), or (num_envs, {size}) of a vector "
                f"environment, not {array.shape}"
            )
        if not np.isfinite(rows).all():
            raise UserError("the observation has numbers that are not finite")
        return rows, array.ndim == 1

    def _policy_inputs(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._task_size:
            task = self._known_task().astype(np.float32)
            repeated = np.broadcast_to(task, (len(rows), self._task_size))
            rows = np.concatenate([rows, repeated], axis=1)
        return rows if self._scale is None else rows * np.array(self._scale, dtype=np.float32)

    def _known_task(self) -> NDArray[np.float64]:
        """The task (T,) of a policy that observes it."""
        if self._task is None:
            raise UserError(
                "this policy is conditioned on the task: call reset(task) first, or pass task=..."
            )
        if self._task.shape != (self._task_size,):
            raise UserError(
                f"a task of {self.problem.title} has {self._task_size} numbers, not "
                f"{self._task.size}"
            )
        return self._task

    def _check_memory(self, num_envs: int) -> None:
        if not self._memory:
            return
        if self._memory_after is not None:
            raise UserError(
                "the policy has a memory: call observe(reward, terminated, truncated) after each "
                "act()"
            )
        if len(self._memory[0]) == 1:  # of one task, in several environments from now on
            self._memory = tuple(leaf.expand(num_envs, *leaf.shape[1:]) for leaf in self._memory)
        self._check_memory_size(num_envs)

    def _check_memory_size(self, num_envs: int) -> None:
        """The memory must be of one task, or of each of the environments."""
        if self._memory and len(self._memory[0]) not in (1, num_envs):
            raise UserError(
                f"the policy has a memory of {len(self._memory[0])} environments, not {num_envs}: "
                "call reset() before acting in others"
            )

    @cached_property
    def _task_size(self) -> int:
        return self.problem.family.task_size if self.problem.task_conditioned else 0

    @cached_property
    def _scale(self) -> Sequence[float] | None:
        return self.problem.unscaled_family_and_scale[1]

    @cached_property
    def _space(self) -> FlatSpace | None:
        """The space of flattened observations, if those of the environments are not flat."""
        family = self.problem.flat_family
        if not isinstance(family, FlatFamily):
            return None
        with closing(family.make()) as env:
            space = env.observation_space
            return space if isinstance(space, FlatSpace) else None
