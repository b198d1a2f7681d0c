"""An experiment in meta-reinforcement learning, put together from its config."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.compute import device_for
from metarl.envs import TaskFamily
from metarl.evaluation import AdaptationCurve, Metric
from metarl.params import Params
from metarl.randomness import stream
from metarl.rl.config import Config
from metarl.rl.evaluation import adaptation_curve
from metarl.rl.maml import InnerLoop
from metarl.rl.training import initial_state, inner_loop, meta_train
from metarl.training import Metrics, TrainingState


@dataclass(frozen=True)
class PolicyExperiment:
    """A policy, and a family of environments to adapt it to; see `metarl.experiment.Experiment`."""

    config: Config

    metric = Metric("return", "undiscounted return", "environment steps", iqm=True)

    @cached_property
    def family(self) -> TaskFamily:
        """The family as the method sees it: an oracle is told its task."""
        return self.config.load_family()

    @cached_property
    def inner(self) -> InnerLoop:
        """The policy, and how it adapts."""
        return inner_loop(self.config, self.family)

    @property
    def title(self) -> str:
        """The family's name."""
        return self.config.family.name

    @property
    def data_hashes(self) -> dict[str, str]:
        """Empty: there are no data."""
        return {}

    @property
    def budget(self) -> int:
        """The most environment steps that training takes."""
        return self.config.budget(self.family.horizon)

    def check(self) -> None:
        """Raise UserError if the config asks for a GPU and there is none."""
        device_for(self.config.device)

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """The config's."""
        return self.config.evaluation.model_dump(mode="json")

    def initial_state(self) -> TrainingState:
        """Before the first iteration."""
        return initial_state(self.config, self.inner)

    def train(self, state: TrainingState) -> Iterator[tuple[TrainingState, Metrics]]:
        """Train by the config's method, with the same budget for each."""
        match self.config.method:
            case "maml":
                return meta_train(self.config, self.family, state)
            case "random":
                return iter(())
            case "pretrained" | "oracle":
                # imported here: stable-baselines3 takes seconds, which nobody else should wait for
                from metarl.baselines.pretraining import pretrain

                return pretrain(self.config, self.inner.policy, self.family, state)

    def progress(self, metrics: Metrics) -> str:
        """The returns before and after adaptation."""
        returns = [value for name, value in metrics.items() if name.startswith("return/")]
        if len(returns) == 1:
            return f"return {returns[0]:.1f}"
        return f"return {returns[0]:.1f} → adapted {returns[-1]:.1f}"

    def step_sizes(self, first: float | None = None) -> tuple[float, ...]:
        """Those of the config's evaluation, in proportion to the first where that is given."""
        sizes = self.config.evaluation_step_sizes
        return sizes if first is None else tuple(first * size / sizes[0] for size in sizes)

    def adaptation_curve(
        self, params: Params, step_sizes: Sequence[float], validation: bool = False
    ) -> AdaptationCurve:
        """Fine-tune on unseen tasks, those of the test or of the validation."""
        settings = self.config.evaluation
        tasks, seed = settings.tasks, settings.seed
        if validation:
            # tasks, starts and noise of validation have nothing in common with those of the test
            tasks = self.config.baseline.validation_tasks
            seed = int(stream(seed, "validation").integers(2**31))
        return adaptation_curve(
            self.inner, params, self.family, tasks, settings.trajectories, step_sizes, seed
        )

    def describe(self, task: NDArray[np.float64]) -> str:
        """A task in words."""
        return self.family.describe(task)
