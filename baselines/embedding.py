"""What methods that compare embeddings have in common. Nothing is fine-tuned on a new task.

The embedding is what the network's last layer would see; that layer itself goes unused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metarl.method import AdaptationUnit, Role
from metarl.networks import Network
from metarl.params import Params, repeat
from metarl.supervised.losses import CLASSIFICATION, Kind
from metarl.supervised.method import SupervisedMethod
from metarl.supervised.methods import EmbeddingSettings
from metarl.supervised.prediction import queries_of
from metarl.supervised.tasks import Episodes, Examples


class EmbeddingMethod(SupervisedMethod):
    """Learns embeddings in which examples of one class are alike; a subclass says how alike."""

    role: ClassVar[Role] = "meta-learner"
    adaptation_unit: ClassVar[AdaptationUnit | None] = None
    kinds: ClassVar[tuple[Kind, ...]] = (CLASSIFICATION,)
    any_ways: ClassVar[bool] = True
    supports_distributed: ClassVar[bool] = True

    @property
    def ways(self) -> int | None:
        """More classes an episode of training than at the test."""
        settings = self.problem.config.method
        assert isinstance(settings, EmbeddingSettings)
        return settings.ways

    def init(self, generator: torch.Generator) -> Params:
        """A fresh network."""
        tasks = self.problem.tasks("train")
        return self.problem.network.init(generator, tasks.shape, tasks.outputs)

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Logits of embeddings.

        Args:
            params: the meta-parameters, not stacked.
            support: embeddings of N tasks, (N, K, F).
            labels: theirs, (N, K).
            queries: embeddings, (N, M, F).

        Returns:
            (N, M, ways).
        """
        raise NotImplementedError

    def loss(self, params: Params, episodes: Episodes, iteration: int) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries' logits."""
        inputs, targets = episodes.query
        outputs = self.predict(self.problem.network, params, episodes.support, inputs)
        return self.problem.kind.loss(outputs, targets), outputs

    def outputs(
        self, params: Params, support: Examples, inputs: Tensor, step_sizes: Sequence[float]
    ) -> Iterator[Tensor]:
        """The logits, of a single stage."""
        predict = queries_of(self.predict, self.problem.config.evaluation.transductive)
        yield predict(self.problem.network, params, support, inputs)

    def predict(
        self, network: Network, params: Params, support: Examples, inputs: Tensor
    ) -> Tensor:
        """Logits (N, M, ways) for inputs (N, M, ...), with parameters that are not stacked."""
        known, labels = support
        ours, theirs = embedded(network, repeat(params, len(inputs)), known, inputs)
        return self.compare(params, ours, labels, theirs)


def embedded(
    network: Network, params: Mapping[str, Tensor], support: Tensor, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings of the support set and of the queries, (N, K, F) and (N, M, F).

    Args:
        network: embeds by its features.
        params: its parameters, stacked over tasks.
        support: inputs of N tasks, (N, K, ...).
        queries: the same, (N, M, ...).
    """
    # in one batch, so that both are normalised alike
    features = network.features(params, torch.cat([support, queries], dim=1))
    return features[:, : support.shape[1]], features[:, support.shape[1] :]


def width(network: Network, params: Params, shape: tuple[int, ...]) -> int:
    """F, the size of an embedding of inputs of a shape."""
    with torch.no_grad():
        return network.features(repeat(params, 1), torch.zeros(1, 2, *shape)).shape[-1]


def squared_distances(queries: Tensor, others: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M, K) of embeddings (N, M, F) to others (N, K, F)."""
    return torch.cdist(queries, others, compute_mode="donot_use_mm_for_euclid_dist").square()


def over_classes(reduce: Callable[..., Tensor], similarities: Tensor, labels: Tensor) -> Tensor:
    """Similarities to the examples of each class, as one number a class, (N, M, ways).

    Args:
        reduce: over a class, such as `torch.amax`; −∞ stands in the place of other classes.
        similarities: of queries to the support set, (N, M, K).
        labels: of the support set, (N, K).
    """
    members = F.one_hot(labels).bool().mT  # (N, ways, K)
    return torch.stack(
        [
            reduce(similarities.masked_fill(~of_class.unsqueeze(1), -torch.inf), -1)
            for of_class in members.unbind(1)
        ],
        dim=-1,
    )
