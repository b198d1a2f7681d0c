"""Pretraining and oracles: the same network, tasks, budget and evaluator as meta-training."""

import random
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.func import grad

import metarl
from metarl.baselines import pretrained_policy
from metarl.baselines.multi_task import MultiTask
from metarl.baselines.multi_task_env import MultiTaskEnv
from metarl.baselines.ppo import MultiTaskPPO
from metarl.baselines.stable_baselines import (
    load_model,
    load_params,
    policy_keywords,
    save_model,
    to_params,
)
from metarl.envs import PointNavigation, TaskConditioned, load_family
from metarl.envs.point_navigation import PointWorld
from metarl.errors import UserError
from metarl.experiment import load_config, override_config
from metarl.method import load_method, train
from metarl.params import flatten
from metarl.rl import outer_loop
from metarl.rl.adaptation import collect, collect_adaptation
from metarl.rl.config import Config
from metarl.rl.policies import CategoricalPolicy, GaussianPolicy, policy_for
from metarl.rl.problem import PolicyProblem
from metarl.rl.trajectories import index_tasks

TINY = [
    "outer.meta_batch=3",
    "outer.iterations=2",
    "inner.episodes_per_task=4",
    "family.settings.horizon=10",
    "policy.hidden_sizes=[8]",
    "evaluation.tasks=6",
    "evaluation.episodes_per_task=3",
]


def tiny(*more: str):
    return load_config("point_navigation", [*TINY, *more])


def load_tiny(*more: str):
    return load_method(tiny(*more))


def trained(config):
    method = load_method(config)
    return list(train(method, method.initial_state()))


class Spaces(gym.Env):
    """An environment with given spaces, which is never stepped."""

    def __init__(self, action_space):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), 0.0, True, False, {}


POLICIES = {
    "gaussian-relu": (GaussianPolicy(4, 2, (16, 8)), gym.spaces.Box(-1.0, 1.0, (2,))),
    "gaussian-tanh": (GaussianPolicy(4, 3, (16,), "tanh"), gym.spaces.Box(-1.0, 1.0, (3,))),
    "categorical": (CategoricalPolicy(4, 3, (16, 8)), gym.spaces.Discrete(3)),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("direction", ["import", "export"])
def test_a_mapped_policy_gives_identical_actions_and_log_probabilities(name, direction) -> None:
    policy, space = POLICIES[name]
    keywords = policy_keywords(policy, (5,))
    model = PPO("MlpPolicy", Spaces(space), policy_kwargs=keywords, device="cpu", seed=3)
    if direction == "export":
        params = policy.init(torch.Generator().manual_seed(1))
        load_params(model.policy, params)
        assert all(torch.equal(params[k], to_params(model.policy.state_dict())[k]) for k in params)
    params = to_params(model.policy.state_dict())
    observations = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    distribution = policy.distribution(params, observations)
    with torch.no_grad():
        expected_mode = model.policy.get_distribution(observations).mode()
        actions = model.policy.get_distribution(observations).sample()
        _, log_probs, entropy = model.policy.evaluate_actions(observations, actions)
    mode = distribution["mean"] if "mean" in distribution else distribution["logits"].argmax(-1)
    torch.testing.assert_close(mode, expected_mode, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        policy.log_prob(distribution, actions), log_probs, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        policy.entropy(distribution).expand(50), entropy, atol=1e-5, rtol=1e-5
    )


def test_an_exported_policy_runs_in_stable_baselines_and_can_be_imported_again(
    tmp_path: Path,
) -> None:
    policy, space = POLICIES["gaussian-relu"]
    params = policy.init(torch.Generator().manual_seed(1))
    save_model(tmp_path / "model.zip", policy, params, Spaces(space))
    model = PPO.load(tmp_path / "model.zip")
    mean, _ = evaluate_policy(model, Spaces(space), n_eval_episodes=2, warn=False)
    assert mean == 0.0
    back, _ = load_model(tmp_path / "model.zip", policy)
    assert list(back) == list(params)
    assert all(torch.equal(back[name], params[name]) for name in params)


def test_a_users_model_can_be_loaded_and_an_incompatible_one_is_refused(tmp_path) -> None:
    policy, space = POLICIES["gaussian-tanh"]
    model = A2C("MlpPolicy", Spaces(space), policy_kwargs={"net_arch": [16]}, device="cpu")
    model.set_logger(Logger(folder=None, output_formats=[]))  # its own makes a folder
    model.learn(20)
    model.save(tmp_path / "a2c.zip")
    params, steps = load_model(tmp_path / "a2c.zip", policy)
    assert steps == 20
    assert torch.equal(params["weight1"], model.policy.action_net.weight.T)
    with pytest.raises(UserError, match=r"policy.hidden_sizes=\[16\].*activation=tanh"):
        load_model(tmp_path / "a2c.zip", GaussianPolicy(4, 3, (8,), "tanh"))
    with pytest.raises(UserError, match="activation"):
        load_model(tmp_path / "a2c.zip", GaussianPolicy(4, 3, (16,), "relu"))
    (tmp_path / "no.zip").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a model"):
        load_model(tmp_path / "no.zip", policy)
    with pytest.raises(UserError, match="cannot read"):
        load_model(tmp_path / "absent.zip", policy)


MODELS = {
    "hidden layers of two kinds": {"policy_kwargs": {"net_arch": {"pi": [16], "vf": [3]}}},
    "deviation": {"policy_kwargs": {"log_std_init": -1.5, "ortho_init": False}},
    "bounds": {"action_space": gym.spaces.Box(-2.0, 3.0, (3,))},
    "matrix": {"observation_space": gym.spaces.Box(-1.0, 1.0, (2, 2))},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_has_the_action_distribution_of_stable_baselines(name, tmp_path) -> None:
    model = small_model(**MODELS[name])
    model.save(tmp_path / "model.zip")
    policy = POLICIES["gaussian-tanh"][0]
    params, _ = load_model(tmp_path / "model.zip", policy)
    observations = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.policy.get_distribution(
            observations.view(20, *model.observation_space.shape)
        ).distribution
    distribution = policy.distribution(params, observations)
    torch.testing.assert_close(distribution["mean"], expected.mean)
    torch.testing.assert_close(distribution["log_std"].exp().expand(20, 3), expected.stddev)


class Softer(torch.nn.Tanh):
    """Has the name of no activation of torch."""


class Squares(BaseFeaturesExtractor):
    def forward(self, observations):
        return observations.square()


FOREIGN = {
    "LeakyReLU": {"policy_kwargs": {"activation_fn": torch.nn.LeakyReLU}},
    "Softer": {"policy_kwargs": {"activation_fn": Softer}},
    "Squares": {
        "policy_kwargs": {
            "features_extractor_class": Squares,
            "features_extractor_kwargs": {"features_dim": 4},
        }
    },
    "use_sde": {"use_sde": True},
    "min_std=": {"policy_kwargs": {"log_std_init": -18.0}},
    "MultiBinary, but the family has Box": {"action_space": gym.spaces.MultiBinary(3)},
    "MultiInputActorCriticPolicy": {
        "policy": "MultiInputPolicy",
        "observation_space": gym.spaces.Dict(
            x=gym.spaces.Box(-1.0, 1.0, (3,)), y=gym.spaces.Box(-1.0, 1.0, (1,))
        ),
    },
    "images": {"observation_space": gym.spaces.Box(0, 255, (1, 2, 2), np.uint8)},
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_a_model_that_is_another_function_is_refused_by_name(reason, tmp_path) -> None:
    small_model(**FOREIGN[reason]).save(tmp_path / "model.zip")
    with pytest.raises(UserError, match=reason):
        load_model(tmp_path / "model.zip", POLICIES["gaussian-tanh"][0])


@pytest.mark.parametrize("space", [gym.spaces.MultiDiscrete([1, 2]), gym.spaces.MultiBinary(3)])
def test_actions_with_as_many_logits_are_not_taken_for_discrete_ones(space, tmp_path) -> None:
    small_model(action_space=space).save(tmp_path / "model.zip")
    with pytest.raises(UserError, match=r"it has actions Multi.*, but the family has Discrete"):
        load_model(tmp_path / "model.zip", CategoricalPolicy(4, 3, (16,), "tanh"))


def test_a_layer_that_an_mlp_policy_lacks_is_refused(tmp_path: Path) -> None:
    model = small_model()
    model.policy.mlp_extractor.shared_net = torch.nn.Linear(4, 4)
    model.save(tmp_path / "model.zip")
    with pytest.raises(UserError, match=r"the layer 'mlp_extractor.shared_net'"):
        load_model(tmp_path / "model.zip", POLICIES["gaussian-tanh"][0])


def test_a_model_is_not_read_into_a_convolutional_policy(tmp_path: Path) -> None:
    space = gym.spaces.Box(0.0, 1.0, (1, 3, 3))
    small_model(observation_space=space).save(tmp_path / "model.zip")
    policy = policy_for(space, gym.spaces.Box(-1.0, 1.0, (3,)), (16,), "tanh")
    with pytest.raises(UserError, match="the network cnn is unsupported"):
        load_model(tmp_path / "model.zip", policy)


def test_a_model_trained_with_normalised_observations_is_refused(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: Spaces(gym.spaces.Box(-1.0, 1.0, (3,)))]))
    model = PPO("MlpPolicy", env, 1e-3, 2, 2, policy_kwargs={"net_arch": [16]}, device="cpu")
    policy = POLICIES["gaussian-tanh"][0]
    model.save(tmp_path / "model.zip")
    env.save(tmp_path / "vec_normalize.pkl")
    with pytest.warns(UserWarning, match=r"vec_normalize.pkl lies beside"):
        load_model(tmp_path / "model.zip", policy)
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.learn(2)
    model.save(tmp_path / "model.zip")
    with pytest.raises(UserError, match=r"that VecNormalize scales .* fold them into"):
        load_model(tmp_path / "model.zip", policy)


def small_model(
    policy="MlpPolicy", action_space=None, observation_space=None, policy_kwargs=None, **settings
) -> PPO:
    env = Spaces(action_space or gym.spaces.Box(-1.0, 1.0, (3,)))
    env.observation_space = observation_space or env.observation_space
    keywords = {"net_arch": [16], **(policy_kwargs or {})}
    return PPO(policy, env, policy_kwargs=keywords, device="cpu", **settings)


class Exploit:
    """An object that calls a function when it is unpickled."""

    def __reduce__(self):
        return sys.exit, ("code from the file was run",)


def test_loading_a_model_runs_no_code_from_the_file(tmp_path: Path) -> None:
    policy, space = POLICIES["gaussian-relu"]
    keywords = policy_keywords(policy, (5,))
    model = PPO("MlpPolicy", Spaces(space), policy_kwargs=keywords, device="cpu")
    model.lr_schedule = Exploit()
    model.exploit = Exploit()
    model.save(tmp_path / "hostile.zip")
    load_model(tmp_path / "hostile.zip", policy)


def test_every_episode_has_a_new_task_and_follows_the_previous_one() -> None:
    envs = MultiTaskEnv(PointNavigation(horizon=5), 4)
    envs.start(1)
    assert (envs.reset() == 0).all()
    tasks = [envs._tasks.copy()]
    for step in range(1, 16):
        envs.step_async(np.full((4, 2), 0.5, np.float32))
        observations, _, done, infos = envs.step_wait()
        assert done.all() == (step % 5 == 0)
        if done.all():
            assert (observations == 0).all()
            np.testing.assert_allclose(infos[0]["terminal_observation"], 0.25, atol=1e-6)
            tasks.append(envs._tasks.copy())
    assert len(np.unique(np.concatenate(tasks), axis=0)) == 16
    assert len(envs.finished_returns) == 12


@pytest.mark.parametrize("name", ["point-navigation", "half-cheetah-velocity", "ant-goal"])
def test_the_observation_of_an_oracle_ends_with_the_task(name) -> None:
    family = load_family(name, {"horizon": 5})
    informed = TaskConditioned(family)
    tasks = informed.sample_tasks(np.random.default_rng(0), 3)
    plain, conditioned = family.make_vec(3), informed.make_vec(3)
    single = informed.make()
    assert single.observation_space == conditioned.single_observation_space
    first, _ = plain.reset(seed=1, options={"task": tasks})
    second, _ = conditioned.reset(seed=1, options={"task": tasks})
    alone, _ = single.reset(seed=1, options={"task": tasks[0]})
    for _ in range(5):
        np.testing.assert_array_equal(second, np.concatenate([first, tasks], axis=1))
        np.testing.assert_array_equal(alone, second[0])
        actions = plain.action_space.sample()
        first, reward, *_ = plain.step(actions)
        second, conditioned_reward, *_ = conditioned.step(actions)
        alone, *_ = single.step(actions[0])
        np.testing.assert_array_equal(reward, conditioned_reward)
    for env in (plain, conditioned, single):
        env.close()
    with pytest.raises(ValueError, match="needs a task at its first reset"):
        informed.make().reset()


@pytest.mark.parametrize("steps", [1, 2])
def test_the_budget_of_maml_counts_samples_before_each_inner_step_and_after_the_last(steps) -> None:
    config = tiny("family.settings.half_width=5", f"inner.steps={steps}")  # no episode ends early
    state, _ = trained(config)[-1]
    method = load_method(config)
    assert state.samples == method.max_samples
    assert method.max_samples == 240 * (steps + 1)


def test_pretraining_has_the_budget_of_meta_training() -> None:
    config = tiny(
        "family.settings.half_width=5"
    )  # the goal is out of reach, so that episodes have the full length
    meta, _ = trained(config)[-1]
    config = tiny("family.settings.half_width=5", "method=pretrained")
    *_, (state, metrics) = trained(config)
    assert state.samples == meta.samples == load_method(config).max_samples == 480
    assert metrics.keys() >= {"return/after_0_steps", "environment_steps", "time/sampling"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "share"),  # of what is lost without learning: not all goals can be reached at once
    [("pretrained", 0.85), ("oracle", 0.3)],
)
def test_pretraining_learns(method: str, share: float) -> None:
    def reached(learning_rate: float) -> float:
        """The return in the last updates, for the same tasks and noise."""
        settings = [
            f"method={method}",
            f"baseline.learning_rate={learning_rate}",
            "baseline.batch_size=500",
            "outer.iterations=10",
            "outer.meta_batch=10",
            "inner.episodes_per_task=10",
            "family.settings.horizon=30",
        ]
        results = trained(load_config("point_navigation", settings))
        return np.mean([metrics["return/after_0_steps"] for _, metrics in results[-5:]])

    assert reached(1e-3) > share * reached(1e-12)  # returns are negative


@pytest.mark.parametrize("normalize", [True, False])
def test_ppo_has_the_settings_of_the_config(normalize: bool) -> None:
    settings = {
        "learning_rate": 2e-4,
        "gae_lambda": 0.9,
        "epochs": 3,
        "batch_size": 7,
        "clip_range": 0.3,
        "normalize_advantages": normalize,
    }
    changes = [f"baseline.{name}={value}" for name, value in settings.items()]
    model = MultiTaskPPO(PolicyProblem(tiny("method=pretrained", *changes))).model
    assert (model.learning_rate, model.gae_lambda, model.n_epochs) == (2e-4, 0.9, 3)
    assert (model.batch_size, model.clip_range(1.0)) == (7, 0.3)
    assert model.normalize_advantage == normalize


def test_pretraining_works_on_a_users_discrete_family(in_users_folder: Path) -> None:
    more = [
        "outer.meta_batch=2",
        "outer.iterations=1",
        "inner.episodes_per_task=2",
        "method=pretrained",
    ]
    Path("mine.yaml").write_text("family: {name: 'my_tasks:LineFamily'}\n")
    config = load_config("mine.yaml", more)
    *_, (state, _) = trained(config)
    assert state.params["weight2"].shape == (100, 2)


@pytest.mark.parametrize("method", ["pretrained", "multi_task"])
def test_pretraining_clips_no_action_like_meta_training(method: str, monkeypatch) -> None:
    largest, plain_step = [], PointWorld.step

    def step(world: PointWorld, actions: Any, *arguments: Any) -> Any:
        largest.append(np.abs(actions).max())
        return plain_step(world, actions, *arguments)

    monkeypatch.setattr(PointWorld, "step", step)
    trained(tiny(f"method={method}", "policy.init_std=3"))
    assert max(largest) > 3.0 > PointNavigation().make().action_space.high.max()


def test_pretraining_leaves_the_global_generators_as_they_were() -> None:
    set_random_seed(5)
    trained(tiny("method=pretrained"))
    after = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    set_random_seed(5)
    assert after == (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002


def test_a_bound_of_the_standard_deviation_is_refused_where_ppo_ignores_it() -> None:
    for method in ("pretrained", "oracle"):
        with pytest.raises(UserError, match=r"policy.min_std: 0.1 .*no lower bound"):
            tiny(f"method={method}", "policy.min_std=0.1")
    assert tiny("method=multi_task", "policy.min_std=0.1").policy.min_std == 0.1


def test_ppo_needs_two_time_steps_for_an_update() -> None:
    one = ("family.settings.horizon=1", "outer.meta_batch=1", "inner.episodes_per_task=1")
    with pytest.raises(UserError, match="at least two time steps"):
        trained(tiny("method=pretrained", *one))


def test_the_step_size_is_chosen_on_validation_tasks(monkeypatch) -> None:
    config = tiny("method=pretrained", "baseline.step_sizes=[0.1,0.5]")
    method, curves = load_method(config), []
    real = pretrained_policy.evaluate_adaptation

    def spy(*arguments, **keywords):
        curves.append(real(*arguments, **keywords))
        return curves[-1]

    for module in (pretrained_policy, outer_loop):
        monkeypatch.setattr(module, "evaluate_adaptation", spy)
    final = method.evaluate(method.initial_state().params)
    *validations, test = curves
    assert [curve.step_sizes for curve in validations] == [(0.1, 0.05, 0.025), (0.5, 0.25, 0.125)]
    best = max(validations, key=lambda curve: curve.scores[:, 1:].mean())
    assert final.step_sizes == best.step_sizes
    validated = {tuple(task) for curve in validations for task in curve.tasks}
    assert not validated & {tuple(task) for task in test.tasks}


@pytest.mark.parametrize("kind", ["pretrained", "random"])
def test_a_policy_without_learned_step_sizes_is_fine_tuned_with_the_validated_ones(kind) -> None:
    # the baseline of a config in which MAML learns step sizes
    values = tiny("inner.learned_step_sizes=meta_sgd").model_dump(mode="json")
    method = load_method(override_config(values, [f"method={kind}", "baseline.step_sizes=[0.3]"]))
    theta = method.initial_state().params
    assert method.evaluate(theta).step_sizes == (0.3, 0.15, 0.15)
    before, *_, after = collect_adaptation(
        method.problem, theta, *method.problem.test_tasks(), (0.3, 0.15, 0.15)
    ).params
    assert not any(torch.equal(after[name], before[name]) for name in theta)


def test_a_diverging_step_size_is_not_chosen() -> None:
    method = load_method(tiny("method=pretrained", "baseline.step_sizes=[0.1,1e30]"))
    params = method.initial_state().params
    assert method.fine_tuning_step_sizes(params)[0] == 0.1
    method = load_method(tiny("method=pretrained", "baseline.step_sizes=[1e30]"))
    with pytest.raises(FloatingPointError, match=r"step_sizes \[1e\+30\]; add smaller ones"):
        method.fine_tuning_step_sizes(params)


def test_an_oracle_does_not_adapt() -> None:
    method = load_method(tiny("method=oracle"))
    params = method.initial_state().params
    curve = method.evaluate(params)
    assert curve.scores.shape == (6, 1)
    assert params["weight0"].shape[0] == 4


@pytest.mark.parametrize("learning_rate", [1e3, 1e30])
def test_ppo_that_diverges_names_the_setting_to_lower_and_leaves_the_last_state(
    learning_rate: float,
) -> None:
    learner = load_method(
        Config(
            method="pretrained",
            family={"name": "point-navigation", "settings": {"horizon": 5}},
            policy={"hidden_sizes": [4]},
            inner={"episodes_per_task": 2},
            outer={"meta_batch": 2},
            baseline={"learning_rate": learning_rate, "batch_size": 10},
        )
    )
    state = learner.initial_state()

    def take_steps():
        nonlocal state
        for _ in range(9):
            state, _ = learner.step(state)

    with pytest.raises(FloatingPointError, match=r"lower baseline\.learning_rate"):
        take_steps()
    assert all(torch.isfinite(leaf).all() for leaf in state.params.values())


@pytest.mark.parametrize("section", ["policy", "baseline"])
def test_a_layer_of_absurd_width_is_refused(section: str) -> None:
    name = "hidden_sizes" if section == "policy" else "value_hidden_sizes"
    for width in (2**21, 2**40, 2**63):
        with pytest.raises(UserError, match=rf"{section}\.{name}\.1: must be .* 1048576"):
            Config(family={"name": "point-navigation"}, **{section: {name: [8, width]}})


@pytest.mark.parametrize("section", ["inner", "evaluation"])
def test_a_batch_that_exceeds_the_memory_is_refused_before_training(section, tmp_path) -> None:
    config = Config(family={"name": "point-navigation"}, **{section: {"episodes_per_task": 10**9}})
    with pytest.raises(UserError, match=rf"{section}\.episodes_per_task: .* GB; lower one of them"):
        metarl.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("section", ["outer", "evaluation"])
def test_the_memory_of_a_batch_is_that_of_its_numbers(section: str, monkeypatch) -> None:
    sizes = ["inner.episodes_per_task=50", "outer.meta_batch=30", "evaluation.tasks=30"]
    sizes += [f"evaluation.episodes_per_task={60 if section == 'evaluation' else 40}"]
    problem = load_method(load_config("point_navigation", sizes)).problem
    episodes = 30 * (60 if section == "evaluation" else 50)
    # observation and next observation, action, mean and scale, and eight more numbers, in float32
    size = 4 * (2 * 2 + 3 * 2 + 8) * episodes * problem.family.horizon
    monkeypatch.setattr("metarl.rl.problem.physical_memory", lambda: size)
    problem.check()
    monkeypatch.setattr("metarl.rl.problem.physical_memory", lambda: size - 1)
    with pytest.raises(UserError, match=rf"^{section}\."):
        problem.check()
    monkeypatch.setitem(problem.__dict__, "shard", slice(10, 25))  # of a second process
    if section == "outer":
        problem.check()


@pytest.mark.parametrize("policy", ["mlp", "gradient_by_autograd"])
def test_the_gradient_of_multi_task_is_the_policy_gradient_of_all_tasks(policy: str) -> None:
    # another inner optimiser is differentiated by autograd, although it takes no step here
    settings = [] if policy == "mlp" else ["inner.optimizer=momentum"]
    training = load_tiny("method=multi_task", *settings)._training
    problem, params = training.problem, training.initial_state().params
    rollouts = collect(
        problem.inner, params, problem.envs, problem.sample_tasks(0), 10, problem.key(0)
    )
    training.close()
    (post,) = rollouts.samples
    assert post.advantages.shape == (6, 40)
    gradient, _ = training.objective(rollouts).gradient(params)

    def mean_of_log_probs(theta):
        # the gradient of a likelihood ratio at the θ that sampled is that of log π
        total = 0.0
        for task in range(6):
            samples = index_tasks(post, task)
            distribution = problem.policy.distribution(theta, samples.observations)
            log_prob = problem.policy.log_prob(distribution, samples.actions)
            total = total + (samples.weights * log_prob * samples.advantages).sum()
        return total / 6

    expected = flatten(grad(mean_of_log_probs)(params))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_multi_task_has_the_updates_and_the_environment_steps_of_maml(
    steps: int,
) -> None:
    settings = ["family.settings.half_width=5", f"inner.steps={steps}"]  # no episode ends early
    maml, multi_task = load_tiny(*settings), load_tiny(*settings, "method=multi_task")
    (last, _), (other, metrics) = list(train(maml))[-1], list(train(multi_task))[-1]
    assert last.iteration == other.iteration == 2
    assert last.samples == other.samples == multi_task.max_samples == 240 * (steps + 1)
    assert [name for name in metrics if name.startswith("return/")] == ["return/after_0_steps"]


def test_the_outer_step_of_multi_task_has_the_settings_of_the_config_and_of_its_stages() -> None:
    stages = "stages=[{until: 1, set: {outer.meta_batch: 1, outer.max_kl: 0.5}}]"
    staged = load_tiny("method=multi_task", stages)
    assert isinstance(staged, MultiTask)
    counts = [metrics["environment_steps"] for _, metrics in train(staged)]
    assert counts[0] <= 2 * 4 * 10 < counts[1]
    assert staged.uses_lr_schedule == staged.problem.config.outer.depends_on_length


def test_fine_tuning_of_multi_task_takes_the_best_step_size_on_validation_tasks(
    tmp_path,
) -> None:
    config = tiny("method=multi_task")
    run = metarl.train(config, tmp_path / "run")
    assert metarl.load(run).evaluate().step_sizes[0] in config.baseline.step_sizes
    adapted = metarl.load(run).adapt([([[0.0, 0.0]] * 3, [[0.0, 0.0]] * 3, [1.0, 2.0, 3.0])])
    assert adapted.act([0.0, 0.0]).shape == (2,)


@pytest.mark.slow
def test_multi_task_learns_what_the_tasks_have_in_common() -> None:
    settings = ["outer.iterations=15", "outer.meta_batch=10", "inner.episodes_per_task=10"]
    settings += ["family.settings.horizon=30", "method=multi_task"]
    returns = [m["return/after_0_steps"] for _, m in train(load_tiny(*settings))]
    # all tasks lose less if the policy moves slowly: it starts with a random walk
    assert sum(returns[-3:]) / 3 > returns[0] + 2.5
