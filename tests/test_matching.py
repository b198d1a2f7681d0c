"""Matching networks: attention and context against plain loops."""

import numpy as np
import pytest
import torch

from metarl.baselines.matching import (
    attention,
    init_context,
    queries_in_context,
    support_in_context,
)

N, K, M, F = 2, 6, 5, 4
GENERATOR = torch.Generator().manual_seed(0)
SUPPORT = torch.randn(N, K, F, generator=GENERATOR, dtype=torch.float64)
QUERIES = torch.randn(N, M, F, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 2, 2]])
CONTEXT = {
    name: leaf.double() + 0.1 for name, leaf in init_context(GENERATOR, F).items()
}  # biases that are not zero


def euclidean(a, b) -> float:
    return -float(((a - b) ** 2).sum())


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def softmax(values) -> np.ndarray:
    exponentials = np.exp(np.asarray(values))
    return exponentials / exponentials.sum()


def sigmoid(values) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def lstm(prefix: str, suffix: str, inputs, hidden, cell) -> tuple[np.ndarray, np.ndarray]:
    """A step with torch's order of gates: input, forget, cell, output."""
    weights = {
        name: CONTEXT[f"{prefix}.{name}_{suffix}"].numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    gates = weights["weight_ih"] @ inputs + weights["bias_ih"]
    gates = gates + weights["weight_hh"] @ hidden + weights["bias_hh"]
    input_gate, forget_gate, candidate, output_gate = np.split(gates, 4)
    cell = sigmoid(forget_gate) * cell + sigmoid(input_gate) * np.tanh(candidate)
    return sigmoid(output_gate) * np.tanh(cell), cell


@pytest.mark.parametrize("similarity", [euclidean, cosine])
def test_the_probability_of_a_class_is_the_sum_of_attention_on_its_examples(similarity) -> None:
    logits = attention(SUPPORT, LABELS, QUERIES, similarity.__name__)
    embeddings, queries = SUPPORT.numpy(), QUERIES.numpy()
    for task in range(N):
        for query in range(M):
            weights = softmax(
                [similarity(queries[task, query], embeddings[task, k]) for k in range(K)]
            )
            expected = np.zeros(3)
            for k in range(K):
                expected[LABELS[task, k]] += weights[k]
            np.testing.assert_allclose(logits[task, query].exp(), expected, rtol=1e-12)


def test_the_support_set_is_embedded_by_a_bidirectional_lstm() -> None:
    context = support_in_context(CONTEXT, SUPPORT)
    for task, embeddings in enumerate(SUPPORT.numpy()):
        expected = embeddings.copy()
        for order, suffix in ((range(K), "l0"), (range(K - 1, -1, -1), "l0_reverse")):
            hidden = cell = np.zeros(F)
            for k in order:
                hidden, cell = lstm("support", suffix, embeddings[k], hidden, cell)
                expected[k] += hidden
        np.testing.assert_allclose(context[task], expected, rtol=1e-12)


def test_queries_attend_to_the_support_set() -> None:
    context = queries_in_context(CONTEXT, QUERIES, SUPPORT, 3)
    for task, embeddings in enumerate(SUPPORT.numpy()):
        for query, embedding in enumerate(QUERIES[task].numpy()):
            hidden = cell = attended = np.zeros(F)
            for _ in range(3):
                inputs = np.concatenate([embedding, attended])
                hidden, cell = lstm("query", "l0", inputs, hidden, cell)
                hidden = hidden + embedding
                weights = softmax([hidden @ embeddings[k] for k in range(K)])
                attended = sum(weights[k] * embeddings[k] for k in range(K))
            np.testing.assert_allclose(context[task, query], hidden, rtol=1e-12)
