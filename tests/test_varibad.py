"""VariBAD: the evidence lower bound, and a policy that acts on the encoder's belief."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.baselines.rl2 import Trials, trial_objective
from metarl.baselines.trajectory_vae import draw_elbo, posterior
from metarl.baselines.varibad import VAE, VariBAD, to_transitions
from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.params import flatten, split_prefix, unflatten
from metarl.runs.run import Run

# goals within reach at once end some episodes early
TINY = [
    "method={name: varibad, head_sizes: [5], decoder_sizes: [4], latent_size: 2, vae_trials: 3}",
    "family.settings={horizon: 6, half_width: 0.06}",
    "inner.episodes_per_task=2",
    "outer.meta_batch=3",
    "outer.iterations=3",
    "method.hidden_size=6",
    "method.decode_states=true",
    "evaluation.tasks=2",
    "evaluation.episodes_per_task=2",
]


def varibad(*overrides: str, config: str = "point_navigation_rl2") -> VariBAD:
    method = load_method(load_config(config, [*TINY, *overrides]))
    assert isinstance(method, VariBAD)
    return method


def rollouts(method: VariBAD, params):
    problem = method.problem
    try:
        return method._collect(params, problem.envs, problem.sample_tasks(0), problem.key(0))
    finally:
        problem.close()


def elbo(method: VariBAD, trials, steps: int | None):
    transitions = to_transitions(Trials(method.policy, trials))
    return draw_elbo(transitions, np.random.default_rng(0), 10, steps, 2, 0.3)


def decode(params, name: str, latent, *parts) -> np.ndarray:
    hidden = np.concatenate([latent, *parts])
    for layer in range(2):
        weight, bias = (params[f"{name}.{kind}{layer}"].numpy() for kind in ("weight", "bias"))
        hidden = hidden @ weight + bias
        hidden = np.maximum(hidden, 0.0) if layer == 0 else hidden
    return hidden


def kl(mean, log_variance, other_mean, other_log_variance) -> float:
    total = 0.0
    for m, v, n, w in zip(mean, log_variance, other_mean, other_log_variance, strict=True):
        first = torch.distributions.Normal(float(m), math.exp(0.5 * float(v)))
        second = torch.distributions.Normal(float(n), math.exp(0.5 * float(w)))
        total += float(torch.distributions.kl_divergence(first, second))
    return total


@pytest.mark.parametrize("steps", [None, 4])
def test_the_lower_bound_equals_one_written_out_step_by_step(steps: int | None) -> None:
    method = varibad()
    params = method.initial_state().params
    # at first, the belief at the start of a trial is the prior itself
    params[f"{VAE}posterior.bias"] = torch.randn(4, generator=torch.Generator().manual_seed(0))
    _, vae = split_prefix(params, VAE)
    trials = rollouts(method, params)
    objective = elbo(method, trials, steps)
    assert not objective.transitions.mask.all()
    expected = 0.0
    data = objective.transitions
    for trial in range(data.mask.shape[1]):
        length = int(data.mask[:, trial].sum())
        state, beliefs = torch.zeros(1, 6), [(np.zeros(2), np.zeros(2))]
        for t in range(length):
            state = method.policy.step(
                params,
                (state, *data.inputs[t, trial : trial + 1].split([2, 2, 1, 1], -1)[1:]),
                data.observations[t, trial : trial + 1],
            )[1][0]
            beliefs.append(tuple(leaf[0].numpy() for leaf in posterior(vae, state)))
        encoded = [t for t in objective.encoded[:, trial].tolist() if t < length]
        decoded = [i for i in objective.decoded[:, trial].tolist() if i < length]
        assert len(set(encoded)) == len(encoded) == min(length, steps or length)
        bound = 0.0
        for place, t in enumerate(encoded):
            mean, log_variance = beliefs[t + 1]
            latent = mean + np.exp(0.5 * log_variance) * objective.noise[place, trial].numpy()
            log_likelihood = 0.0
            for i in decoded:
                names = ("observations", "actions", "next_observations", "rewards")
                s, a, following, r = (getattr(data, name)[i, trial].numpy() for name in names)
                error = decode(vae, "rewards", latent, s, a, following) - r
                log_likelihood -= float(error[0] ** 2)
                predicted = decode(vae, "states", latent, s, a)
                log_likelihood -= float(((predicted - following) ** 2).mean())
            divergence = kl(mean, log_variance, *beliefs[t])
            bound += log_likelihood * length / len(decoded) - 0.3 * divergence
        expected += bound / len(encoded)
    assert float(objective.value(vae)) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_the_lower_bound_equals_finite_differences() -> None:
    method = varibad("method.vae_steps=3")
    params = method.initial_state().params
    objective = elbo(method, rollouts(method, params), 3)
    tensors = {
        name: leaf if leaf.dtype is torch.bool else leaf.double()
        for name, leaf in vars(objective.transitions).items()
    }
    objective = replace(
        objective,
        transitions=type(objective.transitions)(**tensors),
        noise=objective.noise.double(),
    )
    vae = {name: leaf.double() for name, leaf in split_prefix(params, VAE)[1].items()}
    gradient, _ = objective.gradient(vae)
    vector = flatten(vae)
    for i in np.random.default_rng(0).integers(len(vector), size=20):
        nudge = torch.zeros_like(vector)
        nudge[i] = 1e-6
        up, down = (
            objective.gradient(unflatten(vector + sign * nudge, vae))[1] for sign in (1, -1)
        )
        assert float(gradient[i]) == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-7)


def test_rewards_of_the_policy_do_not_reach_the_encoder() -> None:
    method = varibad()
    params = method.initial_state().params
    trials = Trials(method.policy, rollouts(method, params))
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    objective = trial_objective(method, leaves, trials)
    grads = torch.autograd.grad(objective.value(leaves), list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, grads, strict=True):
        assert (gradient is None or not gradient.any()) == name.startswith(VAE), name
    # the policy depends on the encoder all the same
    moved = params | {f"{VAE}posterior.bias": params[f"{VAE}posterior.bias"] + 1.0}
    before, after = (trial_objective(method, p, trials).values for p in (params, moved))
    assert not torch.equal(before, after)


def test_an_iteration_learns_policy_and_autoencoder_each_by_its_own_optimiser() -> None:
    method = varibad("method.vae_updates=2")
    state = method.initial_state()
    new, metrics = method.step(state)
    method.close()
    assert [*new.params] == [*state.params]
    assert all(not torch.equal(new.params[n], leaf) for n, leaf in state.params.items() if "w" in n)
    of_policy, of_vae = split_prefix(state.params, VAE)
    assert len(new.opt_state["exp_avg"]) == len(flatten(of_policy))
    assert len(new.extra[f"{VAE}exp_avg"]) == len(flatten(of_vae))
    assert float(new.extra[f"{VAE}step"]) == 2.0
    assert metrics["vae/elbo"] < 0.0


def test_the_autoencoder_follows_the_schedule_of_the_outer_step() -> None:
    method = varibad("outer.anneal=true", "outer.iterations=100")
    state = method.initial_state()
    changes = []
    for iteration in (0, 99):
        new, _ = method.step(replace(state, iteration=iteration))
        before, after = (flatten(split_prefix(s.params, VAE)[1]) for s in (state, new))
        changes.append(float((after - before).abs().max()))
    method.close()
    assert changes[1] < 0.01 * changes[0]


def test_an_autoencoder_that_diverges_names_its_setting() -> None:
    method = varibad()
    state = method.initial_state()
    bias = next(name for name in reversed(state.params) if name.startswith(f"{VAE}rewards.bias"))
    broken = state.params | {bias: torch.full_like(state.params[bias], torch.inf)}
    with pytest.raises(FloatingPointError, match=r"method\.vae_learning_rate"):
        method.step(replace(state, params=broken))
    method.close()


def test_the_policy_sees_mean_and_log_variance_beside_the_observation() -> None:
    policy = varibad().policy
    params = policy.init(torch.Generator().manual_seed(0))
    states, observations = torch.randn(4, 6), torch.randn(4, 2)
    features = policy.features(params, states, observations)
    weight, bias = (params[f"{VAE}posterior.{name}"] for name in ("weight", "bias"))
    torch.testing.assert_close(features, torch.cat([observations, states @ weight + bias], 1))
    assert "vae.states.weight0" in params
    assert not any(
        "states" in name
        for name in varibad("method.decode_states=false").policy.init(
            torch.Generator().manual_seed(0)
        )
    )


@pytest.mark.parametrize("scaled", ["true", "false"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, scaled: str) -> None:
    config = varibad(f"method.normalize_rewards={scaled}").problem.config
    states = list(train(load_method(config)))
    run = Run.create(tmp_path / "run", config)
    run.save(states[0][0])
    read = Run.open(run.path).load()
    *_, (resumed, _) = train(load_method(config), read)
    whole = states[-1][0]
    assert torch.equal(flatten(whole.params), flatten(resumed.params))
    for name, leaf in whole.extra.items():
        assert torch.equal(leaf, resumed.extra[name])
    assert ("return_moments" in whole.extra) == (scaled == "true")


@pytest.mark.slow
def test_varibad_learns_bandits_and_predicts_their_rewards() -> None:
    settings = ["outer.iterations=60", "outer.meta_batch=200", "evaluation.tasks=300"]
    method = load_method(load_config("bandit_5x10_varibad", settings))
    state, bounds = method.initial_state(), []
    for _ in range(60):
        state, metrics = method.step(state)
        bounds.append(metrics["vae/elbo"])
    method.close()
    # pulling at random pays 5.0 on average
    assert method.evaluate(state.params).scores.mean() > 6.0
    assert np.mean(bounds[-10:]) > np.mean(bounds[:10]) + 0.2
