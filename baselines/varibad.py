"""VariBAD (Zintgraf et al. 2020): Bayes-adaptive policies by variational inference of the task.

A recurrent encoder turns the trajectory so far into a belief about the task, a Gaussian over a
latent. It is trained as part of an autoencoder (`metarl.baselines.trajectory_vae`), without policy
gradients. The policy observes mean and log-variance of the belief beside the observation, and can
act on how uncertain the task is. It is trained by PPO over whole trials, like RL².
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.baselines.rl2 import HEADS_OBSERVE, RL2, RecurrentPolicy, RL2Settings, Trials
from metarl.baselines.trajectory_vae import Transitions, draw_elbo, init_vae, posterior
from metarl.config.sections import MethodSection, NonNegativeFloat, PositiveFloat, PositiveInt
from metarl.method import Metrics, TrainingState
from metarl.networks.recurrent import recurrent_sequence
from metarl.optim.adam import Adam
from metarl.params import Params, split_prefix, with_prefix
from metarl.rl.config import Config
from metarl.rl.trajectories import Distribution

VAE = "vae."


class VariBADSettings(RL2Settings):
    """The settings of RL², and those of the autoencoder.

    `head_sizes` are hidden layers from observation and belief to the actions, and to the value; the
    recurrent unit is the encoder. The belief is about `latent_size` numbers. `decoder_sizes` are
    hidden layers of the decoder, which predicts rewards, and with `decode_states` the next
    observations as well, for families whose dynamics differ by task.

    After each iteration of PPO, `vae_updates` steps of Adam with `vae_learning_rate`, which follows
    the schedule of the outer step, maximise the evidence lower bound, each on `vae_trials` of the
    trials. `vae_steps` of the beliefs of each are decoded, at so many steps; `null` is all.
    `kl_weight` multiplies the divergence from the belief of the step before.
    """

    name: Literal["varibad"] = "varibad"  # type: ignore[assignment] # not "rl2"
    head_sizes: tuple[PositiveInt, ...] = (64,)
    latent_size: PositiveInt = 5
    decoder_sizes: tuple[PositiveInt, ...] = (64, 32)
    decode_states: bool = False
    kl_weight: NonNegativeFloat = 0.1
    vae_learning_rate: PositiveFloat = 1e-3
    vae_updates: PositiveInt = 1
    vae_trials: PositiveInt = 10
    vae_steps: PositiveInt | None = 50


@dataclass(frozen=True)
class VariBADPolicy(RecurrentPolicy):
    """A recurrent encoder, and networks from observation and belief to actions and value.

    The parameters of the autoencoder have the prefix `vae.`.

    Attributes:
        latent_size: L.
        decoder_sizes: hidden layers of the decoders.
        decode_states: whether the decoder predicts next observations.
    """

    latent_size: int = 5
    decoder_sizes: tuple[int, ...] = ()
    decode_states: bool = False

    def init_unit(self, generator: torch.Generator) -> Params:
        sizes = (self.hidden_size, self.latent_size, self.observation_size, self.action_size)
        vae = super().init_unit(generator)
        vae |= init_vae(generator, sizes, self.decoder_sizes, self.decode_states)
        return with_prefix(vae, VAE)

    def unit(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return split_prefix(params, VAE)[1]

    def features(
        self, params: Mapping[str, Tensor], states: Tensor, observations: Tensor
    ) -> Tensor:
        return torch.cat([observations, *posterior(self.unit(params), states)], dim=-1)

    @torch.no_grad()
    def trial_inputs(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        # beliefs are constants of PPO's objective, which need not be computed again in its epochs
        start = inputs.new_zeros(inputs.shape[1], self.hidden_size)
        states = recurrent_sequence(self.unit(params), start, inputs)
        return self.features(params, states, inputs[..., : self.observation_size])

    def along_trials(
        self, params: Mapping[str, Tensor], inputs: Tensor
    ) -> tuple[Distribution, Tensor]:
        return self.distribution(params, inputs), self.value(params, inputs)


class VariBAD(RL2):
    """Learns a belief about the task, and a policy that acts on it."""

    label: ClassVar[str] = "VariBAD"
    Settings: ClassVar[type[MethodSection]] = VariBADSettings
    supports_distributed: ClassVar[bool] = False  # the autoencoder takes any of the trials
    settings: VariBADSettings

    @classmethod
    def unused_settings(cls, config: Config) -> dict[str, str]:
        return super().unused_settings(config) | HEADS_OBSERVE

    @cached_property
    def policy(self) -> VariBADPolicy:
        settings, size = self.settings, self.problem.policy.observation_size
        return VariBADPolicy(
            self.head_policy(size + 2 * settings.latent_size),
            size,
            settings.hidden_size,
            settings.embedding_sizes,
            latent_size=settings.latent_size,
            decoder_sizes=settings.decoder_sizes,
            decode_states=settings.decode_states,
        )

    def outer_params(self, params: Params) -> Params:
        return split_prefix(params, VAE)[0]

    def learn(self, state: TrainingState, trials: Trials) -> tuple[TrainingState, Metrics]:
        """Take steps of PPO with the beliefs of the trials, then improve the autoencoder."""
        new, metrics = super().learn(state, trials)
        settings, problem = self.settings, self.problem
        _, vae = split_prefix(new.params, VAE)
        ppo_extra, moments = split_prefix(new.extra, VAE)
        # beliefs that go on changing would ruin a policy whose own steps have become small
        rate = problem.config.outer.annealed(settings.vae_learning_rate, state.iteration)
        optimizer = Adam(learning_rate=rate)
        transitions = to_transitions(trials)
        rng = problem.key(state.iteration).rng("autoencoder", problem.shard.start)
        bounds = []
        for _ in range(settings.vae_updates):
            objective = draw_elbo(
                transitions,
                rng,
                settings.vae_trials,
                settings.vae_steps,
                settings.latent_size,
                settings.kl_weight,
            )
            try:
                vae, moments, values = optimizer.step(vae, objective, moments, state.iteration)
            except FloatingPointError as error:
                raise FloatingPointError(
                    "the gradient of the autoencoder is not finite; lower method.vae_learning_rate"
                ) from error
            bounds.append(values["outer/objective"])
        metrics["vae/elbo"] = sum(bounds) / len(bounds)
        params, extra = new.params | with_prefix(vae, VAE), ppo_extra | with_prefix(moments, VAE)
        return replace(new, params=params, extra=extra), metrics


def to_transitions(trials: Trials) -> Transitions:
    """The steps of trials, with discrete actions as one-hot vectors, as the encoder takes them."""
    return Transitions(
        inputs=trials.inputs,
        observations=trials.join(lambda stage: stage.observations),
        actions=trials.action_inputs,
        next_observations=trials.join(lambda stage: stage.next_observations),
        rewards=trials.reward_inputs,
        mask=trials.mask,
    )
