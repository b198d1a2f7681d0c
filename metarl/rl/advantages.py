"""From rewards to advantages: returns, the linear feature baseline, and GAE."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.distributed import all_reduce_mean
from metarl.errors import UserError
from metarl.rl.config import BASELINES
from metarl.rl.trajectories import Samples, Trajectories, to_samples

RIDGE = 1e-5  # Duan et al. (2016), whose baseline the MAML paper uses
RIDGE_ATTEMPTS = 5
GRID = 4  # cells per side into which the baseline pools an image
MIN_STEPS_PER_FEATURE = 10  # with fewer, the fit is mostly of noise; `InnerLoop.warn_if_too_few`

NO_SOLUTION = "the linear feature baseline has no finite solution: are the rewards finite?"


class Prior(NamedTuple):
    """Pseudo-samples of other tasks, which are added to a task's own in the fit of its baseline.

    Attributes:
        gram: Σ x xᵀ over them, (F, F).
        target: Σ x R, (F, 1).
    """

    gram: Tensor
    target: Tensor


def discounted_returns(rewards: Tensor, gamma: float) -> Tensor:
    """Σ γᵏ r_{t+k} to the end of the trajectory, for every step of rewards (N, B, H)."""
    returns = torch.empty_like(rewards)
    next_return = torch.zeros_like(rewards[..., 0])
    # R_t = r_t + γ R_{t+1}, from the last step backwards
    for t in reversed(range(rewards.shape[-1])):
        next_return = rewards[..., t] + gamma * next_return
        returns[..., t] = next_return
    return returns


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates, with value 0 after the last step unless it is given.

    Schulman et al. (2016), equation 16: Σ (γλ)ᵏ δ_{t+k} with δ_t = r_t + γ V_{t+1} − V_t.

    Args:
        rewards: (N, B, H), zero on padding.
        values: (N, B, H), predictions of the baseline; arbitrary on padding.
        mask: (N, B, H), true on steps that were taken.
        gamma: discount factor.
        gae_lambda: λ; 1 gives return minus baseline.
        last_values: (N, B), the values of the observations after the last steps, for bootstrapping
            at time limits.
    """
    # values on padding are zero, so that δ of the last step has no V_{t+1} unless bootstrapped
    values = torch.where(mask, values, 0.0)
    next_values = torch.nn.functional.pad(values[..., 1:], (0, 1))
    if last_values is not None:
        is_last = mask & ~torch.nn.functional.pad(mask[..., 1:], (0, 1))
        next_values = torch.where(is_last, last_values.unsqueeze(-1), next_values)
    return discounted_returns(rewards + gamma * next_values - values, gamma * gae_lambda)


def baseline_features(observations: Tensor) -> Tensor:
    """Features [o, o², t, t², t³, 1] with o clipped to ±10 and t = step / 100 (Duan et al. 2016).

    Args:
        observations: (..., H, S), from the first step of each episode.

    Returns:
        (..., H, 2S + 4), in float64: the normal equations square their condition number.
    """
    clipped = observations.double().clamp(-10.0, 10.0)
    time = torch.arange(observations.shape[-2]).double() / 100.0
    powers = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=-1)
    powers = powers.expand(*observations.shape[:-1], 4)
    return torch.cat([clipped, clipped.square(), powers], dim=-1)


def time_features(observations: Tensor) -> Tensor:
    """The features of time alone, [t, t², t³, 1], (..., H, 4)."""
    return baseline_features(observations[..., :0])


def state_features(observations: Tensor) -> Tensor:
    """The features without time, [o, o², 1], of observations (..., S): (..., 2S + 1)."""
    clipped = observations.double().clamp(-10.0, 10.0)
    return torch.cat([clipped, clipped.square(), clipped.new_ones(*clipped.shape[:-1], 1)], dim=-1)


def fit_baseline(
    features: Tensor, returns: Tensor, mask: Tensor, prior: Prior | None = None
) -> Tensor:
    """Least-squares coefficients with a small ridge, one vector for each task.

    Args:
        features: (N, M, F).
        returns: (N, M), the targets.
        mask: (N, M), true on samples that count.
        prior: further samples, if any.

    Returns:
        Coefficients (N, F).

    Raises:
        FloatingPointError: if no ridge in reach gives finite coefficients.
    """
    # (Xᵀ W X + λ I) c = Xᵀ W y with the mask as weights W. For λ > 0 a Cholesky factor exists up to
    # rounding; λ grows tenfold if it does not.
    gram, target = _normal_equations(features, returns, mask)
    if prior is not None:
        gram, target = gram + prior.gram, target + prior.target
    identity = torch.eye(features.shape[-1], dtype=torch.float64)
    for attempt in range(RIDGE_ATTEMPTS):
        factor, failed = torch.linalg.cholesky_ex(gram + RIDGE * 10.0**attempt * identity)
        if not failed.any():
            coefficients = torch.cholesky_solve(target, factor).squeeze(-1)
            if torch.isfinite(coefficients).all():
                return coefficients
    raise FloatingPointError(NO_SOLUTION)


def fit_bootstrapped_baseline(
    features: Tensor, returns: Tensor, mask: Tensor, beyond: Tensor
) -> Tensor:
    """Coefficients c (F,) of one task's baseline x·c, fitted to R + b·c.

    The fixed point of least-squares fits to returns that go on with the baseline's own values:
    least-squares temporal differences (Bradtke and Barto 1996) over the rest of an episode.

    Args:
        features: x, (M, F).
        returns: R, (M,), discounted rewards up to the end of the episode.
        mask: (M,), true on samples that count.
        beyond: b, (M, F), discounted features of the observation after the end of the episode; zero
            if it terminated.

    Raises:
        FloatingPointError: if the solution is not finite.
    """
    # Σ x (x − b)ᵀ c = Σ x R, which is not symmetric
    weighted = (features * mask.unsqueeze(-1)).mT
    gram = weighted @ (features - beyond) + RIDGE * torch.eye(len(weighted), dtype=torch.float64)
    coefficients: Tensor
    coefficients, failed = torch.linalg.solve_ex(gram, weighted @ returns.double())
    if failed or not torch.isfinite(coefficients).all():
        raise FloatingPointError(NO_SOLUTION)
    return coefficients


def _normal_equations(features: Tensor, returns: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Xᵀ W X (N, F, F) and Xᵀ W y (N, F, 1)."""
    weighted = features * mask.unsqueeze(-1)
    return weighted.mT @ features, weighted.mT @ returns.double().unsqueeze(-1)


def fit_prior(
    trajectories: Trajectories,
    gamma: float,
    samples: float,
    image: tuple[int, int, int] | None,
    all_reduce_mean: Callable[[Tensor, int], Tensor] = all_reduce_mean,
) -> Prior:
    """The normal equations of the tasks of all processes together, scaled to `samples` samples.

    `all_reduce_mean` is that of `metarl.distributed`, or of one process that has all tasks.

    With G and b, the means of x xᵀ and x R over their time steps, κ samples are a ridge
    κ (c − c₀)ᵀ G (c − c₀) towards their coefficients c₀ = G⁻¹ b.
    """
    returns = discounted_returns(trajectories.rewards, gamma)
    sums: list[Tensor] = []
    for observations, task_returns, mask in zip(
        trajectories.observations, returns, trajectories.mask, strict=True
    ):
        features = _features(observations, image).flatten(0, 1)
        equations = _normal_equations(features, task_returns.flatten(), mask.flatten())
        sums.append(torch.cat([*equations, mask.sum().double().expand(len(equations[0]), 1)], 1))
    mean = all_reduce_mean(torch.stack(sums).sum(0), len(sums))
    gram, target, count = mean[:, :-2], mean[:, -2:-1], mean[0, -1]
    return Prior(samples * gram / count, samples * target / count)


def num_features(size: int, image: tuple[int, int, int] | None, baseline: str) -> int:
    """F, for observations of `size` numbers."""
    return _features(torch.zeros(1, 1, size), image, baseline).shape[-1]


def _features(
    observations: Tensor, image: tuple[int, int, int] | None, baseline: str = "linear"
) -> Tensor:
    """The features of a baseline (B, H, F), by its name or `module:function`.

    Raises:
        UserError: if a custom function cannot be loaded, or returns something else.
    """
    observations = pooled(observations, image) if image else observations
    features: Tensor = BASELINES.load(baseline)(observations)
    is_tensor = isinstance(features, Tensor)
    if not is_tensor or features.shape[:-1] != observations.shape[:-1]:
        raise UserError(
            f"inner.baseline: {baseline} must return features of shape "
            f"{(*observations.shape[:-1], 'F')} for observations {tuple(observations.shape)}, not "
            f"{tuple(features.shape) if is_tensor else type(features).__name__}"
        )
    return features.double()  # the normal equations square their condition number


def pooled(rows: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Channel means over a grid of at most 4x4 cells, (..., cells), of flattened images (..., S).

    The linear baseline takes these in place of pixels: on all pixels it would overfit the returns,
    at a cost that is cubic in their number.
    """
    pictures = rows.reshape(-1, *image)
    grid = min(GRID, image[1]), min(GRID, image[2])
    cells = torch.nn.functional.adaptive_avg_pool2d(pictures, grid)
    return cells.reshape(*rows.shape[:-1], -1)


def with_advantages(
    trajectories: Trajectories,
    gamma: float,
    gae_lambda: float,
    image: tuple[int, int, int] | None = None,
    bootstrap: bool = False,
    baseline: str = "linear",
    prior: Prior | None = None,
) -> Samples:
    """Samples with advantages: baseline fitted to this batch, GAE, standardised for each task.

    In batches of few time steps for each feature, a baseline fits the noise of the very returns
    that it is compared with, and the advantages are mostly noise (`MIN_STEPS_PER_FEATURE`). Tasks
    whose episodes all have the same rewards have advantages of zero: standardised, the baseline's
    error would have the size of a signal.

    Args:
        trajectories: of N tasks, (N, B, H).
        gamma: discount factor.
        gae_lambda: λ of GAE.
        image: (C, H, W) if an observation is a flattened image.
        bootstrap: whether a truncated episode goes on with the baseline's value of its last
            observation; if not, its value is 0 as in Finn et al. (2017). With it, the baseline has
            no features of time, which would explain what a return lacks after the time limit.
        baseline: the name of its features: "linear", "time" or `module:function`.
        prior: samples of other tasks that the baseline is fitted to as well, if any.

    Raises:
        ValueError: if `bootstrap` is true and the last observations were not recorded.
    """
    if bootstrap and trajectories.last_observations is None:
        raise ValueError("bootstrapping needs the observations after the last steps")
    returns = discounted_returns(trajectories.rewards, gamma)
    advantages = torch.empty_like(trajectories.rewards)
    # one task at a time, so that its float64 features stay in cache
    for i in range(advantages.shape[0]):
        mask = trajectories.mask[i]
        if _are_alike(trajectories.rewards[i], mask):
            advantages[i] = 0.0
            continue
        if bootstrap:
            values, last_values = _bootstrapped_values(trajectories, i, returns[i], gamma, image)
        else:
            features = _features(trajectories.observations[i], image, baseline).flatten(0, 1)
            targets = returns[i].reshape(1, -1)
            coefficients = fit_baseline(features[None], targets, mask.reshape(1, -1), prior)
            values = (features @ coefficients[0]).view_as(mask).to(returns.dtype)
            last_values = None
        # standardised over the steps that were taken: padding must not shrink the deviation
        raw = generalized_advantages(
            trajectories.rewards[i], values, mask, gamma, gae_lambda, last_values
        )
        valid = raw[mask]
        advantages[i] = (raw - valid.mean()) / (valid.std(correction=0) + 1e-8)
    return to_samples(trajectories, torch.where(trajectories.mask, advantages, 0.0))


def _are_alike(rewards: Tensor, mask: Tensor) -> bool:
    """Whether episodes (B, H) have the same rewards; a single one, the same at every step."""
    episodes = mask[:, 0]  # the others exist only because another task has more of them
    rewards, mask = rewards[episodes], mask[episodes]
    expected = rewards[:1] if len(rewards) > 1 else rewards[:1, :1]
    return bool((mask == mask[:1]).all() and (rewards == expected)[mask].all())


def _bootstrapped_values(
    trajectories: Trajectories,
    task: int,
    returns: Tensor,
    gamma: float,
    image: tuple[int, int, int] | None,
) -> tuple[Tensor, Tensor]:
    """Values (B, H) of a task's observations, and those after truncated episodes, (B,)."""
    mask, last = trajectories.mask[task], trajectories.last_observations[task]  # type: ignore[index]
    features, last_features = (
        state_features(pooled(rows, image) if image else rows)
        for rows in (trajectories.observations[task], last)
    )
    last_features = last_features * trajectories.truncated[task].unsqueeze(-1)
    remaining = trajectories.lengths[task].unsqueeze(-1) - torch.arange(mask.shape[-1])
    discounts = (gamma ** remaining.clamp(min=0).double()).unsqueeze(-1)
    beyond = discounts * last_features.unsqueeze(-2)  # γ^{L−t} x(o_L)
    coefficients = fit_bootstrapped_baseline(
        features.flatten(0, 1), returns.flatten(), mask.flatten(), beyond.flatten(0, 1)
    )
    values, last_values = (x @ coefficients for x in (features, last_features))
    return values.to(returns.dtype), last_values.to(returns.dtype)
