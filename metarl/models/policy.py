"""The policy of a run in reinforcement learning, as an object to use: `metarl.load`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl.context import CONTEXT
from metarl.envs.family import as_task, checked_task
from metarl.envs.observations import AnyEnv
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.io import report_os_errors
from metarl.models.adapted_file import load_adapted, save_adapted
from metarl.models.export import check_export, export
from metarl.parallel import one_thread
from metarl.params import Params
from metarl.report.adapted_policy import load_agent, policy_method
from metarl.report.evaluations import own_evaluation
from metarl.report.video import Episode, record, record_in, write_gif, write_mp4
from metarl.rl.agent import Agent, adapt_in, play_episodes
from metarl.rl.external_data import Episodes, Trajectory
from metarl.rl.outer_loop import PolicyLearner
from metarl.rl.policy_agent import PolicyAgent
from metarl.rl.problem import PolicyMethod
from metarl.rng import RngKey, make_rng
from metarl.runs.run import Run


@dataclass(frozen=True)
class AdaptivePolicy:
    """A trained policy that acts, and adapts to one task after another. Returned by `metarl.load`.

        adapted = policy.adapt(env, task=[-1.0])
        action = adapted.act(observation)

    `adapt` returns a new policy and does not change this one. Policies of all methods have this
    interface. Methods without gradient steps on a task adapt by their memory (RL², VariBAD), or not
    at all (an oracle).

    Shapes: S is the size of an observation, A that of an action, T that of a task.

    Attributes:
        run: the run that it was loaded from.
        method: the method that trained it.
        agent: the `metarl.Agent` that acts and adapts.
        seed: seed of the sampled actions; policies with equal seeds act and adapt identically.
    """

    run: Run
    method: PolicyMethod
    agent: Agent
    seed: int = 0

    @classmethod
    def from_run(cls, run: Run, seed: int = 0) -> AdaptivePolicy:
        """Load the policy of a run; see `metarl.load`."""
        method = policy_method(run)
        return cls(run, method, load_agent(run, method, seed), seed)

    def __repr__(self) -> str:
        return f"<{self.method.label} policy of {self.run.path}, after {self.steps} gradient steps>"

    @property
    def params(self) -> Params:
        """The current parameters, by name, and the learned step sizes if there are any."""
        return self._policy_agent("params").params

    @property
    def steps(self) -> int:
        """The number of gradient steps since the policy was loaded or reset."""
        return getattr(self.agent, "steps", 0)

    @property
    def returns(self) -> tuple[float, ...]:
        """For each gradient step, the mean return of the episodes that it used."""
        return getattr(self.agent, "returns", ())

    @property
    def horizon(self) -> int:
        """The maximum number of time steps of an episode in training."""
        horizon: int = self.method.problem.family.horizon
        return horizon

    def reset(self, task: ArrayLike | None = None, **settings: Any) -> None:
        """Start a new task: forget memory, observed episodes and adapted parameters.

        Args:
            task: (T,), for policies that observe the task (oracles); all others ignore it.
            settings: `autoreset_mode` of the vector environment, "NextStep" by default.
        """
        self.agent.reset(task, **settings)

    def act(self, observation: ArrayLike, deterministic: bool = False) -> Any:
        """Choose an action for an observation, as `predict` does in stable-baselines3.

        Actions are sampled, as in training, unless `deterministic` is set, and not clipped. The
        environments of this package clip them; wrap others in `gymnasium.wrappers.ClipAction`.

        Args:
            observation: (S,), or (num_envs, S) of a vector environment; or images, with the shape
                of the observation space.
            deterministic: return the mean of a continuous distribution, or the most probable action
                of a discrete one.

        Returns:
            The action for `env.step`: (A,), or an index if actions are discrete. For a vector
            environment, it has a leading axis num_envs.

        Raises:
            UserError: if the observation has the wrong shape or is not finite, if an oracle has no
                task (`reset(task)`), or if a recurrent policy did not `observe` its last action.
            FloatingPointError: if the action is not finite, after an update that was too large.
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

        Recurrent policies require it after each call of `act`. Other policies record the episodes
        that `adapt()` uses.

        Args:
            reward: a number, or (num_envs,).
            terminated: a boolean, or (num_envs,).
            truncated: a boolean, or (num_envs,).
            next_observation: (S,) or (num_envs, S); required only for bootstrapping at time limits
                (`inner.bootstrap`).

        Raises:
            UserError: if `act` was not called, a shape is wrong, or the reward is not finite.
        """
        self.agent.observe(reward, terminated, truncated, next_observation)

    def adapt(
        self,
        experience: AnyEnv | Episodes | None = None,
        task: ArrayLike | None = None,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        step_size: float | None = None,
        horizon: int | None = None,
    ) -> AdaptivePolicy:
        """Adapt to a task: by a gradient step (Finn et al. 2017, section 2.2), or by memory.

        Args:
            experience: one of
                an environment, single or vector, with the observation and action spaces of the
                training; it is reset before every episode and not closed;
                a list of episodes, `Trajectory` or (observations, actions, rewards), that this same
                policy played, before adaptation to them;
                None, for the episodes observed since the last `reset` or `adapt`.
            task: (T,), passed to every reset of the environment as `options={"task": task}`. If
                None, no options are passed, and the environment chooses its task.
            steps: the number of gradient steps; by default that of training in an environment, and
                otherwise 1. Each one uses new episodes, so that more than one requires an
                environment.
            episodes: the number of episodes for each step, whatever their length; by default
                `evaluation.episodes_per_task` of the run. If they are too few for the baseline of
                the advantages, a warning is issued.
            step_size: α; by default the learned step sizes, or those of the run's evaluation.
            horizon: the maximum number of time steps of an episode; by default as in training.

        Returns:
            The adapted policy. This one is unchanged.

        Raises:
            UserError: if the environment or the episodes do not fit the policy, or an argument is
                out of its range.
            FloatingPointError: if a parameter is not finite after the step.
        """
        is_name = isinstance(experience, str)  # which is a sequence, too
        if is_name or not (
            experience is None or isinstance(experience, Sequence | gym.Env | gym.vector.VectorEnv)
        ):
            is_family = hasattr(experience, "sample_tasks")
            raise UserError(
                "a policy adapts to a gymnasium environment, or to a list of episodes, each "
                "(observations, actions, rewards), not to "
                f"{repr(experience) if is_name else type(experience).__name__}"
                f"{'; an environment of the family is family.make()' * is_family}"
            )
        if isinstance(experience, Trajectory) or (
            isinstance(experience, tuple) and all(isinstance(x, np.ndarray) for x in experience)
        ):
            raise UserError("a policy adapts to a list of episodes: put the single one in a list")
        family = self.method.problem.raw_family
        row = as_task(task)
        if row is not None and len(row) != family.task_size:
            warnings.warn(
                f"the task {task!r} has {len(row)} numbers, and those of the training have "
                f"{family.task_size}",
                stacklevel=2,
            )
        for name, value in (("steps", steps), ("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        is_number = isinstance(step_size, int | float | np.number)
        if step_size is not None and not (is_number and 0.0 < step_size < 1e30):
            raise UserError(f"step_size must be a positive number, not {step_size!r}")
        if step_size is not None and not getattr(self.agent, "step_sizes", True):
            raise UserError(
                f"{self.method.label} takes no gradient steps on a task; leave step_size out"
            )
        options = {} if step_size is None else {"step_size": step_size}
        agent = self.agent
        if isinstance(experience, gym.Env | gym.vector.VectorEnv):
            settings = self.method.problem.config.evaluation
            number = episodes or getattr(
                self.method, "adaptation_episodes", settings.episodes_per_task
            )
            # each step has episodes of the policy after the step before
            for _ in range(steps or self.training_steps):
                length = horizon or self.horizon
                agent = adapt_in(agent, experience, number, length, task, **options)
            return replace(self, agent=agent)
        # the policy gradient is that of the policy which played the episodes
        if steps not in (None, 1):
            raise UserError(
                f"steps must be 1 for given episodes, not {steps!r}: each step needs new episodes, "
                "played by the adapted policy, as in policy.adapt(first).adapt(second)"
            )
        if task is not None:
            raise UserError(
                "task is passed to an environment, without effect on given episodes; leave it out"
            )
        if episodes is not None or horizon is not None:
            raise UserError(
                "episodes and horizon are of an environment, without effect on given episodes; "
                "leave them out"
            )
        return replace(self, agent=agent.adapt(experience, **options))

    @property
    def training_steps(self) -> int:
        """The number of gradient steps on a task in training; 1 if it takes none."""
        unit, config = self.method.adaptation_unit, self.method.problem.config
        is_trained = self.method.role == "meta-learner" and unit is not None and unit.has_step_sizes
        return config.inner.steps if is_trained else 1

    def play(
        self,
        env: AnyEnv,
        task: ArrayLike | None = None,
        *,
        episodes: int = 1,
        horizon: int | None = None,
    ) -> list[Trajectory]:
        """Play episodes in an environment, without adaptation by gradient steps.

        A recurrent policy keeps its memory from one episode to the next. Afterwards, its memory is
        as before the call.

        Args:
            env: a single or vector environment, as for `adapt`.
            task: as for `adapt`.
            episodes: the number of episodes.
            horizon: as for `adapt`.

        Returns:
            The episodes. `total` of each is its undiscounted return.
        """
        for name, value in (("episodes", episodes), ("horizon", horizon)):
            _check_count(name, value)
        # a random stream of its own: these are not the episodes that an adaptation would play
        return play_episodes(self.agent, env, episodes, horizon or self.horizon, task, ("play",))

    def evaluate(self, tasks: ArrayLike | None = None) -> AdaptationCurve:
        """Evaluate on held-out tasks: returns after 0, 1, 2, ... adaptation steps.

        The settings are those of the section `evaluation` of the run's config. Before adaptation,
        the evaluation stored in the run is read if it has these settings, perhaps on other tasks.
        An adapted policy is evaluated anew, and the result is not stored. `metarl.evaluate(run,
        tasks=200)` changes settings.

        A recurrent policy is evaluated from an empty memory.

        Args:
            tasks: (N, T), two tasks or more; by default those of the run's evaluation. The result
                for tasks of one's own is not stored.

        Raises:
            UserError: if a context was adapted (CAVIA), which an evaluation starts from zero, or
                the tasks are not tasks of the family.
        """
        if self.steps and CONTEXT in self.params:
            raise UserError(
                "an evaluation starts from a context of zero, and would be that of the policy "
                "before adaptation; evaluate that one, or play() this one"
            )
        if tasks is not None:
            return self._evaluate_on(tasks)
        if self.steps == 0:
            return own_evaluation(self.run).curve
        return self.method.evaluate(self.params)

    @one_thread()
    def _evaluate_on(self, tasks: ArrayLike) -> AdaptationCurve:
        problem, method = self.method.problem, self.method
        if not isinstance(method, PolicyLearner):
            raise UserError(f"{method.label} evaluates the run's own tasks only; leave tasks out")
        try:
            rows = np.asarray(tasks, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"tasks must be rows of numbers, not {tasks!r}") from error
        if rows.ndim != 2 or len(rows) < 2:
            raise UserError(
                f"tasks must be two rows or more, (N, {problem.family.task_size}), not of shape "
                f"{rows.shape}"
            )
        checked = np.stack([checked_task(problem.family, row) for row in rows])
        key = RngKey(problem.config.evaluation.seed)
        sizes = method.fine_tuning_step_sizes(self.params)
        return method.curve(self.params, checked, key, sizes)

    def render(
        self, file: str | Path | None = None, task: ArrayLike | None = None, env: Any = None
    ) -> Episode:
        """Render one episode.

        Args:
            file: a video to write, .mp4 or .gif; by default none.
            task: (T,); by default the first held-out task of the evaluation, or with `env` the task
                that it chooses.
            env: a single environment constructed with `render_mode="rgb_array"`; by default an
                environment of the run's task family.

        Returns:
            The episode: its `frames`, RGB images (height, width, 3), `returns`, the sum of rewards
            up to each frame, and `fps`, frames per second.

        Raises:
            UserError: if the file has another suffix, or nothing can be rendered.
        """
        path = None if file is None else Path(file)
        if path and path.suffix not in (".mp4", ".gif"):
            raise UserError(f"a video must have the suffix .mp4 or .gif: {path.name!r}")
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
            with report_os_errors(f"cannot write {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write = write_mp4 if path.suffix == ".mp4" else write_gif
                write(path, episode.frames, episode.fps)
        return episode

    def export(self, file: str | Path) -> Path:
        """Write the policy with its current parameters to a file that can be used without metarl.

        ONNX, TorchScript and torch.export files map observations (N, S) to actions (N, A), or to
        indices (N,), as `act(observations, deterministic=True)` does; both are compared before the
        file is written. Actions are not clipped.

        Args:
            file: a new file: .zip (stable-baselines3, `PPO.load`), .onnx (the extra `onnx`), .pt
                (TorchScript, `torch.jit.load`) or .pt2 (`torch.export.load`).

        Raises:
            UserError: if the file exists, or the format does not support the policy.
        """
        export(self._policy_agent("export"), Path(file))
        return Path(file)

    def check_export(self, file: str | Path) -> None:
        """Check that `export` can write the policy to a file, for instance before it adapts.

        Raises:
            UserError: as for `export`.
        """
        check_export(self._policy_agent("export"), Path(file))

    def save(self, file: str | Path) -> Path:
        """Save the adapted parameters and the memory to a safetensors file, for `load`.

        The weights of the run are saved by training. Only adaptation needs this method.
        """
        agent = self._policy_agent("save")
        values = {"steps": agent.steps, "returns": agent.returns}
        return save_adapted(file, self.run, agent.tensors(), values)

    def load(self, file: str | Path) -> AdaptivePolicy:
        """Load an adapted policy that `save` wrote: `metarl.load(run).load(file)`.

        Raises:
            UserError: if the file cannot be read, or was saved by a policy with other weights.
        """
        agent = self._policy_agent("load")
        names = ("steps", "returns")
        tensors, (steps, returns) = load_adapted(file, self.run, "policy", names)
        return replace(self, agent=agent.with_tensors(tensors, steps, returns))

    def _policy_agent(self, verb: str) -> PolicyAgent:
        if not isinstance(self.agent, PolicyAgent):
            raise UserError(
                f"the agent of {self.method.label}, {type(self.agent).__name__}, has no {verb}"
            )
        return self.agent


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int | np.integer) or value < 1):
        raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
