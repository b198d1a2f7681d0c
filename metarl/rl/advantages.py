"""From rewards to advantages: returns, the linear feature baseline, and GAE."""

import torch
from torch import Tensor

from metarl.rl.trajectories import Samples, Trajectories, to_samples

RIDGE = 1e-5  # Duan et al. (2016), whose baseline the MAML paper uses
RIDGE_ATTEMPTS = 5
GRID = 4  # cells a side that the baseline sees of an image


def discounted_returns(rewards: Tensor, gamma: float) -> Tensor:
    """Σ γᵏ r_{t+k} to the end of the trajectory, for every step of rewards (N, B, H)."""
    returns = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    for t in reversed(range(rewards.shape[-1])):
        following = rewards[..., t] + gamma * following
        returns[..., t] = following
    return returns


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimates, with value 0 after the last step of a trajectory.

    Schulman et al. (2016), equation 16: Σ (γλ)ᵏ δ_{t+k} with δ_t = r_t + γ V_{t+1} − V_t.

    Args:
        rewards: (N, B, H), zero on padding.
        values: (N, B, H), predictions of the baseline; what they are on padding doesn't matter.
        mask: (N, B, H), true on steps that happened.
        gamma: discount factor.
        lam: λ; 1 gives return minus baseline.
    """
    values = torch.where(mask, values, 0.0)
    next_values = torch.nn.functional.pad(values[..., 1:], (0, 1))
    return discounted_returns(rewards + gamma * next_values - values, gamma * lam)


def baseline_features(observations: Tensor) -> Tensor:
    """Features [o, o², t, t², t³, 1] with o clipped to ±10 and t = step / 100 (Duan et al. 2016).

    Args:
        observations: (..., H, S).

    Returns:
        (..., H, 2S + 4), in float64: the normal equations square their condition number.
    """
    clipped = observations.double().clamp(-10.0, 10.0)
    time = torch.arange(observations.shape[-2], dtype=torch.float64) / 100.0
    powers = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=-1)
    powers = powers.expand(*observations.shape[:-1], 4)
    return torch.cat([clipped, clipped.square(), powers], dim=-1)


def fit_baseline(features: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Least-squares coefficients with a small ridge, one vector for each task.

    Args:
        features: (N, M, F).
        returns: (N, M), the targets.
        mask: (N, M), true on samples that count.

    Returns:
        Coefficients (N, F).

    Raises:
        FloatingPointError: if no ridge in reach gives finite coefficients.
    """
    weighted = features * mask.unsqueeze(-1)
    gram = weighted.mT @ features
    target = weighted.mT @ returns.double().unsqueeze(-1)
    identity = torch.eye(features.shape[-1], dtype=torch.float64)
    for attempt in range(RIDGE_ATTEMPTS):
        factor, failed = torch.linalg.cholesky_ex(gram + RIDGE * 10.0**attempt * identity)
        if not failed.any():
            coefficients = torch.cholesky_solve(target, factor).squeeze(-1)
            if torch.isfinite(coefficients).all():
                return coefficients
    raise FloatingPointError(
        "the linear feature baseline has no finite solution: are the rewards finite?"
    )


def overview(rows: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Means of each channel over a grid of at most 4x4 cells, (..., cells): of images in rows.

    What the linear baseline sees of an image: from all pixels it would learn by heart what the
    returns were, at a cost that is cubic in their number.
    """
    pictures = rows.reshape(-1, *image)
    grid = min(GRID, image[1]), min(GRID, image[2])
    cells = torch.nn.functional.adaptive_avg_pool2d(pictures, grid)
    return cells.reshape(*rows.shape[:-1], -1)


def with_advantages(
    trajectories: Trajectories,
    gamma: float,
    lam: float,
    image: tuple[int, int, int] | None = None,
) -> Samples:
    """Samples with advantages: baseline fitted on this very batch, GAE, standardised for each task.

    Task by task, so that the float64 features of one task stay in cache.

    Args:
        trajectories: of N tasks, (N, B, H).
        gamma: discount factor.
        lam: GAE's λ.
        image: (C, H, W) where an observation is an image, laid out in a row.
    """
    returns = discounted_returns(trajectories.rewards, gamma)
    advantages = torch.empty_like(trajectories.rewards)
    for i in range(advantages.shape[0]):
        mask = trajectories.mask[i]
        seen = trajectories.observations[i]
        features = baseline_features(overview(seen, image) if image else seen).flatten(0, 1)
        coefficients = fit_baseline(features[None], returns[i].reshape(1, -1), mask.reshape(1, -1))
        values = (features @ coefficients[0]).view_as(mask).to(returns.dtype)
        raw = generalized_advantages(trajectories.rewards[i], values, mask, gamma, lam)
        valid = raw[mask]
        advantages[i] = (raw - valid.mean()) / (valid.std(correction=0) + 1e-8)
    return to_samples(trajectories, torch.where(trajectories.mask, advantages, 0.0))
