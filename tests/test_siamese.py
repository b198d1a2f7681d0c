"""Siamese networks: the loss of pairs against a plain loop."""

import numpy as np
import torch

from metarl.baselines.siamese import BIAS, WEIGHT, pair_logits, verification_loss

N, K, M, F = 2, 4, 3, 5
GENERATOR = torch.Generator().manual_seed(0)
SUPPORT = torch.randn(N, K, F, generator=GENERATOR, dtype=torch.float64)
QUERIES = torch.randn(N, M, F, generator=GENERATOR, dtype=torch.float64)
PAIR = {
    WEIGHT: torch.randn(F, generator=GENERATOR, dtype=torch.float64),
    BIAS: torch.tensor(0.3, dtype=torch.float64),
}
LABELS, TARGETS = [[0, 1, 2, 0], [2, 1, 0, 1]], [[2, 0, 1], [1, 1, 2]]


def test_pairs_of_one_class_are_half_of_the_loss() -> None:
    same = torch.tensor(TARGETS).unsqueeze(-1) == torch.tensor(LABELS).unsqueeze(1)
    loss = verification_loss(pair_logits(PAIR, SUPPORT, QUERIES), same)
    weight, expected = PAIR[WEIGHT].numpy(), 0.0
    for task in range(N):
        losses: dict[bool, list[float]] = {True: [], False: []}
        for query in range(M):
            for k in range(K):
                difference = np.abs(SUPPORT[task, k].numpy() - QUERIES[task, query].numpy())
                probability = 1.0 / (1.0 + np.exp(-(weight @ difference + 0.3)))
                alike = LABELS[task][k] == TARGETS[task][query]
                losses[alike].append(-np.log(probability if alike else 1.0 - probability))
        expected += 0.5 * np.mean(losses[True]) + 0.5 * np.mean(losses[False])
    np.testing.assert_allclose(float(loss), expected, rtol=1e-12)
