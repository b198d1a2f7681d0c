"""Prototypical networks (Snell et al. 2017): a class is the mean of its examples' embeddings.

Nothing is fine-tuned on a new task. The embedding is what the network's last layer would see; that
layer itself goes unused.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.method import Axis, Role
from metarl.networks import Network
from metarl.params import Params, repeat
from metarl.settings import MethodSection
from metarl.supervised.losses import CLASSIFICATION, Kind
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.methods import PrototypicalSettings
from metarl.supervised.prediction import inductive
from metarl.supervised.tasks import Episodes, Examples


class Prototypical(SupervisedMethod):
    """Learns embeddings in which the nearest class mean is the right class."""

    role: ClassVar[Role] = "meta-learner"
    label: ClassVar[str] = "prototypical networks"
    axis: ClassVar[Axis | None] = None
    Settings: ClassVar[type[MethodSection]] = PrototypicalSettings
    kinds: ClassVar[tuple[Kind, ...]] = (CLASSIFICATION,)
    distributes: ClassVar[bool] = True

    @property
    def ways(self) -> int | None:
        """More classes an episode of training than at the test."""
        settings = self.problem.config.method
        assert isinstance(settings, PrototypicalSettings)
        return settings.ways

    def init(self, generator: torch.Generator) -> Params:
        """A fresh network."""
        tasks = self.problem.tasks("train")
        return self.problem.network.init(generator, tasks.shape, tasks.outputs)

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries' distances to the class means (algorithm 1)."""
        inputs, targets = episodes.query
        stacked = repeat(params, len(targets))
        outputs = nearest_prototype(self.problem.network, stacked, episodes.support, inputs)
        return self.problem.kind.loss(outputs, targets), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """The distances, of a single stage."""
        alone = not self.problem.config.evaluation.transductive
        predict = inductive(nearest_prototype) if alone else nearest_prototype
        yield predict(self.problem.network, repeat(params, len(inputs)), support, inputs)


def nearest_prototype(
    network: Network, params: Params, support: Examples, inputs: Tensor
) -> Tensor:
    """The negative squared distance to each class's mean embedding (equations 1 and 2).

    Args:
        network: embeds by its features.
        params: its parameters, stacked over tasks.
        support: of N tasks, inputs (N, K, ...) and labels (N, K).
        inputs: (N, M, ...).

    Returns:
        Logits (N, M, ways).
    """
    known, labels = support
    # in one batch, so that both are normalised alike
    embedded = network.features(params, torch.cat([known, inputs], dim=1))
    ours, theirs = embedded[:, : known.shape[1]], embedded[:, known.shape[1] :]
    members = F.one_hot(labels).to(ours.dtype)  # (N, K, ways)
    prototypes = (members.mT @ ours) / members.sum(1).unsqueeze(-1)  # (N, ways, F)
    return -torch.cdist(theirs, prototypes, compute_mode="donot_use_mm_for_euclid_dist").square()
