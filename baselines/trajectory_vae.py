"""The variational autoencoder of VariBAD, for trajectories (Zintgraf et al. 2020, section 3.1).

From the state of a recurrent unit, the encoder gives a Gaussian belief about the task. From a
sample of this belief the decoder predicts the rewards, and the next observations where the dynamics
depend on the task, of all steps of the trajectory: those of the past and those to come.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.distributed import all_reduce_mean
from metarl.networks.layers import uniform
from metarl.networks.mlp import init_mlp, mlp
from metarl.networks.recurrent import recurrent_sequence
from metarl.optim import Objective, gradient_and_value
from metarl.params import Params, split_prefix, with_prefix

POSTERIOR, REWARDS, STATES = "posterior.", "rewards.", "states."


def init_vae(
    generator: torch.Generator,
    sizes: tuple[int, int, int, int],
    decoder_sizes: tuple[int, ...],
    decode_states: bool,
) -> Params:
    """Fresh parameters of posterior and decoders; those of the recurrent unit are not among them.

    Args:
        generator: the source of randomness.
        sizes: of the unit's state F, of the latent L, of observations S and of actions A.
        decoder_sizes: hidden layers of the decoders.
        decode_states: whether there is a decoder of next observations.
    """
    hidden, latent, observation, action = sizes
    params = {
        f"{POSTERIOR}weight": uniform(generator, (hidden, 2 * latent), hidden, latent),
        f"{POSTERIOR}bias": torch.zeros(2 * latent),
    }
    inputs = latent + observation + action
    layers = init_mlp(generator, (inputs + observation, *decoder_sizes, 1))
    params |= with_prefix(layers, REWARDS)
    if decode_states:
        layers = init_mlp(generator, (inputs, *decoder_sizes, observation))
        params |= with_prefix(layers, STATES)
    return params


def posterior(params: Mapping[str, Tensor], states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (..., L each) of the belief, for states (..., F) of the unit."""
    mean, log_variance = (states @ params[f"{POSTERIOR}weight"] + params[f"{POSTERIOR}bias"]).chunk(
        2, -1
    )
    return mean, log_variance


def divergences(means: Tensor, log_variances: Tensor) -> Tensor:
    """KL(q_t ‖ q_{t−1}) (H', ·) of beliefs (H', ·, L); before the first one is N(0, 1)."""
    # the belief before is the prior of the next step, as in Bayes' rule (equation 9)
    before_mean, before = (
        torch.cat([torch.zeros_like(leaf[:1]), leaf[:-1]]) for leaf in (means, log_variances)
    )
    squares = (log_variances.exp() + (means - before_mean).square()) * (-before).exp()
    return 0.5 * (before - log_variances + squares - 1.0).sum(-1)


@dataclass(frozen=True)
class Transitions:
    """The steps of M trials, which the decoder predicts.

    Attributes:
        inputs: of the recurrent unit, (H', M, ·).
        observations: (H', M, S).
        actions: as inputs of a network, (H', M, A).
        next_observations: (H', M, S).
        rewards: (H', M, 1).
        mask: (H', M), true on steps that were taken, which come first.
    """

    inputs: Tensor
    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    rewards: Tensor
    mask: Tensor

    def select(self, trials: Tensor) -> "Transitions":
        """Those of some trials."""
        return Transitions(**{name: leaf[:, trials] for name, leaf in vars(self).items()})

    def take(self, steps: Tensor) -> "Transitions":
        """The steps (C, M) of each trial."""
        return Transitions(**{name: _take(leaf, steps) for name, leaf in vars(self).items()})


def reconstruction_errors(
    params: Mapping[str, Tensor], latents: Tensor, transitions: Transitions
) -> Tensor:
    """Squared errors (T, D, M) of the predictions from latents (T, M, L) of steps (D, M)."""
    # every latent predicts every step: their inputs have the shape (T, D, M, ·)
    number, steps = len(latents), transitions.observations.shape
    latents = latents.unsqueeze(1).expand(-1, steps[0], -1, -1)

    def decode(decoder: str, *inputs: Tensor) -> Tensor:
        rows = [x.expand(number, -1, -1, -1) for x in inputs]
        return mlp(split_prefix(params, decoder)[1], torch.cat([latents, *rows], -1), torch.relu)

    before = transitions.observations, transitions.actions
    rewards = decode(REWARDS, *before, transitions.next_observations)
    errors = (rewards - transitions.rewards).square().squeeze(-1)
    if any(name.startswith(STATES) for name in params):
        states = decode(STATES, *before)
        errors = errors + (states - transitions.next_observations).square().mean(-1)
    return errors


@dataclass(frozen=True)
class TrajectoryELBO:
    """The evidence lower bound of trials (equation 8), summed over trials by `value`.

        ELBO_t = E_{z ~ q_t} [Σ_i log p(r_i, s_{i+1} | z, s_i, a_i)] − w KL(q_t ‖ q_{t−1})

    with −log p = the squared error; its mean over the steps t of a trial. Both t and i may be some
    of the steps: the errors at steps i are scaled to the sum over all.

    Attributes:
        transitions: of M trials.
        encoded: the steps t, (T, M).
        decoded: the steps i, (D, M).
        noise: of z, standard normal, (T, M, L).
        kl_weight: w.
    """

    transitions: Transitions
    encoded: Tensor
    decoded: Tensor
    noise: Tensor
    kl_weight: float

    def minibatches(self) -> list[Objective]:
        return [self]

    def gradient(self, theta: Params) -> tuple[Tensor, float]:
        """The gradient (P,) and the value, by backpropagation through whole trials."""
        sums = gradient_and_value(self.value, theta)
        mean = all_reduce_mean(sums, self.transitions.mask.shape[1])
        return mean[:-1], float(mean[-1])

    def value(self, params: Params) -> Tensor:
        mask, encoder = self.transitions.mask, params[f"{POSTERIOR}weight"]
        start = encoder.new_zeros(mask.shape[1], len(encoder))
        states = recurrent_sequence(params, start, self.transitions.inputs)
        means, log_variances = posterior(params, states)
        deviations = (0.5 * _take(log_variances, self.encoded)).exp()
        latents = _take(means, self.encoded) + deviations * self.noise
        steps = self.transitions.take(self.decoded)
        errors = (reconstruction_errors(params, latents, steps) * steps.mask).sum(1)
        errors = errors * (mask.sum(0) / steps.mask.sum(0))
        penalties = self.kl_weight * _take(divergences(means, log_variances), self.encoded)
        is_step = _take(mask, self.encoded)
        terms = torch.where(is_step, errors + penalties, 0.0)
        return -(terms.sum(0) / is_step.sum(0)).sum()


def draw_elbo(
    transitions: Transitions,
    rng: np.random.Generator,
    trials: int,
    steps: int | None,
    latent_size: int,
    kl_weight: float,
) -> TrajectoryELBO:
    """The bound of some of the trials, with some of the steps of each.

    Args:
        transitions: of all trials.
        rng: the source of randomness.
        trials: the largest number of trials.
        steps: the largest number of steps that are encoded, and decoded; None for all.
        latent_size: L.
        kl_weight: w.
    """
    drawn = rng.permutation(transitions.mask.shape[1])[:trials]
    transitions = transitions.select(torch.from_numpy(drawn))
    mask = transitions.mask.numpy()
    # different steps of each trial, with its padding after them
    encoded, decoded = (
        torch.from_numpy(np.where(mask, rng.random(mask.shape), 2.0).argsort(axis=0)[:steps])
        for _ in range(2)
    )
    noise = rng.standard_normal((*encoded.shape, latent_size), dtype=np.float32)
    return TrajectoryELBO(transitions, encoded, decoded, torch.from_numpy(noise), kl_weight)


def _take(leaf: Tensor, steps: Tensor) -> Tensor:
    """The steps (C, M) of (H', M, ...)."""
    index = steps.view(*steps.shape, *[1] * (leaf.dim() - 2))
    return leaf.gather(0, index.expand(*steps.shape, *leaf.shape[2:]))
