"""The policy of a run in reinforcement learning, as an object to use: `metarl.load`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from metarl.envs.family import as_task, checked_task
from metarl.envs.observations import AnyEnv
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.models.export import export
from metarl.params import Params
from metarl.report.adapted_policy import load_agent, policy_method
from metarl.report.evaluations import load_or_evaluate
from metarl.report.video import Episode, record, record_in, write_gif, write_mp4
from metarl.rl.agent import Agent, adapt_in, play_episodes
from metarl.rl.external_data import Episodes, Trajectory
from metarl.rl.policy_agent import PolicyAgent
from metarl.rl.problem import PolicyMethod
from metarl.rng import make_rng
from metarl.runs.run import Run


@dataclass(frozen=True)
class AdaptivePolicy:
    """A trained policy that acts, and adapts to one task after another.

        adapted = policy.adapt(env, task=[-1.0])
        action = adapted.act(observation)

    `adapt` returns another policy, and leaves this one as it is. All methods have the same verbs: a
    method without gradient steps on a new task adapts by its memory, or does not adapt.

    Attributes:
        run: the run that it was loaded from.
        method: the method that trained it.
        agent: acts and adapts.
        seed: of its actions: policies with equal seeds act and adapt alike.
    """

    run: Run
    method: PolicyMethod
    agent: Agent
    seed: int = 0

    @classmethod
    def from_run(cls, run: Run, seed: int = 0) -> "AdaptivePolicy":
        """The policy of a run; UserError if it is not of reinforcement learning, or is damaged."""
        method = policy_method(run)
        return cls(run, method, load_agent(run, method, seed), seed)

    def __repr__(self) -> str:
        return f"<{self.method.label} policy of {self.run.path}, after {self.steps} gradient steps>"

    @property
    def params(self) -> Params:
        """The present parameters, with the learned step sizes if there are any."""
        return self._policy_agent("params").params

    @property
    def steps(self) -> int:
        """The number of gradient steps since it was loaded or reset."""
        return getattr(self.agent, "steps", 0)

    @property
    def returns(self) -> tuple[float, ...]:
        """The mean return of the episodes that each gradient step used."""
        return getattr(self.agent, "returns", ())

    @property
    def horizon(self) -> int:
        """H, the length of the episodes that it was trained on."""
        horizon: int = self.method.problem.family.horizon
        return horizon

    def reset(self, task: ArrayLike | None = None, **settings: Any) -> None:
        """Start a new task: forget memory, observed episodes and adapted parameters.

        Args:
            task: (T,), for policies that are conditioned on the task; all others ignore it.
            settings: `autoreset_mode` of a vector environment, "NextStep" by default.
        """
        self.agent.reset(task, **settings)

    def act(self, observation: ArrayLike, deterministic: bool = False) -> Any:
        """An action for an observation, as `env.step` takes it; see `PolicyAgent.act`.

        Args:
            observation: (S,), or (num_envs, S) of a vector environment; or images of the family.
            deterministic: return the mean of the distribution, or the most probable action.
        """
        return self.agent.act(observation, deterministic)

    def observe(
        self,
        reward: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        next_observation: ArrayLike | None = None,
    ) -> None:
        """Record the outcome of the last action, as `env.step` returned it.

        A recurrent policy requires this after each action; for all others it records the episodes
        that `adapt()` uses. See `PolicyAgent.observe`.
        """
        self.agent.observe(reward, terminated, truncated, next_observation)

    def adapt(
        self,
        experience: AnyEnv | Episodes | None = None,
        task: ArrayLike | None = None,
        *,
        steps: int = 1,
        episodes: int | None = None,
        step_size: float | None = None,
        horizon: int | None = None,
    ) -> "AdaptivePolicy":
        """The policy adapted to a task, by a gradient step (Finn et al. 2017, eq. 1) or by memory.

        Args:
            experience: an environment to play in, single or vector, with the spaces that the policy
                was trained on; it is reset for every episode, and stays open. Or episodes that this
                very policy played, each (observations, actions, rewards) with a row for each step.
                If None, the episodes that it observed since the last reset or adaptation.
            task: (T,), passed to every reset of the environment as `options={"task": task}`; if
                None, no options are passed.
            steps: the number of gradient steps. Each uses new episodes, so more than one requires
                an environment.
            episodes: to play for each step; as many as in the run's evaluation if None. Very few
                do not suffice for a robot: a warning says when the baseline interpolates them.
            step_size: α; that of the run's evaluation, or the learned ones, if None.
            horizon: the longest that an episode is played; as in training if None.

        Raises:
            UserError: if the environment or the episodes do not fit the policy, or a setting makes
                no sense.
            FloatingPointError: if a number is not finite.
        """
        if experience is not None and not isinstance(
            experience, Sequence | gym.Env | gym.vector.VectorEnv
        ):
            raise UserError(
                "a policy adapts to a gymnasium environment, or to a list of episodes, each "
                f"(observations, actions, rewards), not to {type(experience).__name__}"
            )
        for name, value in (("steps", steps), ("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        if step_size is not None and not 0.0 < step_size < 1e30:
            raise UserError(f"step_size must be a positive number, not {step_size!r}")
        options = {} if step_size is None else {"step_size": step_size}
        agent = self.agent
        if isinstance(experience, gym.Env | gym.vector.VectorEnv):
            settings = self.method.problem.config.evaluation
            number = episodes or getattr(
                self.method, "adaptation_episodes", settings.episodes_per_task
            )
            for _ in range(steps):  # each with episodes of the policy after the step before
                length = horizon or self.horizon
                agent = adapt_in(agent, experience, number, length, task, **options)
            return replace(self, agent=agent)
        if steps != 1:  # the policy gradient is that of the policy which played the episodes
            raise UserError(
                "given episodes are good for one step: play others with the adapted policy, and "
                "adapt that, as in policy.adapt(first).adapt(second)"
            )
        if task is not None:
            raise UserError("a task is passed to an environment; episodes have theirs already")
        return replace(self, agent=agent.adapt(experience, **options))

    def play(
        self,
        env: AnyEnv,
        task: ArrayLike | None = None,
        *,
        episodes: int = 1,
        horizon: int | None = None,
    ) -> list[Trajectory]:
        """Play episodes in an environment.

        A recurrent policy carries its memory from one episode to the next, and has its old one
        afterwards.

        Args:
            env: as for `adapt`.
            task: as for `adapt`.
            episodes: the number of episodes.
            horizon: the longest that an episode is played; as in training if None.
        """
        for name, value in (("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        # a random stream of its own: these are not the episodes that an adaptation would play
        return play_episodes(self.agent, env, episodes, horizon or self.horizon, task, ("play",))

    def evaluate(self) -> AdaptationCurve:
        """Returns on the run's held-out tasks after 0, 1, 2, ... stages of adaptation.

        Of a policy that has not adapted, it is the run's own evaluation, which is read if there is
        one. `to_frame()` of the result is a pandas frame.
        """
        if self.steps == 0:
            return load_or_evaluate(self.run).curve
        return self.method.evaluate(self.params)

    def render(
        self, file: str | Path | None = None, task: ArrayLike | None = None, env: Any = None
    ) -> Episode:
        """Render an episode of this policy.

        Args:
            file: an .mp4 or .gif to write, if any.
            task: (T,); the first of the evaluation's held-out tasks if None, unless an environment
                is given, which has one.
            env: a single environment constructed with `render_mode="rgb_array"`; one of the
                family's if None.

        Returns:
            Its frames, (height, width, 3) each, the return up to each, and frames per second.

        Raises:
            UserError: if the file has another suffix, or nothing can be rendered.
        """
        path = None if file is None else Path(file)
        if path and path.suffix not in (".mp4", ".gif"):
            raise UserError(f"the name of a video ends in .mp4 or .gif, not as {path.name!r} does")
        problem = self.method.problem
        # another episode after each step, the same one whenever it is rendered again
        seed = int(make_rng(self.seed, "rendering", self.steps).integers(2**31))
        if env is not None:
            episode = record_in(self.agent, env, self.horizon, as_task(task), seed)
        else:
            family = problem.raw_family
            row = problem.test_tasks()[0][0] if task is None else checked_task(family, task)
            episode = record(self.agent, family, row, seed)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            (write_mp4 if path.suffix == ".mp4" else write_gif)(path, episode.frames, episode.fps)
        return episode

    def export(self, file: str | Path) -> Path:
        """Write the policy, adapted or not, in a format that needs no metarl.

        ONNX, TorchScript and torch.export files map observations (N, S) to actions (N, A), or
        indices (N,), as `act(observations, deterministic=True)` does. They are compared with it
        before they are written. Actions are not clipped.

        Args:
            file: a new file: .zip (stable-baselines3, `PPO.load`), .onnx (the extra `onnx`), .pt
                (TorchScript, `torch.jit.load`) or .pt2 (`torch.export.load`).

        Raises:
            UserError: if the file exists, or the format does not support the policy.
        """
        export(self._policy_agent("export"), Path(file))
        return Path(file)

    def save(self, file: str | Path) -> Path:
        """Write the adapted parameters and memory, to be read by `load` of a policy of this run."""
        agent, path = self._policy_agent("save"), Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"steps": json.dumps(agent.steps), "returns": json.dumps(agent.returns)}
        # safetensors refuse views and tensors that share memory
        tensors = {name: leaf.contiguous().clone() for name, leaf in agent.tensors().items()}
        save_file(tensors, path, {**metadata, "weights_sha256": self.run.weights_sha256()})
        return path

    def load(self, file: str | Path) -> "AdaptivePolicy":
        """The adapted policy that `save` wrote.

        Raises:
            UserError: if the file cannot be read, or was written by a policy of other weights.
        """
        agent = self._policy_agent("load")
        try:
            with safe_open(file, "pt") as content:
                metadata = content.metadata() or {}
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            steps, returns = json.loads(metadata["steps"]), tuple(json.loads(metadata["returns"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{file} is not a saved policy ({error})") from error
        if metadata.get("weights_sha256") != self.run.weights_sha256():
            raise UserError(f"{file} was adapted from other weights than those of {self.run.path}")
        return replace(self, agent=agent.with_tensors(tensors, steps, returns))

    def _policy_agent(self, verb: str) -> PolicyAgent:
        if not isinstance(self.agent, PolicyAgent):
            raise UserError(f"{self.method.label} has an agent of its own, without {verb}")
        return self.agent


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int | np.integer) or value < 1):
        raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
