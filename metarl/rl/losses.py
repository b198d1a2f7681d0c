"""Scalar functions of a policy's parameters and of one task's samples."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from metarl.errors import UserError
from metarl.params import Params, flatten, repeat
from metarl.rl.config import ESTIMATORS
from metarl.rl.policies import ActionDistribution, Policy
from metarl.rl.trajectories import Samples
from metarl.rng import make_rng

Loss = Callable[[Params, Samples], Tensor]


def surrogate(policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
    """E[π(a|o) / π_old(a|o) · A]: TRPO's objective (Schulman et al. 2015, equation 14)."""
    ratio = _ratio(policy, params, samples)
    return (samples.weights * ratio * samples.advantages).sum()


def clipped_surrogate(
    policy: ActionDistribution, params: Params, samples: Samples, clip: float
) -> Tensor:
    """E[min(r A, clip(r, 1 − ε, 1 + ε) A)]: PPO's objective (Schulman et al. 2017, equation 7)."""
    ratio, advantages = _ratio(policy, params, samples), samples.advantages
    # the minimum is a lower bound of r A: a ratio that moved past the clip in the direction that A
    # favours gets no gradient, one that moved against it gets the whole
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return (samples.weights * torch.minimum(ratio * advantages, clipped * advantages)).sum()


def _ratio(policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
    """π(a|o) / π_old(a|o), (M,)."""
    distribution = policy.distribution(params, samples.observations)
    log_ratio = policy.log_prob(distribution, samples.actions) - samples.log_probs
    # before the exponential: on padding it may overflow, and zero times infinity is not zero
    return torch.where(samples.weights > 0, log_ratio, 0.0).exp()


def mean_kl(policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
    """E[KL(π_old ‖ π)] over the observations, against the distributions that were sampled from."""
    distribution = policy.distribution(params, samples.observations)
    return (samples.weights * policy.kl(samples.distribution, distribution)).sum()


def likelihood_ratio(policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
    """−E[π/π_old · A]: LVC, low variance curvature (Rothfuss et al. 2019, section 5).

    At the parameters that were sampled from, its gradient is that of the loss of Finn et al.
    (2017), equation 4. The meta-gradient also needs how this gradient changes with the parameters:
    the second derivative is unbiased for episodes of one step, and lacks E[∇log π_t ∇A_tᵀ] and its
    transpose for longer ones, at a lower variance than DiCE's (Foerster et al. 2018).
    """
    return -surrogate(policy, params, samples)


def log_likelihood(policy: ActionDistribution, params: Params, samples: Samples) -> Tensor:
    """−E[log π · A], as the released code of Finn et al. (2017) has it.

    Its gradient is that of `likelihood_ratio` at the parameters that were sampled from. Its second
    derivative misses the term E[∇log π ∇log πᵀ A].
    """
    distribution = policy.distribution(params, samples.observations)
    log_probs = policy.log_prob(distribution, samples.actions)
    return -(samples.weights * log_probs * samples.advantages).sum()


def inner_loss(policy: ActionDistribution, estimator: str) -> Loss:
    """The inner loss of one task's samples, by its name or `module:function`.

    Raises:
        UserError: if a custom function cannot be loaded, or does not return one number.
    """
    function = ESTIMATORS.load(estimator)
    if estimator in ESTIMATORS:
        return partial(function, policy)

    def loss(params: Params, samples: Samples) -> Tensor:
        value = function(policy, params, samples)
        if not isinstance(value, Tensor) or value.dim():
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"inner.estimator: {estimator} must return the loss of a task, of shape (), not "
                f"{got}; sum over time steps with samples.weights"
            )
        return value

    return loss


def check_estimator(policy: Policy, params: Params, estimator: str) -> None:
    """Try a custom inner loss on samples of two tasks, before it is trained with.

    Raises:
        UserError: if it raises an exception, is not finite, or has no gradient.
    """
    rng, shape = make_rng(0, "estimator"), (2, 5)  # tasks and time steps
    observations = torch.from_numpy(rng.normal(size=(*shape, policy.observation_size))).float()
    stacked = repeat(params, shape[0])
    distribution = policy.distribution(stacked, observations)
    actions = policy.act(distribution, torch.from_numpy(policy.noise(rng, shape)))
    samples = Samples(
        observations,
        actions,
        advantages=torch.from_numpy(rng.normal(size=shape)).float(),
        weights=torch.full(shape, 1.0 / shape[1]),
        log_probs=policy.log_prob(distribution, actions),
        distribution={n: leaf.expand(*shape, *leaf.shape[2:]) for n, leaf in distribution.items()},
    )
    try:
        gradient = flatten(vmap(grad(inner_loss(policy, estimator)))(stacked, samples))
    except UserError:
        raise
    except Exception as error:  # user code may raise any exception
        raise UserError(
            f"inner.estimator: {estimator} raised {type(error).__name__} "
            f"({' '.join(str(error).split())[:200]}); it computes the loss of one task, under vmap "
            "and grad of torch.func: no branches on the values of tensors, nothing in place"
        ) from error
    if not gradient.isfinite().all() or not gradient.any():
        problem = "no gradient" if gradient.isfinite().all() else "a gradient that is not finite"
        raise UserError(
            f"inner.estimator: {estimator} has {problem}; it must depend on the parameters, "
            "through policy.distribution(params, samples.observations)"
        )
