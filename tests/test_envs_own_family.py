"""Custom environments and task families of a user."""

import multiprocessing
import os
import re
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import ClipAction, RescaleAction

from metarl.baselines.multi_task_env import MultiTaskEnv
from metarl.envs import (
    FAMILIES,
    BatchedEnv,
    PointNavigation,
    TaskConditioned,
    check_family,
    load_family,
    register_family,
    vectorise,
)
from metarl.envs.family import checked_task, checked_tasks, releases_gil
from metarl.errors import UserError
from metarl.rl.external_data import collect_episodes
from metarl.rl.policies import policy_for
from metarl.rng import RngKey


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_users_family_is_named_by_module_and_class(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily", {"spread": 2.0, "asynchronous": asynchronous})
    check_family(family, num_envs=3)


def test_a_users_family_may_be_a_function(
    in_users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES))  # do not keep the new name
    module = Path("my_functions.py")
    module.write_text(
        "from metarl.envs import register_family\nfrom my_tasks import LineFamily\n"
        '@register_family("wide-line")\ndef wide_line(spread=9.0):\n    return LineFamily(spread)\n'
    )
    sys.modules.pop("my_functions", None)
    family = load_family("my_functions:wide_line")
    check_family(family)
    assert family.spread == 9.0
    for name in ("wide-line", "my_functions:wide_line"):
        assert load_family(name, {"spread": 3.0}).spread == 3.0
        with pytest.raises(UserError, match="did you mean 'spread'"):
            load_family(name, {"spraed": 3.0})
    with pytest.raises(UserError, match="did you mean 'wide-line'"):
        load_family("wide-lien")


def test_the_name_of_a_family_is_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES))
    assert register_family("point-navigation")(PointNavigation) is PointNavigation  # no change
    with pytest.raises(ValueError, match=r"'ant-goal' is already metarl\.envs\.ant:ant_goal"):
        register_family("ant-goal")(PointNavigation)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_sub_environment_keeps_its_task_across_autoresets(
    in_users_folder: Path, asynchronous: bool
) -> None:
    family = load_family("my_tasks:LineFamily")
    envs = vectorise(family.make, 2, asynchronous)
    tasks = np.array([[-5.0], [5.0]])
    envs.reset(seed=0, options={"task": tasks})
    for _ in range(20):
        observation, reward, *_ = envs.step(np.array([1, 1]))
        moved = reward != 0.0  # the step of an autoreset has no reward
        expected = -np.abs(observation[:, 0] - tasks[:, 0])
        np.testing.assert_allclose(reward[moved], expected[moved])
    envs.close()


def test_the_checker_reports_a_violation(in_users_folder: Path) -> None:
    family = load_family("my_tasks:LineFamily")

    class Careless(type(family)):  # type: ignore[misc]
        def sample_tasks(self, rng, num_tasks):
            return np.zeros((num_tasks, 1))

    with pytest.raises(UserError, match="must sample from a distribution"):
        check_family(Careless())


def modified_family(**members):
    """The line family with some members replaced."""
    family = load_family("my_tasks:LineFamily")
    vars(family).update(members)
    return family


TASKS = {
    "one axis": (lambda rng, n: rng.normal(size=n), r"\(4, 1\), not \(4,\)"),
    "one task": (lambda rng, n: rng.normal(size=(1, 1)), r"\(4, 1\), not \(1, 1\)"),
    "too many": (lambda rng, n: rng.normal(size=(n + 1, 1)), r"\(4, 1\), not \(5, 1\)"),
    "another size": (lambda rng, n: rng.normal(size=(n, 2)), r"\(4, 1\), not \(4, 2\)"),
    "nothing": (lambda rng, n: None, "real numbers, not elements of type object"),
    "ragged": (lambda rng, n: [[1.0]] * (n - 1) + [[1.0, 2.0]], "one row per task"),
    "words": (lambda rng, n: [["left"]] * n, "real numbers"),
    "digits": (lambda rng, n: [["1"]] * n, "real numbers"),
    "objects": (lambda rng, n: np.array([[0.5]] * n, dtype=object), "real numbers"),
    "complex": (lambda rng, n: rng.normal(size=(n, 1)) + 1j, "real numbers"),
    "NaN": (lambda rng, n: np.full((n, 1), np.nan), "finite numbers"),
    "infinite": (lambda rng, n: np.full((n, 1), np.inf), "finite numbers"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_invalid_tasks_are_an_error_wherever_they_are_sampled(
    kind: str, in_users_folder: Path
) -> None:
    sample_tasks, message = TASKS[kind]
    family = modified_family(sample_tasks=sample_tasks)
    envs = MultiTaskEnv(family, 4)
    for use in (
        lambda: checked_tasks(family, np.random.default_rng(0), 4),
        lambda: check_family(family),
        lambda: TaskConditioned(family).sample_tasks(np.random.default_rng(0), 4),
        envs.reset,
    ):
        with pytest.raises(UserError, match=f"sample_tasks of LineFamily must return .*{message}"):
            use()


def test_tasks_in_lists_and_of_integers_become_arrays_of_floats(in_users_folder: Path) -> None:
    for tasks in ([[1], [2]], np.array([[1], [2]]), np.float32([[1], [2]]), ((1,), (2,))):
        family = modified_family(sample_tasks=lambda rng, n, tasks=tasks: tasks)
        checked = checked_tasks(family, np.random.default_rng(0), 2)
        assert checked.dtype == np.float64
        assert checked.tolist() == [[1.0], [2.0]]
        assert checked is not tasks


def test_native_environments_check_the_tasks_that_they_sample() -> None:
    class Careless(PointNavigation):
        def sample_tasks(self, rng, num_tasks):
            return rng.normal(size=num_tasks)

    for env in (Careless().make(), BatchedEnv(Careless(), 2)):
        with pytest.raises(UserError, match="sample_tasks of Careless must return"):
            env.reset(seed=0)


@pytest.mark.parametrize("member", ["horizon", "task_size"])
@pytest.mark.parametrize("size", [0, -1, 2.5, "8", None, True])
def test_horizon_and_task_size_must_be_positive_integers(
    member: str, size: object, in_users_folder: Path
) -> None:
    with pytest.raises(UserError, match=f"{member} of .* must be an integer of at least 1"):
        check_family(modified_family(**{member: size}))
    Path("sizes.py").write_text(
        "from my_tasks import LineFamily\n"
        f"class Sized(LineFamily):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.{member} = {size!r}\n"
    )
    sys.modules.pop("sizes", None)
    with pytest.raises(UserError, match=f"{member} of task family 'sizes:Sized'"):
        load_family("sizes:Sized")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("RuntimeError('no licence')", r"it raised RuntimeError \(no licence\)"),
        ("KeyError('x')", "it raised KeyError"),
        ("SystemExit(3)", r"it raised SystemExit \(3\)"),
        ("ValueError('too small')", "does not accept its settings: too small"),
    ],
)
@pytest.mark.parametrize("where", ["constructor", "module"])
def test_an_error_in_the_constructor_of_a_family_is_reported(
    raised: str, message: str, where: str, in_users_folder: Path
) -> None:
    body = "pass" if where == "module" else f"raise {raised}"
    Path("raising.py").write_text(
        f"from my_tasks import LineFamily\nclass Family(LineFamily):\n    def __init__(self):\n"
        f"        {body}\n" + (f"raise {raised}\n" if where == "module" else "")
    )
    sys.modules.pop("raising", None)
    if where == "module":
        message = "importing 'raising' raised|cannot import 'raising'"
    with pytest.raises(UserError, match=f"'raising:Family'.*({message})"):
        load_family("raising:Family")


SPACES = {
    "text": (gym.spaces.Dict({"x": gym.spaces.Text(4)}), None, "FlattenObservation"),
    "matrix": (gym.spaces.Box(0, 255, (4, 4), np.uint8), None, "FlattenObservation"),
    "dict action": (None, gym.spaces.Dict({"x": gym.spaces.Discrete(2)}), "TransformAction"),
    "multi-discrete": (None, gym.spaces.MultiDiscrete([2, 3], start=[0, 1]), "TransformAction"),
    "two axes of choices": (None, gym.spaces.MultiDiscrete([[2, 3]]), "TransformAction"),
    "from 1": (None, gym.spaces.Discrete(2, start=1), "TransformAction"),
    "two axes": (None, gym.spaces.Box(-1, 1, (2, 2)), "TransformAction"),
    "integers": (None, gym.spaces.Box(0, 9, (2,), np.int64), "TransformAction"),
}


@pytest.mark.parametrize("kind", SPACES)
def test_an_unsupported_space_is_an_error_that_names_the_wrapper_to_use(
    kind: str, in_users_folder: Path
) -> None:
    observation_space, action_space, wrapper = SPACES[kind]

    def make(render_mode=None):
        env = type(family).make(family)
        env.observation_space = observation_space or env.observation_space
        env.action_space = action_space or env.action_space
        return env

    family = load_family("my_tasks:LineFamily")
    family.make = make
    env = make()
    for use in (
        lambda: check_family(family),
        lambda: policy_for(env.observation_space, env.action_space),
        lambda: MultiTaskEnv(family, 2),
    ):
        with pytest.raises(UserError, match=f"gymnasium.wrappers.{wrapper}"):
            use()


class Bounded(gym.Env):
    """Raises an error for actions outside its bounds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(0.0, 0.5, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target = options["task"][0] if options else 0.0
        return self.np_random.normal(size=1), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(1), float(action[0] - self.target), False, False, {}


def test_actions_rejected_outside_the_bounds_are_an_error_that_names_the_wrapper_to_use(
    in_users_folder: Path,
) -> None:
    def family(make):
        return modified_family(make=make, make_vec=lambda n: vectorise(make, n))

    with pytest.raises(UserError, match=r"ClipAction, and before that in RescaleAction"):
        check_family(family(Bounded))
    scaled = partial(RescaleAction, min_action=np.float32(-1), max_action=np.float32(1))
    check_family(family(lambda: ClipAction(scaled(Bounded()))))


def test_episodes_that_do_not_end_are_bounded_by_the_horizon_in_pretraining_too(
    in_users_folder: Path,
) -> None:
    endless = load_family("my_tasks:LineFamily")
    endless.make = lambda render_mode=None: type(endless).make(endless).env  # no TimeLimit
    check_family(endless)
    envs = MultiTaskEnv(endless, 2)
    envs.reset()
    for step in range(1, 2 * endless.horizon + 1):
        envs.step_async(np.zeros(2, np.int64))
        _, _, done, _ = envs.step_wait()
        assert done.all() == (step % endless.horizon == 0)
    assert len(envs.finished_returns) == 4


def test_a_vector_environment_that_ignores_the_reset_mask_is_an_error() -> None:
    class IgnoresMask(BatchedEnv):
        def reset(self, *, seed=None, options=None):
            options = {k: v for k, v in (options or {}).items() if k != "reset_mask"}
            return super().reset(seed=seed, options=options)

    class Family(PointNavigation):
        def make_vec(self, num_envs):
            return IgnoresMask(self, num_envs, autoreset_mode="Disabled")

    with pytest.raises(UserError, match=r"must not change the sub-environments outside the mask"):
        check_family(Family())
    envs = MultiTaskEnv(Family(horizon=9), 2)
    envs.start(0)
    envs.reset()
    goals = np.array([[0.1, 0.0], [0.5, 0.5]])  # the first is reached in one step
    envs._tasks[:] = goals
    envs._envs.reset(options={"task": goals})
    envs.step_async(np.float32([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(UserError, match="not in options"):
        envs.step_wait()


@pytest.mark.parametrize(("what", "name"), [("observation", "an observation"), ("reward", "a re")])
def test_pretraining_reports_the_environment_task_and_step_of_a_value_that_is_not_finite(
    what: str, name: str, in_users_folder: Path
) -> None:
    envs = MultiTaskEnv(load_family("my_tasks:LineFamily"), 3)
    envs.start(0)
    envs.reset()
    step = envs._envs.step

    def broken(actions):
        observation, reward, *ends = step(actions)
        (observation if what == "observation" else reward)[1] = np.nan
        return observation, reward, *ends

    envs._envs.step = broken
    envs.step_async(np.zeros(3, np.int64))
    task = re.escape(str(envs._tasks[1].tolist()))
    with pytest.raises(
        FloatingPointError, match=f"sub-environment 1 returned {name}.* after 1 steps.*{task}"
    ):
        envs.step_wait()


class EndsProcess(gym.Env):
    """Ends the process at its first step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, end):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        self.end()
        return np.zeros(1), 0.0, False, False, {}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_environment_that_calls_exit_does_not_end_the_training(asynchronous: bool) -> None:
    envs = vectorise(partial(EndsProcess, partial(sys.exit, 7)), 2, asynchronous)
    envs.reset(seed=0)
    with pytest.raises(UserError, match=r"an environment called exit\(7\)"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


def test_an_environment_that_calls_exit_while_it_is_made_is_reported() -> None:
    with pytest.raises(UserError, match=r"called exit\('no display'\)"):
        vectorise(partial(sys.exit, "no display"), 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_cannot_make_its_environment_is_reported() -> None:
    def make():
        if multiprocessing.parent_process():
            raise RuntimeError("only one process may use the simulator")
        return EndsProcess(lambda: None)

    with pytest.raises(UserError, match="ended before its environment was made"):
        vectorise(make, 2, asynchronous=True)


def test_a_process_that_died_is_reported_and_the_others_are_terminated() -> None:
    envs = vectorise(partial(EndsProcess, partial(os._exit, 7)), 2, asynchronous=True)
    envs.reset(seed=0)
    with pytest.raises(UserError, match=r"processes of some sub-environments died .*: 7"):
        envs.step(np.zeros(2, np.int64))
    envs.close()
    for process in envs.env.processes:
        process.join(10)
        assert process.exitcode is not None


def test_a_process_that_was_killed_between_two_episodes_is_reported() -> None:
    envs = vectorise(partial(EndsProcess, lambda: None), 2, asynchronous=True)
    envs.reset(seed=0)
    envs.env.processes[1].kill()
    envs.env.processes[1].join()
    with pytest.raises(UserError, match=r"\{1: -9\}"):
        envs.reset(seed=0, options={"task": np.zeros((2, 1))})
    envs.close()


def test_a_family_declares_that_it_releases_the_gil_by_the_new_or_the_old_property(
    in_users_folder: Path,
) -> None:
    assert not releases_gil(modified_family())
    assert releases_gil(modified_family(releases_gil=True))
    with pytest.warns(DeprecationWarning, match="rename it to releases_gil"):
        assert releases_gil(modified_family(divides=True))


IMPOSSIBLE = {
    "direction": ("half-cheetah-direction", [0.5], r"no such task as \[0\.5\]: .* is -1 or 1"),
    "direction of 0": ("ant-direction", [0.0], "a direction is -1 or 1, not 0"),
    "size": ("point-navigation", [0.1], r"has shape \(2,\), such as \[.*, not \(1,\): \[0\.1\]"),
    "rows": ("point-navigation", [[0.1, 0.2]], "must be a row of finite numbers"),
    "NaN": ("ant-velocity", [np.nan], "must be a row of finite numbers"),
    "words": ("ant-velocity", ["fast"], "must be a row of numbers"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_an_impossible_task_is_an_error_that_names_what_a_task_is(kind: str) -> None:
    name, task, message = IMPOSSIBLE[kind]
    with pytest.raises(UserError, match=message):
        checked_task(load_family(name), task)


@pytest.mark.parametrize("task", [[-1.0], [1.0]])
def test_possible_tasks_are_checked_to_be_rows(task: list[float]) -> None:
    assert checked_task(load_family("half-cheetah-direction"), task).tolist() == task
    assert checked_task(TaskConditioned(PointNavigation()), (3, 4)).tolist() == [3.0, 4.0]


def test_environments_refuse_impossible_tasks_at_their_reset() -> None:
    family = load_family("half-cheetah-direction")
    env, envs = family.make(), family.make_vec(2)
    for reset in (
        lambda: env.reset(options={"task": [0.5]}),
        lambda: envs.reset(options={"task": [[1.0], [-0.9]]}),
    ):
        with pytest.raises(ValueError, match="a direction is -1 or 1, not"):
            reset()
    policy = policy_for(env.observation_space, env.action_space, (4,))
    params = policy.init(torch.Generator())
    with pytest.raises(
        UserError, match=r"with the task \[0\.5\] raised ValueError: a direction is"
    ):
        collect_episodes(policy, params, env, 1, 2, RngKey(0), np.array([0.5]))


def test_a_users_family_says_what_a_task_must_be(in_users_folder: Path) -> None:
    def refuse(task):
        if task[0] < 0:
            raise ValueError("targets are positive")

    family = modified_family(validate_task=refuse)
    with pytest.raises(UserError, match=r"no such task as \[-1\.0\]: targets are positive"):
        checked_task(TaskConditioned(family), [-1])
    assert checked_task(family, 2.0).tolist() == [2.0]
