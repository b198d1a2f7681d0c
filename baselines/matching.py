"""Matching networks (Vinyals et al. 2016): attention over the embeddings of the support set."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metarl.baselines.embedding import (
    EmbeddingMethod,
    EmbeddingSettings,
    embedding_size,
    reduce_classes,
    squared_distances,
)
from metarl.config.sections import MethodSection, NonNegativeInt
from metarl.networks.layers import uniform
from metarl.params import Params, split_prefix, with_added
from metarl.supervised.losses import LossSettings

SUPPORT, QUERY = "support.", "query."  # the two LSTMs of full context embeddings


class MatchingSettings(EmbeddingSettings, LossSettings):
    """`distance` of embeddings: the squared Euclidean one reproduces the paper's accuracies.

    With `context_steps` above 0, embeddings depend on the whole support set (full context
    embeddings, section 2.1.2): support embeddings by a bidirectional LSTM, query embeddings by this
    number of steps of an LSTM with attention, the first of which has read nothing yet (see
    `queries_in_context`). Train them with the `ways` of the test tasks.
    """

    name: Literal["matching"] = "matching"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    context_steps: NonNegativeInt = 0


class Matching(EmbeddingMethod):
    """Learns embeddings; the prediction is the attention-weighted mean of the support labels."""

    label: ClassVar[str] = "matching networks"
    Settings: ClassVar[type[MethodSection]] = MatchingSettings

    def init(self, generator: torch.Generator) -> Params:
        params = super().init(generator)
        if not self.settings.context_steps:
            return params
        size = embedding_size(self.problem.network, params, self.problem.tasks("train").shape)
        return with_added(params, init_context(generator, size))

    def compare(self, params: Params, support: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        # log-probabilities are logits too
        if steps := self.settings.context_steps:
            support = support_in_context(params, support)
            queries = queries_in_context(params, queries, support, steps)
        return attention(support, labels, queries, self.settings.distance)


def attention(support: Tensor, labels: Tensor, queries: Tensor, distance: str) -> Tensor:
    """log Σ a(x̂, xᵢ) over the examples of each class, with softmax a (equations 1 and 2).

    Args:
        support, labels, queries: as for `EmbeddingMethod.compare`.
        distance: `euclidean`, which is squared, or `cosine`.

    Returns:
        Log-probabilities (N, M, ways). They are logits too, as they are normalised.
    """
    if distance == "cosine":
        similarities = F.normalize(queries, dim=-1) @ F.normalize(support, dim=-1).mT
    else:
        similarities = -squared_distances(queries, support)
    # log Σ a = logsumexp log a: the sum itself would underflow at large distances
    return reduce_classes(torch.logsumexp, similarities.log_softmax(-1), labels)


def init_context(generator: torch.Generator, size: int) -> Params:
    """Xavier weights and zero biases of both LSTMs, for embeddings of size F.

    The two directions of the support LSTM are `support.weight_ih_l0`, ...,
    `support.weight_ih_l0_reverse`, as in torch. The query LSTM has 2F inputs: the embedding and
    the read vector.
    """

    def lstm(prefix: str, inputs: int, suffix: str) -> Params:
        return {
            f"{prefix}weight_ih_{suffix}": uniform(generator, (4 * size, inputs), inputs, size),
            f"{prefix}weight_hh_{suffix}": uniform(generator, (4 * size, size), size, size),
            f"{prefix}bias_ih_{suffix}": torch.zeros(4 * size),
            f"{prefix}bias_hh_{suffix}": torch.zeros(4 * size),
        }

    support = lstm(SUPPORT, size, "l0") | lstm(SUPPORT, size, "l0_reverse")
    return support | lstm(QUERY, 2 * size, "l0")


def support_in_context(params: Params, support: Tensor) -> Tensor:
    """g(xᵢ, S): the embedding plus both directions of an LSTM over the support set (appendix A.2).

    Args:
        params: contains those of `init_context`.
        support: embeddings (N, K, F), in the order in which the LSTM processes them.
    """
    size = support.shape[-1]
    # a module on the meta device has no memory for weights: they are passed to functional_call
    lstm = torch.nn.LSTM(size, size, batch_first=True, bidirectional=True, device="meta")
    _, weights = split_prefix(params, SUPPORT)
    hidden, _ = functional_call(lstm, weights, (support,))
    # torch concatenates the directions: h→ᵢ of x₁...xᵢ, and h←ᵢ of x_K...xᵢ
    forward, backward = hidden.split(size, dim=-1)
    embeddings: Tensor = forward + backward + support
    return embeddings


def queries_in_context(params: Params, queries: Tensor, support: Tensor, steps: int) -> Tensor:
    """f(x̂, S): steps of an LSTM that reads the support set by attention (appendix A.1).

    For k = 1, ..., `steps`, with f'(x̂) the embedding of a query and g(xᵢ) those of the support set:

        ĥ_k, c_k = LSTM(f'(x̂), [h_{k−1}, r_{k−1}], c_{k−1})
        h_k      = ĥ_k + f'(x̂)
        r_k      = Σᵢ softmax(h_kᵀ g(xᵢ)) g(xᵢ)

    These are equations 3 to 6, except that the states start at h₀ = c₀ = r₀ = 0. Equation 5 at
    h₀ = 0 has uniform attention, so the paper's r₀ is the mean of the support set, Σᵢ g(xᵢ) / K.
    Here the first step depends on the query only; later reads are the paper's. The read vector is
    an input of the LSTM cell, which is equivalent to [h, r] as its state: the gates are linear in
    both, W_h h + W_r r.

    Args:
        params: contains those of `init_context`.
        queries: embeddings (N, M, F).
        support: embeddings in context, (N, K, F).
        steps: the number of LSTM steps.
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [params[f"{QUERY}{name}_l0"] for name in names]
    embeddings = queries.flatten(0, 1)  # (N·M, F), as torch's cell takes one batch dimension
    hidden = read = cell = torch.zeros_like(embeddings)
    for _ in range(steps):
        inputs = torch.cat([embeddings, read], dim=-1)
        hidden, cell = torch.lstm_cell(inputs, (hidden, cell), *weights)
        hidden = hidden + embeddings
        weights_of_support = (hidden.view_as(queries) @ support.mT).softmax(-1)  # (N, M, K)
        read = (weights_of_support @ support).flatten(0, 1)
    return hidden.view_as(queries)
