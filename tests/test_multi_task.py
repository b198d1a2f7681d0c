"""Multi-task pretraining by the outer step: MAML without inner steps."""

import pytest
import torch
from torch.func import grad

import metarl
from metarl.baselines.multi_task import MultiTask
from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.params import flatten
from metarl.rl.adaptation import collect
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


def method(*settings: str):
    return load_method(load_config("point_navigation", [*TINY, *settings]))


@pytest.mark.parametrize("policy", ["mlp", "gradient_by_autograd"])
def test_the_gradient_is_the_policy_gradient_of_all_tasks(policy: str) -> None:
    # another inner optimiser is differentiated by autograd, although it takes no step here
    settings = [] if policy == "mlp" else ["inner.optimizer=momentum"]
    training = method("method=multi_task", *settings)._training
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
def test_an_iteration_has_the_updates_and_the_environment_steps_of_maml(steps: int) -> None:
    settings = ["family.settings.half_width=5", f"inner.steps={steps}"]  # no episode ends early
    maml, multi_task = method(*settings), method(*settings, "method=multi_task")
    (last, _), (other, metrics) = list(train(maml))[-1], list(train(multi_task))[-1]
    assert last.iteration == other.iteration == 2
    assert last.samples == other.samples == multi_task.max_samples == 240 * (steps + 1)
    assert [name for name in metrics if name.startswith("return/")] == ["return/after_0_steps"]


def test_the_outer_step_has_the_settings_of_the_config_and_of_its_stages() -> None:
    stages = "stages=[{until: 1, set: {outer.meta_batch: 1, outer.max_kl: 0.5}}]"
    staged = method("method=multi_task", stages)
    assert isinstance(staged, MultiTask)
    counts = [metrics["environment_steps"] for _, metrics in train(staged)]
    assert counts[0] <= 2 * 4 * 10 < counts[1]
    assert staged.uses_lr_schedule == staged.problem.config.outer.depends_on_length


def test_fine_tuning_takes_the_step_size_that_is_best_on_validation_tasks(tmp_path) -> None:
    config = load_config("point_navigation", [*TINY, "method=multi_task"])
    run = metarl.train(config, tmp_path / "run")
    assert metarl.load(run).evaluate().step_sizes[0] in config.baseline.step_sizes
    adapted = metarl.load(run).adapt([([[0.0, 0.0]] * 3, [[0.0, 0.0]] * 3, [1.0, 2.0, 3.0])])
    assert adapted.act([0.0, 0.0]).shape == (2,)


@pytest.mark.slow
def test_it_learns_what_the_tasks_have_in_common() -> None:
    settings = ["outer.iterations=15", "outer.meta_batch=10", "inner.episodes_per_task=10"]
    settings += ["family.settings.horizon=30", "method=multi_task"]
    returns = [m["return/after_0_steps"] for _, m in train(method(*settings))]
    # all tasks lose less if the policy moves slowly: it starts with a random walk
    assert sum(returns[-3:]) / 3 > returns[0] + 2.5
