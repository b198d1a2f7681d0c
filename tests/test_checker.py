"""`check_family` says which method violates the protocol, and accepts families that do not."""

import re
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import ClipAction, TimeLimit

from metarl.envs import PointNavigation, check_family, vectorise
from metarl.envs.checker import check_single
from metarl.errors import UserError


class Slide(gym.Env):
    """A point on a line; the reward is minus its distance to the task."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = (options or {}).get("task", [0.0])[0]
        self.x, self.t = self.np_random.uniform(-0.1, 0.1), 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.x], np.float32)

    def move(self, action):
        self.t += 1
        self.x += 0.1 * float(np.clip(action, -1, 1)[0])

    def reward(self):
        return -abs(self.x - self.goal)

    def step(self, action):
        self.move(action)
        return self.observe(), self.reward(), False, False, {}


def refuse(task):
    raise ValueError("there is no such task")


class Slides:
    horizon, task_size = 6, 1

    def __init__(self, make=Slide, **members):
        self._make = make
        vars(self).update(members)

    def sample_tasks(self, rng, num_tasks):
        return rng.uniform(0.5, 1.0, (num_tasks, 1))

    def describe(self, task):
        return f"slide to {task[0]:.2f}"

    def make(self, render_mode=None):
        return self._make()

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs)


def env_with(**members):
    """A family whose environment has some members replaced."""
    return Slides(type("Changed", (Slide,), members))


def step_with(**replaced):
    """A family whose steps return other values."""

    def step(self, action):
        self.move(action)
        values = {
            "observation": self.observe(),
            "reward": self.reward(),
            "terminated": False,
            "truncated": False,
            "info": {},
        }
        return tuple({**values, **replaced}.values())

    return env_with(step=step)


def reset_without_options(self, seed=None):
    return np.zeros(1, np.float32), {}


def four_values(self, action):
    self.move(action)
    return self.observe(), self.reward(), False, {}


def global_noise(self, action):
    self.x += np.random.normal()  # noqa: NPY002 - the mistake
    return self.observe(), self.reward(), False, False, {}


def past_limit(self, action):
    if self.t >= 3:
        raise RuntimeError("the episode was over")
    return Slide.step(self, action)


def late_failure(self, action):
    return {}[self.t] if self.t == 2 else Slide.step(self, action)


class Shared(Slide):
    places: list[float] = [0.0]  # noqa: RUF012 - the mistake

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed, options=options)
        self.places[0] = self.x
        return result

    def step(self, action):
        self.places[0] += 0.1 * float(np.clip(action, -1, 1)[0])
        self.x = self.places[0]
        return self.observe(), self.reward(), False, False, {}


class OneGenerator(gym.vector.VectorEnv):
    """A vector environment that takes one seed for all, as gymnasium's CartPoleVectorEnv does."""

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = (
            Slide.observation_space,
            Slide.action_space,
        )
        self.observation_space = Box(-np.inf, np.inf, (num_envs, 1))
        self.action_space = Box(-1, 1, (num_envs, 1))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((self.num_envs, 1), np.float32), {}


def rare_success(self, action):
    *values, info = Slide.step(self, action)
    return (*values, {"success": True} if self.t == 3 else info)


SHARED_ENV = Slide()
API = "since version 0.26"
VIOLATIONS = {
    "old reset": (env_with(reset=reset_without_options), "reset of Changed must accept .*" + API),
    "reset with one value": (
        env_with(reset=lambda self, **_: np.zeros(1, np.float32)),
        r"reset of Changed must return \(observation, info\), not one ndarray.*" + API,
    ),
    "reset without info": (
        env_with(reset=lambda self, **_: (np.zeros(1, np.float32), None)),
        r"reset of Changed must return \(observation, info\)",
    ),
    "ignored task": (
        env_with(reset=lambda self, seed=None, options=None: Slide.reset(self, seed=seed)),
        r"reset of Changed never reads options\['task'\]",
    ),
    "four values": (env_with(step=four_values), "step of Changed must return five values, not 4"),
    "four values in a wrapper": (
        Slides(lambda: TimeLimit(type("Changed", (Slide,), {"step": four_values})(), 6)),
        "step of Changed raised ValueError: not enough values to unpack.*" + API,
    ),
    "not of gymnasium": (Slides(lambda: object()), "make must return a gymnasium.Env, not builtin"),
    "no spaces": (env_with(observation_space=None), "Changed must have the attribute observation_"),
    "make fails": (Slides(lambda: [][1]), r"make raised IndexError: .*test_checker\.py, line"),
    "reward in an array": (step_with(reward=np.zeros(1)), "step .* reward as a number"),
    "no reward": (step_with(reward=None), "step of Changed must return reward as a number"),
    "reward is NaN": (step_with(reward=np.nan), "returned rewards that are not finite after 1 st"),
    "end in words": (step_with(truncated="no"), "step .* must return truncated as a boolean"),
    "info is a list": (step_with(info=[]), "step of Changed must return info as a dictionary"),
    "success now and then": (
        env_with(step=rare_success),
        r"step of .* of make_vec must report info\['success'\] at every step or never",
    ),
    "observation of two": (step_with(observation=np.zeros(2)), r"step of .* of shape \(2,\)"),
    "observation in words": (step_with(observation=["x"]), "step of Changed .* of type <U1"),
    "observation is NaN": (step_with(observation=np.array([np.nan])), "that is not finite"),
    "outside the space": (
        env_with(observation_space=Box(-0.11, 0.11, (1,)), observe=lambda self: np.ones(1)),
        r"reset of Changed .* outside the bounds: \[1.0\]",
    ),
    "not in a discrete space": (
        env_with(observation_space=Discrete(3), observe=lambda self: 3),
        r"reset of Changed returned .* Discrete\(3\): 3",
    ),
    "integers for floats": (
        env_with(observation_space=Box(0, 9, (1,), np.uint8)),
        "reset of Changed .* of type float32",
    ),
    "another generator": (env_with(step=global_noise), r"must be the same, .*self\.np_random only"),
    "one environment for all": (Slides(lambda: SHARED_ENV), "new environment at each call"),
    "state of the class": (Slides(Shared), "a sub-environment must not depend on the .* others"),
    "past its limit": (
        env_with(step=past_limit),
        r"step of Changed raised RuntimeError: the episode was over \(test_checker\.py, .* after 3 "
        r"steps of an episode; .* at most 6 times \(horizon\)",
    ),
    "a bug in reset": (
        env_with(reset=lambda self, **_: {}[2]),
        r"reset of Changed raised KeyError: 2 \(test_checker\.py, line \d+\)$",
    ),
    "a bug in step": (env_with(step=late_failure), "step of Changed raised KeyError: 2"),
    "wrong number": (
        Slides(make_vec=lambda n: vectorise(Slide, n + 1)),
        r"make_vec\(4\) must make 4 sub-environments, not 5",
    ),
    "not a vector": (Slides(make_vec=lambda n: [Slide()] * n), "make_vec must return .* not list"),
    "one generator for all": (
        Slides(make_vec=OneGenerator),
        r"reset of the environment of make_vec raised Error: Seed .* a list of seeds",
    ),
    "no steps after an end": (
        Slides(
            lambda: TimeLimit(Slide(), 2),
            make_vec=lambda n: SyncVectorEnv(
                [lambda: TimeLimit(Slide(), 2)] * n, autoreset_mode=AutoresetMode.DISABLED
            ),
        ),
        "make_vec raised",
    ),
    "other spaces": (
        Slides(make_vec=lambda n: vectorise(lambda: ClipAction(Slide()), n)),
        "make and make_vec must have the same action_space",
    ),
    "test tasks of another shape": (
        Slides(sample_test_tasks=lambda rng, n: np.ones((n, 3))),
        "sample_test_tasks",
    ),
    "its own tasks are invalid": (
        Slides(validate_task=refuse),
        "validate_task must accept the tasks of sample_tasks",
    ),
    "one task": (
        Slides(sample_tasks=lambda rng, n: np.ones((n, 1))),
        "sample_tasks must sample from a distribution of tasks",
    ),
    "random tasks": (
        Slides(sample_tasks=lambda rng, n: np.random.default_rng().normal(size=(n, 1))),
        "sample_tasks must use the given generator only",
    ),
    "not one task": (
        Slides(sample_tasks=lambda rng, n: rng.normal(size=(max(n, 2), 1))),
        r"sample_tasks of Slides must return one row per task",
    ),
    "tasks fail": (Slides(sample_tasks=lambda rng, n: rng.norm()), "sample_tasks raised Attribute"),
    "no description": (Slides(describe=lambda task: 3), "describe must return a string, not 3"),
}


def test_a_class_in_place_of_a_family_is_an_error() -> None:
    with pytest.raises(UserError, match=r"takes an instance, such as Slides\(\)"):
        check_family(Slides)


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_violation_is_an_error_that_names_the_method_to_change(kind: str) -> None:
    family, message = VIOLATIONS[kind]
    with pytest.raises(UserError, match=message) as caught:
        check_family(family)
    assert "ClipAction" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_of_the_environment_is_the_cause_of_the_checkers() -> None:
    with pytest.raises(UserError) as caught:
        check_family(VIOLATIONS["past its limit"][0])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_only_actions_outside_the_bounds_are_blamed_on_the_action() -> None:
    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError("too strong")
        return Slide.step(self, action)

    bounded = type("Bounded", (Slide,), {"step": step})
    with pytest.raises(UserError, match=r"too strong.*inside the bounds .*wrappers\.ClipAction"):
        check_family(Slides(bounded))
    check_family(Slides(lambda: ClipAction(bounded())))


def survive(self, action):
    self.move(action * self.goal)
    return self.observe(), 1.0, False, False, {}


ACCEPTED = {
    "sparse goal": env_with(reward=lambda self: float(abs(self.x - self.goal) < 0.01)),
    "survival on varying dynamics": env_with(step=survive),
    "numpy scalars": env_with(reward=lambda self: np.float32(self.x - self.goal)),
    "doubles in a space of floats": env_with(observe=lambda self: np.array([self.x])),
    "ends as numbers": step_with(terminated=np.bool_(False), truncated=0),
    "copied options": env_with(
        reset=lambda self, seed=None, options=None: Slide.reset(
            self, seed=seed, options={**options}
        )
    ),
    "processes": Slides(make_vec=partial(vectorise, Slide, asynchronous=True)),
}


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.filterwarnings("ignore:neither rewards")
def test_a_family_that_conforms_is_accepted(kind: str) -> None:
    check_family(ACCEPTED[kind])


def test_a_family_that_shows_nothing_of_its_tasks_is_a_warning_and_others_are_none(
    recwarn: pytest.WarningsRecorder,
) -> None:
    message = re.compile("neither rewards nor observations nor ends depended on the task")
    for kind in ("survival on varying dynamics", "numpy scalars"):
        check_family(ACCEPTED[kind])
    assert not [w for w in recwarn if message.match(str(w.message))]
    with pytest.warns(UserWarning, match=message):
        check_family(ACCEPTED["sparse goal"])


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (-1.0, 0.2), (-50.0, 50.0)])
def test_bounds_that_most_actions_of_a_new_policy_exceed_are_warned_of(low, high) -> None:
    class Bounded(gym.ActionWrapper):
        action_space = gym.spaces.Box(low, high, (2,))

        def action(self, action):
            return action

    class Family(PointNavigation):
        def make(self, render_mode=None):
            return Bounded(super().make(render_mode))

    with pytest.warns(UserWarning, match=r"RescaleAction\(env, -1.0, 1.0\)"):
        check_single(Family())


def test_all_members_that_a_family_lacks_are_named() -> None:
    with pytest.raises(UserError, match=r"it lacks describe, make, make_vec, sample_tasks$"):
        check_family(type("Half", (), {"horizon": 3, "task_size": 1})())
