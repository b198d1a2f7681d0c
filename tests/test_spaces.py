"""Nested observation spaces and MultiDiscrete actions."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import metarl
from metarl.envs import vectorise
from metarl.envs.observations import FlatSpace, VectorObservations, flat_env, flat_space
from metarl.envs.wrappers import observe_task
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.rl.external_data import check_fits
from metarl.rl.policies import MultiCategoricalPolicy, policy_for

NESTED = Dict(
    {
        "arm": Tuple([Box(-1, 1, (2, 3)), Discrete(3, start=2)]),
        "lights": MultiBinary(4),
        "dials": MultiDiscrete([[2, 3], [4, 2]]),
        "depth": Box(-9.0, 9.0, ()),
    }
)


@pytest.mark.parametrize(
    "space",
    [NESTED, NESTED["arm"], Discrete(4), MultiDiscrete([3, 2]), Box(-1, 1, (2, 2))],
    ids=str,
)
def test_nested_observations_are_flattened_as_by_gymnasium_one_by_one_and_in_batches(space) -> None:
    flat = flat_space(space)
    assert isinstance(flat, FlatSpace)
    space.seed(1)
    samples = [space.sample() for _ in range(3)]
    expected = np.stack([gym.spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(np.stack([flat.flatten(s) for s in samples]), expected)
    batched = gym.vector.utils.create_empty_array(space, 3)
    batched = gym.vector.utils.concatenate(space, samples, batched)
    np.testing.assert_array_equal(flat.flatten(batched), expected)
    np.testing.assert_array_equal(flat.rows(samples), expected)
    np.testing.assert_array_equal(flat.rows(expected), expected)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (Dict({"a": Discrete(2)}), {"b": 1}),
        (Dict({"a": Discrete(2)}), np.zeros(2)),
        (Discrete(3, start=1), 0),
        (Discrete(3), 3),
        (Discrete(3), 0.5),
        (Box(-1, 1, (2, 2)), np.zeros((2, 3))),
        (Tuple([Discrete(2), Discrete(2)]), (1,)),
    ],
    ids=str,
)
def test_an_observation_outside_its_space_is_an_error_that_names_the_space(space, value) -> None:
    with pytest.raises(UserError, match="not of the environment's observation_space"):
        flat_space(space).flatten(value)


@pytest.mark.parametrize(
    "space",
    [
        Dict({"view": Box(0, 255, (8, 8, 3), np.uint8)}),
        Tuple([gym.spaces.Text(3)]),
        gym.spaces.Sequence(Discrete(2)),
        Box(0, 255, (8, 8), np.uint8),
    ],
    ids=str,
)
def test_spaces_of_other_things_than_numbers_are_refused(space) -> None:
    with pytest.raises(UserError, match="observations must be numbers"):
        policy_for(space, Discrete(2))


def multi_policy(sizes=(3, 2, 4)) -> tuple[MultiCategoricalPolicy, dict[str, torch.Tensor]]:
    policy = policy_for(Box(-1, 1, (5,)), MultiDiscrete(sizes), (8,))
    assert isinstance(policy, MultiCategoricalPolicy)
    return policy, policy.init(torch.Generator().manual_seed(0))


def components(policy, distribution):
    return [
        torch.distributions.Categorical(logits=part)
        for part in distribution["logits"].split(policy.sizes, -1)
    ]


def test_a_multi_discrete_policy_equals_independent_torch_distributions() -> None:
    policy, params = multi_policy()
    distribution = policy.distribution(params, torch.randn(6, 5))
    other = policy.distribution(params, torch.randn(6, 5))
    actions = torch.stack([torch.arange(6) % size for size in policy.sizes], -1)
    old, new = components(policy, distribution), components(policy, other)
    log_prob = sum(part.log_prob(actions[:, i]) for i, part in enumerate(old))
    torch.testing.assert_close(policy.log_prob(distribution, actions), log_prob)
    torch.testing.assert_close(policy.entropy(distribution), sum(part.entropy() for part in old))
    kl = sum(torch.distributions.kl_divergence(p, q) for p, q in zip(old, new, strict=True))
    torch.testing.assert_close(policy.kl(distribution, other), kl)


def test_the_fisher_matrix_of_a_multi_discrete_policy_is_the_hessian_of_its_divergence() -> None:
    policy, params = multi_policy()
    logits = torch.randn(9, dtype=torch.float64)

    def kl(shift):
        old, new = (policy.from_outputs(params, x[None]) for x in (logits, logits + shift))
        return policy.kl(old, new).sum()

    tangent = torch.randn(9, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(kl, torch.zeros(9, dtype=torch.float64))
    distribution = policy.from_outputs(params, logits[None])
    actual = policy.fisher(distribution, {"logits": tangent[None]})["logits"][0]
    torch.testing.assert_close(actual, hessian @ tangent)


def test_actions_of_a_multi_discrete_policy_have_the_frequencies_of_its_distribution() -> None:
    policy, params = multi_policy((2, 3))
    distribution = policy.distribution(params, torch.randn(1, 5))
    noise = torch.from_numpy(policy.noise(np.random.default_rng(0), (20_000,)))
    actions = policy.act({"logits": distribution["logits"].expand(20_000, -1)}, noise)
    assert actions.shape == (20_000, 2)
    for index, part in enumerate(components(policy, distribution)):
        counts = actions[:, index].bincount(minlength=policy.sizes[index])
        torch.testing.assert_close(counts / 20_000, part.probs[0], atol=0.01, rtol=0.0)


class Switches(gym.Env):
    """Two switches, to be set as the task says; the position of the first is observed."""

    observation_space = Dict({"first": Discrete(3), "noise": Box(-9, 9, (1, 2), np.float64)})
    action_space = MultiDiscrete([3, 2])

    def observe(self):
        return {"first": self.first, "noise": self.np_random.normal(size=(1, 2)).clip(-9, 9)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = np.asarray((options or {}).get("task", [0.0, 0.0]))
        self.first = 0
        return self.observe(), {}

    def step(self, action):
        assert action.shape == (2,)
        self.first = int(action[0])
        return self.observe(), float((action == self.goal).sum()), False, False, {}


class SwitchFamily:
    horizon, task_size = 4, 2

    def sample_tasks(self, rng, num_tasks):
        return rng.integers(0, [3, 2], (num_tasks, 2)).astype(float)

    def describe(self, task):
        return f"set {task}"

    def make(self, render_mode=None):
        return gym.wrappers.TimeLimit(Switches(), self.horizon)

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs)


TINY = {
    "family": {"name": SwitchFamily},
    "policy": {"hidden_sizes": [8]},
    "inner": {"episodes_per_task": 3},
    "outer": {"iterations": 1, "meta_batch": 2},
    "evaluation": {"tasks": 2, "episodes_per_task": 2},
    "baseline": {"batch_size": 8, "step_sizes": [0.1], "validation_tasks": 2},
}


@pytest.mark.parametrize(
    "method", ["maml", "rl2", "hypernetwork", "varibad", "pretrained", "oracle"]
)
def test_every_method_trains_on_dict_observations_and_multi_discrete_actions(
    method: str, tmp_path: Path
) -> None:
    has_memory = method in ("rl2", "hypernetwork", "varibad")
    outer = {**TINY["outer"], "algorithm": "adam"} if has_memory else TINY["outer"]
    policy = metarl.load(metarl.train({**TINY, "method": method, "outer": outer}, tmp_path / "run"))
    env = SwitchFamily().make()
    observation, _ = env.reset(seed=0, options={"task": [2.0, 1.0]})
    if method == "oracle":
        policy.reset(task=[2.0, 1.0])
    action = policy.act(observation)
    assert action in env.action_space
    policy.observe(1.0, False, True, env.step(action)[0])
    policy.adapt(env, task=[2.0, 1.0], episodes=2)


@pytest.mark.filterwarnings("ignore:adapting to")
def test_a_policy_adapts_to_episodes_with_nested_observations(tmp_path: Path) -> None:
    metarl.check_family(SwitchFamily())
    policy = metarl.load(metarl.train(TINY, tmp_path / "run"))
    observations = [Switches.observation_space.sample() for _ in range(2)]
    actions = [[2, 1], [0, 0]]
    batch = {name: np.stack([o[name] for o in observations]) for name in ("first", "noise")}
    flat = np.stack([gym.spaces.flatten(Switches.observation_space, o) for o in observations])
    adapted = [policy.adapt([(o, actions, [1.0, 0.0])]) for o in (observations, batch, flat)]
    for other in adapted[1:]:
        for name, leaf in adapted[0].params.items():
            torch.testing.assert_close(other.params[name], leaf, rtol=0, atol=0)
    with pytest.raises(UserError, match=r"whole numbers from 0 to \[2 1\]"):
        policy.adapt([(observations, [[2, 2], [0, 0]], [1.0, 0.0])])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_observations_are_transformed_in_every_autoreset_mode(mode: AutoresetMode) -> None:
    makers = [lambda: gym.wrappers.TimeLimit(Switches(), 2)] * 2
    envs = observe_task(flat_env(SyncVectorEnv(makers, autoreset_mode=mode)), 1)
    assert isinstance(envs, VectorObservations)
    tasks = np.array([[7.0], [8.0]])
    assert envs.reset(seed=0, options={"task": tasks})[0][:, -1].tolist() == [7.0, 8.0]
    envs.step(np.array([[1, 0], [1, 1]]))
    observations, *_, info = envs.step(np.array([[2, 0], [2, 1]]))
    assert observations.shape == (2, 6)
    assert ("final_obs" in info) == (mode is AutoresetMode.SAME_STEP)
    for index, last in enumerate(info.get("final_obs", [])):
        assert last[:3].tolist() == [0.0, 0.0, 1.0]
        assert last[-1] == tasks[index]


def test_images_of_another_shape_with_as_many_pixels_do_not_fit() -> None:
    class Camera(gym.Env):
        action_space = Discrete(2)

        def __init__(self, *shape: int) -> None:
            self.observation_space = Box(0, 255, shape, np.uint8)

    policy = policy_for(Camera(12, 8, 3).observation_space, Discrete(2))
    check_fits(policy, Camera(12, 8, 3))
    for other in ((8, 12, 3), (288,)):
        with pytest.raises(UserError, match="images of shape"):
            check_fits(policy, Camera(*other))


def test_settings_of_continuous_actions_are_refused_for_discrete_ones() -> None:
    for setting in ("init_std", "min_std"):
        method = load_method(load_config("bandit_5x10_rl2", [f"policy.{setting}=0.1"]))
        with pytest.raises(UserError, match=rf"policy\.{setting}: is for continuous actions"):
            method.problem.check()


def test_flattening_twice_is_flattening_once() -> None:
    env = gym.make("CliffWalking-v1")
    flat = flat_env(env)
    assert flat is not env
    assert flat_env(flat) is flat


def test_the_actions_of_a_policy_are_named_where_an_environment_has_others() -> None:
    box, discrete = Box(-1.0, 1.0, (2,)), MultiDiscrete([3, 2])
    env = gym.wrappers.TransformAction(
        gym.make("CliffWalking-v1"), lambda action: action, Discrete(4)
    )
    flat = flat_env(env)
    with pytest.raises(UserError, match=r"chooses among \(3, 2\) actions, .* takes Discrete\(4\)"):
        check_fits(policy_for(flat.observation_space, discrete), flat)
    with pytest.raises(UserError, match="chooses actions of 2 real numbers, but"):
        check_fits(policy_for(flat.observation_space, box), flat)


def test_large_discrete_observations_are_one_hot() -> None:
    space = flat_space(gym.spaces.Discrete(50_000, start=2))
    rows = space.flatten(np.array([2, 40_002]))
    assert rows.shape == (2, 50_000)
    assert rows[0, 0] == rows[1, 40_000] == 1.0
    assert rows.sum() == 2.0
