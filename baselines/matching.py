"""Matching networks (Vinyals et al. 2016): attention over the embeddings of the support set."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metarl.baselines.embedding import (
    EmbeddingMethod,
    over_classes,
    squared_distances,
    width,
)
from metarl.config.sections import MethodSection
from metarl.networks.layers import uniform
from metarl.params import Params
from metarl.supervised.methods import MatchingSettings

SUPPORT, QUERY = "support.", "query."  # the two LSTMs of full context embeddings


class Matching(EmbeddingMethod):
    """Learns embeddings; a query's class is the attention-weighted mean of the support's labels."""

    label: ClassVar[str] = "matching networks"
    Settings: ClassVar[type[MethodSection]] = MatchingSettings

    @property
    def settings(self) -> MatchingSettings:
        """What it alone was told."""
        settings = self.problem.config.method
        assert isinstance(settings, MatchingSettings)
        return settings

    def init(self, generator: torch.Generator) -> Params:
        """A fresh network, and the LSTMs of full context embeddings."""
        params = super().init(generator)
        if not self.settings.context_steps:
            return params
        size = width(self.problem.network, params, self.problem.tasks("train").shape)
        return params | init_context(generator, size)

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """The logarithm of the attention that each class gets."""
        if steps := self.settings.context_steps:
            support = support_in_context(params, support)
            queries = queries_in_context(params, queries, support, steps)
        return attention(support, labels, queries, self.settings.distance)


def attention(support: Tensor, labels: Tensor, queries: Tensor, distance: str) -> Tensor:
    """log Σ a(x̂, xᵢ) over the examples of each class, a the softmax (equations 1 and 2).

    Args:
        support: embeddings of N tasks, (N, K, F).
        labels: theirs, (N, K).
        queries: embeddings, (N, M, F).
        distance: `euclidean`, squared, or `cosine`.

    Returns:
        Log-probabilities (N, M, ways), which are logits as well.
    """
    if distance == "cosine":
        similarities = F.normalize(queries, dim=-1) @ F.normalize(support, dim=-1).mT
    else:
        similarities = -squared_distances(queries, support)
    return over_classes(torch.logsumexp, similarities.log_softmax(-1), labels)


def init_context(generator: torch.Generator, size: int) -> Params:
    """Xavier weights and zero biases of both LSTMs, for embeddings of a size F.

    The support's two directions are `support.weight_ih_l0`, ..., `support.weight_ih_l0_reverse`, as
    torch calls them; the query's has F more inputs, what it read.
    """

    def lstm(prefix: str, inputs: int, suffix: str) -> Params:
        return {
            f"{prefix}weight_ih_{suffix}": uniform(generator, (4 * size, inputs), inputs, size),
            f"{prefix}weight_hh_{suffix}": uniform(generator, (4 * size, size), size, size),
            f"{prefix}bias_ih_{suffix}": torch.zeros(4 * size),
            f"{prefix}bias_hh_{suffix}": torch.zeros(4 * size),
        }

    both = lstm(SUPPORT, size, "l0") | lstm(SUPPORT, size, "l0_reverse")
    return both | lstm(QUERY, 2 * size, "l0")


def support_in_context(params: Params, support: Tensor) -> Tensor:
    """g(xᵢ, S): both directions of an LSTM over the support set, and the embedding (appendix A.2).

    Args:
        params: with those of `init_context`.
        support: embeddings (N, K, F), in the order in which the LSTM sees them.
    """
    size = support.shape[-1]
    # the module is a shell without weights of its own, which come as an argument
    shell = torch.nn.LSTM(size, size, batch_first=True, bidirectional=True, device="meta")
    weights = {
        name.removeprefix(SUPPORT): leaf
        for name, leaf in params.items()
        if name.startswith(SUPPORT)
    }
    hidden, _ = functional_call(shell, weights, (support,))
    forwards, backwards = hidden.split(size, dim=-1)
    seen: Tensor = forwards + backwards + support
    return seen


def queries_in_context(params: Params, queries: Tensor, support: Tensor, steps: int) -> Tensor:
    """f(x̂, S): steps of an LSTM that reads the support set by attention (equations 3 to 6).

    Args:
        params: with those of `init_context`.
        queries: embeddings (N, M, F).
        support: in context, (N, K, F).
        steps: how many.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [params[f"{QUERY}{name}_l0"] for name in names]
    flat = queries.flatten(0, 1)
    hidden = read = cell = torch.zeros_like(flat)
    for _ in range(steps):
        inputs = torch.cat([flat, read], dim=-1)
        hidden, cell = torch.lstm_cell(inputs, (hidden, cell), *weights)
        hidden = hidden + flat
        chosen = (hidden.view_as(queries) @ support.mT).softmax(-1)  # (N, M, K)
        read = (chosen @ support).flatten(0, 1)
    return hidden.view_as(queries)
