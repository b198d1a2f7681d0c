"""Scalar functions of a policy's parameters and of one task's samples."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from metarl.params import Params
from metarl.rl.policies import ActionDistribution
from metarl.rl.trajectories import Samples

Estimator = Literal["likelihood_ratio", "log_likelihood"]
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


def reinforce(policy: ActionDistribution, estimator: Estimator) -> Loss:
    """The inner loss, whose gradient is the policy gradient of Finn et al. (2017), equation 4.

    Both forms have the same gradient at the parameters that were sampled from. They differ in how
    this gradient changes with the parameters, which the exact meta-gradient needs:

    - `likelihood_ratio`: E[π/π_old · A], whose second derivative is unbiased (the LVC estimator,
      Rothfuss et al. 2019, section 5).
    - `log_likelihood`: E[log π · A], as the paper's released code has it. Its second derivative
      misses the term E[∇log π ∇log πᵀ A].
    """
    if estimator == "likelihood_ratio":
        return lambda params, samples: -surrogate(policy, params, samples)

    def loss(params: Params, samples: Samples) -> Tensor:
        distribution = policy.distribution(params, samples.observations)
        log_probs = policy.log_prob(distribution, samples.actions)
        return -(samples.weights * log_probs * samples.advantages).sum()

    return loss
