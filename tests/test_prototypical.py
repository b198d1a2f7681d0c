"""Prototypical networks: the essential equation, and that they learn."""

import numpy as np
import torch

from metarl.baselines.prototypical import nearest_prototype


def test_logits_are_negative_squared_distances_to_class_means() -> None:
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, 6, 4, generator=generator)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 2, 1]])
    queries = torch.randn(2, 5, 4, generator=generator)
    logits = nearest_prototype(support, labels, queries)
    for task in range(2):
        for query in range(5):
            for label in range(3):
                members = [support[task, k] for k in range(6) if labels[task, k] == label]
                mean = sum(members) / len(members)
                distance = float(((queries[task, query] - mean) ** 2).sum())
                assert abs(float(logits[task, query, label]) + distance) < 1e-5


def test_gradients_are_finite_at_large_distances() -> None:
    support = torch.zeros(1, 2, 3, requires_grad=True)
    logits = nearest_prototype(support, torch.tensor([[0, 1]]), torch.zeros(1, 1, 3))
    (gradient,) = torch.autograd.grad(logits.sum(), support)
    assert bool(torch.isfinite(gradient).all())
    assert np.isfinite(logits.sum().item())
