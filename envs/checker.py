"""`check_family`, which tests whether a task family conforms to the protocol."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import NDArray

from metarl.envs.family import TaskFamily, check_members, check_outcome, check_spaces, checked_tasks
from metarl.envs.observations import flat_family, flat_space
from metarl.errors import UserError

T = TypeVar("T")
VectorEnv = gym.vector.VectorEnv[Any, Any, Any]
Arrays = dict[str, NDArray[Any]]
NUM_TASKS = 100  # among which two must differ
API = (
    "reset(*, seed=None, options=None) must take the task from options['task'] and return "
    "(observation, info), and step(action) must return (observation, reward, terminated, "
    "truncated, info), as in Gymnasium since version 0.26"
)


def check_family(family: TaskFamily, num_envs: int = 4) -> None:
    """Check whether a family conforms to the protocol that training relies on.

    It plays episodes of random actions in a single and in a vector environment, and checks shapes,
    types, finiteness, determinism, the independence of sub-environments, and partial resets.

    If nothing in these episodes depends on the task, it only warns, since random actions may never
    reach a sparse reward.

    Args:
        family: an instance of the family, such as `Poles()`.
        num_envs: the number of sub-environments; at least 2.

    Raises:
        UserError: describing the first violation, and the method to change.
    """
    if isinstance(family, type):
        raise UserError(f"check_family takes an instance, such as {family.__name__}()")
    tasks, other_tasks = check_single(family, num_envs)
    family = flat_family(family)
    with closing(family.make()) as env, closing(_make_vec(family, num_envs)) as envs:
        for name in ("single_observation_space", "single_action_space"):
            single, space = getattr(env, name.removeprefix("single_")), getattr(envs, name)
            if single != space:
                raise UserError(
                    f"make and make_vec must have the same {name.removeprefix('single_')}: "
                    f"{single} and {space}"
                )
        episode = _check_episode(family, envs, tasks)
        _check_equal(
            episode,
            _play(envs, tasks, family.horizon),
            slice(None),
            "two episodes with the same seeds, tasks and actions must be the same",
            "draw random numbers from self.np_random only, which reset(seed=seed) seeds, and have "
            "reset restore all other state",
        )
        _check_equal(
            episode,
            _play(envs, np.vstack([tasks[:1], other_tasks[1:]]), family.horizon, variant=1),
            slice(1),
            "a sub-environment must not depend on the seeds, tasks and actions of the others",
            "have make return a new environment at each call, without state that they share",
        )
        _warn_if_independent(episode, _play(envs, other_tasks, family.horizon))
        _check_partial_reset(envs, tasks)


def check_single(
    family: TaskFamily, num: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of `check_family` that concerns tasks and a single environment.

    It takes an episode, so that training begins with it. Unlike the rest, it permits environments
    that are not deterministic.

    Returns:
        Tasks (num, T), and as many others that differ from them row by row.

    Raises:
        UserError: as `check_family`.
    """
    check_members(family, type(family).__name__)
    tasks = _check_tasks(family, num)
    with closing(_check_made(_call("make", family.make))) as env:
        _check_env(env, tasks[0][0], family.horizon)
        _warn_of_action_bounds(env)
    return tasks


def _warn_of_action_bounds(env: gym.Env[Any, Any]) -> None:
    """Warn of bounds that most actions of a new policy, of mean 0 and deviation 1, exceed."""
    space = env.action_space
    if not isinstance(space, Box):
        return
    bounds = np.concatenate([-space.low.ravel(), space.high.ravel()])
    if ((bounds < 0.3) | (np.isfinite(bounds) & (bounds > 10.0))).any():
        warnings.warn(
            f"the actions of {_name(env)} are between {space.low.min():g} and "
            f"{space.high.max():g}, and those of a new policy about -1 to 1; wrap it in "
            "gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)",
            stacklevel=3,
        )


def _check_tasks(family: TaskFamily, num: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tasks (num, T), and as many others that differ from them row by row."""

    def sample(seed: int, num_tasks: int) -> NDArray[np.float64]:
        return _call("sample_tasks", checked_tasks, family, np.random.default_rng(seed), num_tasks)

    tasks, pool = sample(0, num), sample(1, NUM_TASKS)
    sample(0, 1)  # a call in between, which would move on a generator of the family's own
    if not np.array_equal(tasks, sample(0, num)):
        raise UserError(
            "sample_tasks must use the given generator only: two equal generators gave different "
            "tasks"
        )
    differs = (pool != tasks[:, None]).any(-1)  # (num, NUM_TASKS)
    if not differs.any(1).all():
        raise UserError(
            f"sample_tasks must sample from a distribution of tasks, but {NUM_TASKS} tasks were "
            f"all {pool[0].tolist()}"
        )
    if hasattr(family, "sample_test_tasks"):
        rng = np.random.default_rng(2)
        _call("sample_test_tasks", checked_tasks, family, rng, num, test=True)
    if validate := getattr(family, "validate_task", None):
        for task in tasks:
            try:
                validate(task)
            except ValueError as error:
                raise UserError(
                    f"validate_task must accept the tasks of sample_tasks, such as "
                    f"{task.tolist()}: {error}"
                ) from error
    if not isinstance(text := _call("describe", family.describe, tasks[0]), str):
        raise UserError(f"describe must return a string, not {text!r}")
    return tasks, pool[differs.argmax(1)]


def _check_made(env: object) -> gym.Env[Any, Any]:
    if not isinstance(env, gym.Env):
        raise UserError(
            f"make must return a gymnasium.Env, not {type(env).__module__}.{type(env).__name__}; "
            "the package shimmy converts environments of the old gym"
        )
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gym.Space):
            raise UserError(f"{_name(env)} must have the attribute {name}, a gymnasium.Space")
    check_spaces(flat_space(env.observation_space), env.action_space)
    return env


def _make_vec(family: TaskFamily, num_envs: int) -> VectorEnv:
    envs: VectorEnv = _call("make_vec", family.make_vec, num_envs)
    if not isinstance(envs, gym.vector.VectorEnv):
        raise UserError(
            f"make_vec must return a gymnasium.vector.VectorEnv, not {type(envs).__name__}; "
            "metarl.envs.vectorise(make, num_envs) makes one"
        )
    if envs.num_envs != num_envs:
        raise UserError(
            f"make_vec({num_envs}) must make {num_envs} sub-environments, not {envs.num_envs}"
        )
    return envs


class _Options(dict[str, Any]):
    """Options of a reset, which count how often the task or all of them were read."""

    num_reads = 0


def _counting(name: str) -> Callable[..., Any]:
    def method(self: _Options, *args: Any) -> Any:
        self.num_reads += 1
        return getattr(dict, name)(self, *args)

    return method


for _method in ("__getitem__", "__iter__", "copy", "get", "items", "keys", "pop", "values"):
    setattr(_Options, _method, _counting(_method))


def _check_env(env: gym.Env[Any, Any], task: NDArray[np.float64], horizon: int) -> None:
    """Play one episode in a single environment, with actions of its action space."""
    name, options = _name(env), _Options(task=task.copy())
    if not _accepts(env.unwrapped.reset, seed=0, options={}):
        raise UserError(f"reset of {name} must accept seed and options: {API}")
    env.action_space.seed(0)
    result: Any = _call(f"reset of {name}", env.reset, seed=0, options=options)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise UserError(
            f"reset of {name} must return (observation, info), not {_kind(result)}: {API}"
        )
    if not options.num_reads:
        raise UserError(f"reset of {name} never reads options['task']: {API}")
    _check_observation(env.observation_space, result[0], f"reset of {name}")
    for t in range(horizon):
        result = _call(f"step of {name}", env.step, env.action_space.sample(), after=(t, horizon))
        if not (isinstance(result, tuple) and len(result) == 5):
            raise UserError(f"step of {name} must return five values, not {_kind(result)}: {API}")
        observation, reward, *ends, info = result
        _check_observation(env.observation_space, observation, f"step of {name}")
        for key, value, kinds, kind in (
            ("reward", reward, "fiub", "a number"),
            ("terminated", ends[0], "biu", "a boolean"),
            ("truncated", ends[1], "biu", "a boolean"),
        ):
            if np.ndim(value) or np.asarray(value).dtype.kind not in kinds:
                raise UserError(f"step of {name} must return {key} as {kind}, not {value!r}: {API}")
        if not isinstance(info, dict):
            raise UserError(f"step of {name} must return info as a dictionary, not {info!r}: {API}")
        if any(ends):
            break


def _check_observation(space: gym.Space[Any], observation: Any, source: str) -> None:
    """Check shape, type and bounds of one observation; rounding to the space's type is allowed."""
    problem = ""
    if not isinstance(space, Box):
        problem = "" if space.contains(observation) else f": {observation!r}"
    elif (array := np.asarray(observation)).shape != space.shape:
        problem = f" of shape {array.shape}"
    elif not np.can_cast(array.dtype, space.dtype, "same_kind"):
        problem = f" of type {array.dtype}"
    elif not np.isfinite(array).all():
        problem = f" that is not finite: {array.tolist()}"
    # compared in the space's type: rounding to float32 alone is no violation
    elif ((row := array.astype(space.dtype)) < space.low).any() or (row > space.high).any():
        problem = f" outside the bounds: {array.tolist()}"
    if problem:
        raise UserError(
            f"{source} returned an observation that is not of observation_space, {space}{problem}; "
            "correct either of them (bounds that are not known are -inf and inf)"
        )


def _check_episode(family: TaskFamily, envs: VectorEnv, tasks: NDArray[np.float64]) -> Arrays:
    """An episode; if it fails, say whether actions outside the bounds are the reason."""
    try:
        return _play(envs, tasks, family.horizon)
    except UserError as error:
        if isinstance(envs.single_action_space, Box):
            with closing(_make_vec(family, len(tasks))) as clipped:
                # raises the environment's own error if it does not depend on the bounds
                _play(clipped, tasks, family.horizon, clip=True)
            raise UserError(
                f"{error}; with actions inside the bounds of action_space it does not. Policies "
                "draw actions from a normal distribution: wrap the environment in "
                "gymnasium.wrappers.ClipAction, and before that in RescaleAction if its bounds are "
                "not -1 and 1"
            ) from error
        raise


def _play(
    envs: VectorEnv, tasks: NDArray[np.float64], horizon: int, variant: int = 0, clip: bool = False
) -> Arrays:
    """Observations, rewards and ends of one episode in each sub-environment; zero after its end.

    `variant` selects the seeds and actions of all sub-environments but the first. With `clip`,
    actions are clipped to the bounds of their space; a policy's are not.
    """
    num_envs, space = envs.num_envs, envs.single_action_space
    shape = num_envs, envs.single_observation_space.shape[0]  # type: ignore[index] # flat
    # variants change everything around the first sub-environment, which must not notice
    seeds = [index + 1000 * variant * (index > 0) for index in range(num_envs)]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    outcome: Arrays = {
        "observations": np.zeros((horizon + 1, *shape)),
        "rewards": np.zeros((horizon + 1, num_envs)),
        "ends": np.zeros((horizon + 1, num_envs), dtype=bool),
    }
    name = "the environment of make_vec"
    options = {"task": tasks.copy()}
    result: Any = _call(f"reset of {name}", envs.reset, seed=seeds, options=options)
    observation, reward, end = result[0], np.zeros(num_envs), np.zeros(num_envs, dtype=bool)
    check_outcome(shape, observation)
    alive, had_success = np.ones(num_envs, dtype=bool), False
    for t in range(horizon + 1):
        for key, value in (("observation", observation), ("reward", reward)):
            if not np.isfinite(value[alive]).all():
                raise UserError(
                    f"{'step' if t else 'reset'} of {name} returned {key}s that are not finite "
                    f"after {t} steps: {value[alive].tolist()}"
                )
        # values after an end are undefined, and must not be compared
        outcome["observations"][t, alive] = observation[alive]
        outcome["rewards"][t, alive] = reward[alive]
        outcome["ends"][t] = end & alive
        alive &= ~end
        if t == horizon or not alive.any():
            break
        actions = np.stack([_random_action(space, rng) for rng in rngs])
        if clip:
            actions = np.clip(actions, space.low, space.high)  # type: ignore[attr-defined] # a Box
        result = _call(f"step of {name}", envs.step, actions, after=(t, horizon))
        observation, reward, terminated, truncated, info = result
        check_outcome(shape, observation, reward, terminated, truncated)
        has_success = "success" in info or "success" in info.get("final_info", {})
        if t and has_success != had_success and alive.all():
            raise UserError(
                f"step of {name} must report info['success'] at every step or never, not only "
                f"{'after' if has_success else 'before'} {t} steps: without it, an episode looks "
                "like one that failed"
            )
        had_success = has_success
        end = terminated | truncated
    return outcome


def _random_action(space: gym.Space[Any], rng: np.random.Generator) -> Any:
    """A random action; like a policy's, that of a Box may lie outside its bounds."""
    if isinstance(space, Discrete | MultiDiscrete):
        return rng.integers(space.n if isinstance(space, Discrete) else space.nvec)
    return rng.standard_normal(space.shape, dtype=np.float32)


def _check_equal(expected: Arrays, actual: Arrays, envs: slice, rule: str, advice: str) -> None:
    for name in expected:
        differs = expected[name][:, envs] != actual[name][:, envs]
        if differs.any():
            # the first step that differs is the one to debug
            step = np.flatnonzero(differs.reshape(len(differs), -1).any(1))[0]
            raise UserError(f"{rule}, but their {name} differ after {step} steps: {advice}")


def _warn_if_independent(episode: Arrays, other: Arrays) -> None:
    """Warn if rewards, observations and ends were the same on other tasks."""
    if all(np.array_equal(episode[name], other[name]) for name in episode):
        warnings.warn(
            "neither rewards nor observations nor ends depended on the task in episodes of random "
            "actions; that is right for a reward that they do not reach, and an error in reset or "
            "step otherwise",
            stacklevel=3,
        )


def _check_partial_reset(envs: VectorEnv, tasks: NDArray[np.float64]) -> None:
    options: dict[str, Any] = {"task": tasks.copy()}
    # one step away from the start, so that a full reset would show
    envs.reset(seed=0, options=dict(options))
    rngs = [np.random.default_rng(index) for index in range(envs.num_envs)]
    actions = np.stack([_random_action(envs.single_action_space, rng) for rng in rngs])
    before = np.array(envs.step(actions)[0])
    reset_mask = np.arange(envs.num_envs) == 0
    options["reset_mask"] = reset_mask
    name = "reset of the environment of make_vec"
    after, _ = _call(name, envs.reset, options=options)
    if not np.array_equal(before[~reset_mask], after[~reset_mask]):
        raise UserError(
            f"{name} with options={{'reset_mask': mask}} must not change the sub-environments "
            "outside the mask; metarl.envs.vectorise makes a vector environment that conforms"
        )


def _call(
    name: str,
    function: Callable[..., T],
    *args: Any,
    after: tuple[int, int] = (0, 0),
    **kwargs: Any,
) -> T:
    """Call a user's function; an error names it, its source, and the step of the episode."""
    try:
        return function(*args, **kwargs)
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        # not those of this file and of libraries, which called the user's code
        user_frames = [
            f for f in frames if f.filename != __file__ and "site-packages" not in f.filename
        ]
        frame = (user_frames or frames)[-1]
        message = f"{name} raised {type(error).__name__}: {error} ({Path(frame.filename).name}, "
        message += f"line {frame.lineno})"
        if after[0]:
            message += (
                f" after {after[0]} steps of an episode; it is stepped until it returns terminated "
                f"or truncated, at most {after[1]} times (horizon)"
            )
        if "make_vec" in name and isinstance(error, TypeError | gym.error.Error):
            message += (
                "; reset takes a list of seeds and options={'task': tasks}, one of each for every "
                "sub-environment, as that of metarl.envs.vectorise does"
            )
        elif isinstance(error, TypeError) or "unpack" in str(error):
            message += f"; {API}"
        raise UserError(message) from error


def _accepts(function: Callable[..., Any], **kwargs: Any) -> bool:
    try:
        inspect.signature(function).bind(**kwargs)
    except TypeError:
        return False
    except ValueError:  # without a signature
        return True
    return True


def _name(env: gym.Env[Any, Any]) -> str:
    return type(env.unwrapped).__name__


def _kind(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, tuple) else f"one {type(value).__name__}"
