"""What a run in reinforcement learning learned, as an object to use: a policy that acts and adapts.

It does not change: `adapt` returns another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils import _pytree as pytree

from metarl.envs.images import FlatImage, ImageFamily, flat_env
from metarl.envs.scaling import scale_observations, scale_vector_observations
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.inner_loop import adapt
from metarl.method import EPISODES
from metarl.parallel import one_thread
from metarl.params import Params
from metarl.report.adapted_policy import policy_method
from metarl.report.evaluations import load_checked_state, load_or_evaluate
from metarl.report.video import Episode, record, record_in, write_gif, write_mp4
from metarl.rl.advantages import with_advantages
from metarl.rl.external_data import (
    AnyEnv,
    Gathered,
    Trajectory,
    as_task,
    check_fits,
    gather,
    given,
)
from metarl.rl.inner_loop import InnerLoop
from metarl.rl.problem import PolicyMethod, PolicyProblem
from metarl.rl.trajectories import Samples, Trajectories
from metarl.rng import RngKey, make_rng
from metarl.runs.run import Run
from metarl.step_sizes import split


@dataclass(frozen=True)
class AdaptivePolicy:
    """A policy that adapts to a task by gradient steps.

        adapted = policy.adapt(env, task=[-1.0])
        action = adapted.act(observation)

    Attributes:
        run: what it was loaded from.
        method: what trained it.
        params: its parameters, and the learned step sizes where there are any.
        steps: how many gradient steps it took since it was loaded.
        returns: the mean return of the episodes that each of them learned from.
        seed: of all that it draws: equal seeds act and adapt alike.
    """

    run: Run
    method: PolicyMethod
    params: Params
    steps: int = 0
    returns: tuple[float, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, run: Run, seed: int = 0) -> "AdaptivePolicy":
        """The policy of a run that has a checkpoint.

        Raises:
            UserError: if the run is about something else, has no checkpoint, or it is damaged.
        """
        method = policy_method(run)
        return cls(run, method, load_checked_state(run, method).params, seed=seed)

    def __repr__(self) -> str:
        return f"<{self.method.label} policy of {self.run.path}, after {self.steps} gradient steps>"

    @property
    def horizon(self) -> int:
        """H, how long the episodes were that it was trained on."""
        horizon: int = self.method.problem.family.horizon
        return horizon

    @torch.no_grad()
    def act(self, observation: ArrayLike, deterministic: bool = False) -> Any:
        """An action for an observation, as `env.step` takes it.

        Actions are drawn, as in training, and not clipped: environments clip them, as those of this
        package do, or gymnasium.wrappers.ClipAction around them.

        Args:
            observation: (S,), or (B, S) of a vector environment; or images as the family has them.
            deterministic: the mean of the distribution, or the most probable action, instead.

        Returns:
            An action, (A,) or a number; or B of them, with a first axis more.

        Raises:
            UserError: if the observation has another shape, or is not finite.
        """
        self._refuse_memory("act")
        if self._space and np.shape(observation)[-3:] != self._space.original.shape:
            raise UserError(
                f"an observation of {self.method.problem.title} is an image of shape "
                f"{self._space.original.shape}, not {np.shape(observation)}"
            )
        policy = self.method.policy
        seen = self._space.flatten(observation) if self._space else observation
        seen = np.asarray(seen, dtype=np.float32)
        single = seen.ndim == 1
        rows = seen[None] if single else seen
        if rows.ndim != 2 or rows.shape[1] != policy.observation_size:
            raise UserError(
                f"an observation of {self.method.problem.title} has shape "
                f"({policy.observation_size},), or (num_envs, {policy.observation_size}) of a "
                f"vector environment, not {seen.shape}"
            )
        if not np.isfinite(rows).all():
            raise UserError("the observation has numbers that are not finite")
        if self._scale is not None:
            rows = rows * np.array(self._scale, dtype=np.float32)
        noise = torch.from_numpy(policy.noise(self._rng, (len(rows),)))
        theta, _ = split(self.params)
        distribution = policy.distribution(theta, torch.from_numpy(rows))
        actions = policy.act(distribution, noise * 0.0 if deterministic else noise).numpy()
        return actions[0] if single else actions

    def adapt(
        self,
        experience: AnyEnv | Gathered,
        task: ArrayLike | None = None,
        *,
        steps: int = 1,
        episodes: int | None = None,
        step_size: float | None = None,
        horizon: int | None = None,
    ) -> "AdaptivePolicy":
        """The policy after gradient steps on episodes of one task (equation 1 of Finn et al. 2017).

        Args:
            experience: an environment to play in, single or vector, with the spaces that the policy
                was trained on; it is reset for every episode, and stays open. Or episodes that this
                very policy played, each (observations, actions, rewards) with a row a step.
            task: (T,), given to every reset of the environment as `options={"task": task}`; where
                None, nothing is given, and the environment has the task that it has.
            steps: how many. Each learns from new episodes, so that gathered ones are good for one.
            episodes: to play for each step; as many as in the run's evaluation where None.
            step_size: α; that of the run's evaluation, or the learned ones, where None.
            horizon: the longest that an episode is played; as in training where None.

        Raises:
            UserError: if the policy does not adapt by gradients, the environment or the episodes do
                not fit it, or a setting makes no sense.
            FloatingPointError: if a number is not finite.
        """
        unit = self.method.adaptation_unit
        if unit is None or not unit.has_step_sizes:
            way = "by its memory, while it acts" if unit else "to nothing"
            raise UserError(
                f"{self.method.label} of {self.run.path} adapts {way}, and not by gradient steps; "
                "render() films it, evaluate() measures it"
            )
        if not isinstance(experience, Sequence | gym.Env | gym.vector.VectorEnv):
            raise UserError(
                "a policy adapts to a gymnasium environment, or to a list of episodes, each "
                f"(observations, actions, rewards), not to {type(experience).__name__}"
            )
        for name, value in (("steps", steps), ("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        if step_size is not None and not 0.0 < step_size < 1e30:
            raise UserError(f"step_size must be a positive number, not {step_size!r}")
        if isinstance(experience, Sequence):
            if steps != 1:
                raise UserError(
                    "episodes that were gathered are good for one step: gather others with the "
                    "adapted policy, and adapt that, as in policy.adapt(first).adapt(second)"
                )
            if task is not None:
                raise UserError("a task is given to an environment; episodes have theirs already")
        policy = self
        for _ in range(steps):
            if isinstance(experience, Sequence):
                theta, _ = split(policy.params)
                seen = given(self.method.policy, theta, experience, self._space, self._scale)
            else:
                seen = policy._play(experience, as_task(task), episodes, horizon, 0)
            policy = policy._stepped(seen, step_size)
        return policy

    def play(
        self,
        env: AnyEnv,
        task: ArrayLike | None = None,
        *,
        episodes: int = 1,
        horizon: int | None = None,
    ) -> list[Trajectory]:
        """Episodes of this policy in an environment: to look at, or to adapt to.

        Args:
            env: as for `adapt`.
            task: as for `adapt`.
            episodes: how many.
            horizon: the longest that one is played; as in training where None.
        """
        for name, value in (("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        self._refuse_memory("play")
        seen = self._play(env, as_task(task), episodes, horizon, 1)
        if self._scale is not None:  # as the environment told them
            seen = replace(seen, observations=seen.observations / torch.tensor(self._scale))
        return [
            Trajectory(*(leaf[0, number, : int(length)].numpy() for leaf in leaves))
            for leaves in [(seen.observations, seen.actions, seen.rewards)]
            for number, length in enumerate(seen.lengths[0])
        ]

    def evaluate(self) -> AdaptationCurve:
        """Returns on the run's unseen tasks after 0, 1, 2, ... gradient steps from here.

        As the run was evaluated, where it was and nothing has changed since: then nothing is
        computed. `to_frame()` of the result is a pandas frame.
        """
        if self.steps == 0:
            return load_or_evaluate(self.run).curve
        return self.method.evaluate(self.params)

    def render(
        self,
        file: str | Path | None = None,
        task: ArrayLike | None = None,
        env: Any = None,
    ) -> Episode:
        """Film an episode of this policy.

        Args:
            file: an .mp4 or .gif to write; none is where None.
            task: (T,); the first of the evaluation's unseen tasks where None, unless an environment
                is given, which has one.
            env: a single environment that was made with `render_mode="rgb_array"`; one of the
                family's where None.

        Returns:
            Its frames, (height, width, 3) each, the return up to each, and frames a second.

        Raises:
            UserError: if the file's name ends in something else, or nothing can be rendered.
        """
        path = None if file is None else Path(file)
        if path and path.suffix not in (".mp4", ".gif"):
            raise UserError(f"the name of a video ends in .mp4 or .gif, not as {path.name!r} does")
        problem, policy = self.method.problem, self.method.policy
        theta, _ = split(self.params)
        seed = int(make_rng(self.seed, "rendering", self.steps).integers(2**31))
        memory, row = policy.initial_memory((1,)), as_task(task)
        try:
            if env is None:
                row = problem.test_tasks()[0][0] if row is None else row
                if row.shape != (problem.family.task_size,):
                    raise UserError(
                        f"a task of {problem.title} has {problem.family.task_size} numbers, not "
                        f"{row.size}"
                    )
                seen = record(policy, theta, problem.family, row, seed, memory)
            else:
                seen = record_in(policy, theta, self._seen(env), self.horizon, row, seed, memory)
        except RuntimeError as error:
            raise UserError(str(error)) from error
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            (write_mp4 if path.suffix == ".mp4" else write_gif)(path, seen.frames, seen.fps)
        return seen

    @cached_property
    def _rng(self) -> np.random.Generator:
        return make_rng(self.seed, "acting", self.steps)

    @cached_property
    def _space(self) -> FlatImage | None:
        """How images become rows, where observations are images."""
        family, _ = self.method.problem.observed
        if not isinstance(family, ImageFamily):
            return None
        env = family.make()
        try:
            space = env.observation_space
            return space if isinstance(space, FlatImage) else None
        finally:
            env.close()

    @cached_property
    def _inner(self) -> InnerLoop:
        problem: PolicyProblem = self.method.problem
        return problem.inner

    def _refuse_memory(self, verb: str) -> None:
        if self.method.adaptation_unit is EPISODES:
            raise UserError(
                f"{self.method.label} of {self.run.path} has a memory, which is told rewards and "
                f"ends as well: it does not {verb} here; render() films it, evaluate() measures it"
            )

    def _play(
        self,
        env: AnyEnv,
        task: NDArray[np.float64] | None,
        episodes: int | None,
        horizon: int | None,
        role: int,
    ) -> Trajectories:
        number = episodes or self.method.problem.config.evaluation.episodes_per_task
        # as an evaluation draws: the k-th stage, and another stream for what is not learned from
        key = (
            RngKey(self.seed).fold_in(self.steps, role)
            if role
            else RngKey(self.seed).fold_in(self.steps)
        )
        theta, _ = split(self.params)
        seen = self._seen(env)
        return gather(self.method.policy, theta, seen, number, horizon or self.horizon, key, task)

    @property
    def _scale(self) -> Sequence[float] | None:
        problem: PolicyProblem = self.method.problem
        return problem.observed[1]

    def _seen(self, env: AnyEnv) -> Any:
        """An environment of somebody's as the policy sees it."""
        check_fits(self.method.policy, env)
        scale = self._scale
        if isinstance(env, gym.Env):
            return flat_env(env) if scale is None else scale_observations(env, scale)
        return env if scale is None else scale_vector_observations(env, scale)

    def _stepped(self, seen: Trajectories, step_size: float | None) -> "AdaptivePolicy":
        theta, _ = split(self.params)
        inner = self._inner
        if step_size is None:
            schedule = self._schedule
            taken = (*schedule, *[schedule[-1]] * self.steps)[: self.steps + 1]
            size = inner.step_sizes(self.params, taken)[self.steps]
        else:
            size = inner.step_sizes(theta, (step_size,))[0]
        with one_thread():
            samples = with_advantages(
                seen, inner.settings.gamma, inner.settings.gae_lambda, inner.policy.image
            )
            of_task: Samples = pytree.tree_map(lambda leaf: leaf[0], samples)
            theta = adapt(inner.loss, theta, [of_task], [size])
        for name, leaf in theta.items():
            if not torch.isfinite(leaf).all():
                raise FloatingPointError(
                    f"{name} is not finite after the gradient step; lower the step size"
                )
        return replace(
            self,
            params={**theta, **{n: leaf for n, leaf in self.params.items() if n not in theta}},
            steps=self.steps + 1,
            returns=(*self.returns, float(seen.returns.mean())),
        )

    @cached_property
    def _schedule(self) -> Sequence[float]:
        """Step sizes of the run's evaluation; a baseline's were chosen in it."""
        if self.method.role == "baseline":
            return load_or_evaluate(self.run).curve.step_sizes
        sizes: Sequence[float] = self.method.problem.config.evaluation_step_sizes
        return sizes


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int | np.integer) or value < 1):
        raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
