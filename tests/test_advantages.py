"""Returns, baseline and advantages against slow and independent versions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.errors import UserError
from metarl.rl.advantages import (
    baseline_features,
    discounted_returns,
    fit_baseline,
    fit_prior,
    generalized_advantages,
    num_features,
    with_advantages,
)
from metarl.rl.config import InnerConfig
from metarl.rl.trajectories import Trajectories, subsample


def trajectories(num_tasks=2, batch=4, horizon=6, seed=0, garbage=0.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tasks, batch, horizon)
    lengths = torch.randint(1, horizon + 1, (num_tasks, batch, 1), generator=generator)
    mask = torch.arange(horizon) < lengths

    def values(*tail):
        array = torch.randn(*shape, *tail, generator=generator)
        array[~mask] = garbage
        return array

    mean = values(2)
    log_std = torch.zeros(num_tasks, 1, 1, 2)
    return Trajectories(
        values(3), values(2), values(), mask, values(), {"mean": mean, "log_std": log_std}
    )


@given(
    rewards=st.lists(st.floats(-5, 5), min_size=1, max_size=8),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_advantages_are_the_sum_of_discounted_residuals(rewards, gamma, lam, seed) -> None:
    length, horizon = len(rewards), len(rewards) + 2
    values = np.random.default_rng(seed).normal(size=horizon)
    expected = []
    for t in range(length):
        total = 0.0
        for k in range(t, length):
            next_value = values[k + 1] if k + 1 < length else 0.0
            total += (gamma * lam) ** (k - t) * (rewards[k] + gamma * next_value - values[k])
        expected.append(total)
    padded = torch.zeros(1, 1, horizon, dtype=torch.float64)
    padded[0, 0, :length] = torch.tensor(rewards, dtype=torch.float64)
    mask = torch.arange(horizon) < length
    advantages = generalized_advantages(
        padded, torch.tensor(values)[None, None], mask[None, None], gamma, lam
    )
    np.testing.assert_allclose(advantages[0, 0, :length].numpy(), expected, atol=1e-9)


def test_with_lambda_one_the_advantage_is_return_minus_baseline() -> None:
    data = trajectories()
    values = torch.randn(data.mask.shape, generator=torch.Generator().manual_seed(1))
    advantages = generalized_advantages(data.rewards, values, data.mask, 0.9, 1.0)
    expected = discounted_returns(data.rewards, 0.9) - values
    torch.testing.assert_close(advantages[data.mask], expected[data.mask])


def test_the_baseline_is_the_ridge_regression_of_numpy() -> None:
    data = trajectories(num_tasks=3)
    features = baseline_features(data.observations).flatten(1, 2)
    targets = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    mask = data.mask.flatten(1)
    coefficients = fit_baseline(features, targets, mask)
    for task in range(3):
        x, y = features[task][mask[task]].numpy(), targets[task][mask[task]].numpy()
        ridge = np.sqrt(1e-5) * np.eye(x.shape[1])
        expected, *_ = np.linalg.lstsq(
            np.vstack([x, ridge]), np.append(y, np.zeros(x.shape[1])), rcond=None
        )
        np.testing.assert_allclose(x @ coefficients[task].numpy(), x @ expected, atol=1e-5)


def test_features_are_those_of_the_paper() -> None:
    observations = torch.tensor([[[20.0], [0.5]]])
    features = baseline_features(observations)[0]
    np.testing.assert_allclose(features[0], [10, 100, 0, 0, 0, 1])
    np.testing.assert_allclose(features[1], [0.5, 0.25, 0.01, 1e-4, 1e-6, 1])


def test_advantages_are_standardised_per_task_without_padding() -> None:
    samples = with_advantages(trajectories(), 0.99, 1.0)
    for task in range(2):
        weights, advantages = samples.weights[task], samples.advantages[task]
        assert float(weights.sum()) == pytest.approx(1.0)
        assert float((weights * advantages).sum()) == pytest.approx(0.0, abs=1e-5)
        assert float((weights * advantages**2).sum()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_rewards_that_say_nothing_about_the_actions_give_advantages_of_zero(
    batch: int, bootstrap: bool
) -> None:
    alike = trajectories(2, batch)
    mask = torch.ones_like(alike.mask)
    steps = torch.arange(6.0).sin().expand(batch, 6) if batch > 1 else torch.zeros(1, 6)
    rewards = torch.stack([steps - 1.0, torch.rand(batch, 6)])
    last = torch.rand(2, batch, 3)
    alike = replace(alike, mask=mask, rewards=rewards, truncated=None, last_observations=last)
    none, some = with_advantages(alike, 0.99, 1.0, bootstrap=bootstrap).advantages
    assert none.abs().max() == 0.0
    assert some.std(correction=0) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("garbage", [7.0, float("nan"), float("inf")])
def test_the_content_of_padding_has_no_effect(garbage: float) -> None:
    clean = with_advantages(trajectories(), 0.99, 0.9)
    dirty = with_advantages(trajectories(garbage=garbage), 0.99, 0.9)
    for clean_leaf, dirty_leaf in zip(clean[:5], dirty[:5], strict=True):
        assert torch.equal(clean_leaf, dirty_leaf)


def test_padding_is_zero_in_all_arrays_and_in_the_distribution() -> None:
    data = trajectories(garbage=float("nan"))
    padding = ~data.mask
    assert padding.any()
    for array in (data.observations, data.actions, data.rewards, data.log_probs):
        assert (array[padding] == 0.0).all()
    assert (data.distribution["mean"][padding] == 0.0).all()
    assert torch.isfinite(data.distribution["mean"]).all()
    assert data.distribution["mean"][data.mask].ne(0.0).all()


def test_episodes_can_be_permuted() -> None:
    data = trajectories()
    order = torch.tensor([2, 0, 3, 1])
    permuted = Trajectories(
        data.observations[:, order],
        data.actions[:, order],
        data.rewards[:, order],
        data.mask[:, order],
        data.log_probs[:, order],
        {"mean": data.distribution["mean"][:, order], "log_std": data.distribution["log_std"]},
    )
    expected = with_advantages(data, 0.99, 1.0).advantages.view(2, 4, 6)[:, order]
    advantages = with_advantages(permuted, 0.99, 1.0).advantages.view(2, 4, 6)
    torch.testing.assert_close(advantages, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3, 50])
def test_thinning_keeps_a_share_of_each_trajectory_and_at_least_one_step_per_task(stride) -> None:
    samples = with_advantages(trajectories(batch=6), 0.99, 1.0)
    subsampled = subsample(samples, horizon=6, stride=stride)
    torch.testing.assert_close(subsampled.weights.sum(1), torch.ones(2))
    assert abs(subsampled.weights.shape[1] - 36 / stride) <= 1
    if stride <= 6:
        positions = [row.tolist() for row in samples.observations[0].view(6, 6, 3).flatten(0, 1)]
        kept = {
            positions.index(row.tolist()) // 6 for row in subsampled.observations[0] if row.any()
        }
        happened = {i // 6 for i, row in enumerate(positions) if any(row)}
        assert kept <= happened
        assert len(kept) >= len(happened) - 2  # the shortest may have nothing at the chosen times
    assert subsampled.distribution["log_std"].shape == samples.distribution["log_std"].shape


def test_inconsistent_trajectories_are_refused() -> None:
    data = trajectories()
    parts = {
        "observations": data.observations,
        "actions": data.actions,
        "rewards": data.rewards,
        "mask": data.mask,
        "log_probs": data.log_probs,
        "distribution": data.distribution,
    }
    with pytest.raises(ValueError, match="rewards has shape"):
        Trajectories(**{**parts, "rewards": data.rewards[:, :2]})
    with pytest.raises(ValueError, match="mask must be boolean"):
        Trajectories(**{**parts, "mask": data.mask.float()})
    hole = torch.ones_like(data.mask)
    hole[0, 0, 2] = False
    with pytest.raises(ValueError, match="prefix"):
        Trajectories(**{**parts, "mask": hole})
    broken = data.rewards.clone()
    broken[0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        Trajectories(**{**parts, "rewards": broken})


def slow_advantages(data: Trajectories, baseline: str, samples: float, gamma: float) -> list:
    """Standardised advantages of each task, (steps,), by loops and numpy."""
    tasks = []
    for i in range(len(data.mask)):
        rows, targets = [], []
        for b in range(data.mask.shape[1]):
            length = int(data.mask[i, b].sum())
            rewards = data.rewards[i, b, :length].double().numpy()
            for t in range(length):
                o = np.clip(data.observations[i, b, t].double().numpy(), -10, 10)
                time = [t / 100, (t / 100) ** 2, (t / 100) ** 3, 1.0]
                rows.append(time if baseline == "time" else [*o, *(o**2), *time])
                targets.append(sum(gamma**k * rewards[t + k] for k in range(length - t)))
        tasks.append((np.array(rows), np.array(targets)))
    results = []
    everything = [np.concatenate(parts) for parts in zip(*tasks, strict=True)]
    for features, targets in tasks:
        x, y = features, targets
        if baseline == "linear_prior":  # the samples of all tasks, each with a small weight
            weight = np.sqrt(samples / len(everything[1]))
            x = np.concatenate([x, weight * everything[0]])
            y = np.concatenate([y, weight * everything[1]])
        ridge = np.sqrt(1e-5) * np.eye(x.shape[1])
        x, y = np.vstack([x, ridge]), np.append(y, np.zeros(len(ridge)))
        raw = targets - features @ np.linalg.lstsq(x, y, rcond=None)[0]
        results.append((raw - raw.mean()) / raw.std())
    return results


@pytest.mark.parametrize("baseline", ["linear", "time", "linear_prior"])
def test_advantages_by_every_baseline_are_those_of_loops_over_numpy(baseline: str) -> None:
    data = trajectories(num_tasks=3, batch=5, horizon=7)
    prior = fit_prior(data, 0.9, 12.0, None) if baseline == "linear_prior" else None
    samples = with_advantages(data, 0.9, 1.0, baseline=baseline, prior=prior)
    for task, expected in enumerate(slow_advantages(data, baseline, 12.0, 0.9)):
        advantages = samples.advantages[task][samples.weights[task] > 0]
        np.testing.assert_allclose(advantages.numpy(), expected, atol=1e-3)


def position(observations):
    """Features of a baseline of one's own."""
    return torch.stack([observations[..., 0], torch.ones_like(observations[..., 0])], dim=-1)


def too_few(observations):
    return observations[:, :1]


def test_a_baseline_of_ones_own_is_fitted_by_least_squares() -> None:
    batch = trajectories(1, 3)
    samples = with_advantages(batch, 0.9, 1.0, baseline=f"{__name__}:position")
    mask = batch.mask[0].numpy()
    x = position(batch.observations)[0].double().numpy()[mask]
    y = discounted_returns(batch.rewards, 0.9)[0].double().numpy()[mask]
    coefficients = np.linalg.solve(x.T @ x + 1e-5 * np.eye(2), x.T @ y)
    residual = y - x @ coefficients
    expected = (residual - residual.mean()) / residual.std()
    steps = samples.advantages[0].view(mask.shape).numpy()[mask]
    np.testing.assert_allclose(steps, expected, rtol=1e-4, atol=1e-5)
    assert num_features(3, None, f"{__name__}:position") == 2
    with pytest.raises(UserError, match=r"must return features of shape \(3, 6, 'F'\) for"):
        with_advantages(batch, 0.9, 1.0, baseline=f"{__name__}:too_few")
    assert InnerConfig(baseline=position).baseline == f"{__name__}:position"
    with pytest.raises(ValueError, match="has no function 'missing'"):
        InnerConfig(baseline=f"{__name__}:missing")


def test_many_pseudo_samples_replace_a_tasks_own_fit() -> None:
    data, prior_data = (
        trajectories(num_tasks=1, batch=2),
        trajectories(num_tasks=4, batch=20, seed=1),
    )
    features = baseline_features(data.observations).flatten(1, 2)
    returns = discounted_returns(data.rewards, 0.9).flatten(1)
    prior = fit_prior(prior_data, 0.9, 1e9, None)
    coefficients = fit_baseline(features, returns, data.mask.flatten(1), prior)
    other_features = baseline_features(prior_data.observations).flatten(0, 2)[
        prior_data.mask.flatten()
    ]
    other_returns = discounted_returns(prior_data.rewards, 0.9)[prior_data.mask].double()
    expected = np.linalg.lstsq(other_features.numpy(), other_returns.numpy(), rcond=None)[0]
    x = other_features.numpy()
    np.testing.assert_allclose(x @ coefficients[0].numpy(), x @ expected, atol=1e-3)
