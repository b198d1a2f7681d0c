"""The central claim: meta-training makes a policy adapt to held-out goals."""

import numpy as np
import pytest

from metarl.experiment import load_config
from metarl.method import load_method, train

SMALL = [
    "family.settings.horizon=30",
    "policy.hidden_sizes=[64]",
    "inner.episodes_per_task=10",
    "outer.meta_batch=10",
    "outer.iterations=25",
    "evaluation.tasks=40",
    "evaluation.episodes_per_task=10",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_kl", "learns"),
    [(0.01, True), (1e-9, False)],  # tiny steps learn nothing
)
def test_meta_training_improves_the_return_after_a_step_on_unseen_goals(max_kl, learns) -> None:
    method = load_method(load_config("point_navigation", [*SMALL, f"outer.max_kl={max_kl}"]))
    state = method.initial_state()
    before = method.evaluate(state.params)
    *_, (state, _) = train(method, state)
    after = method.evaluate(state.params)
    np.testing.assert_array_equal(after.tasks, before.tasks)
    untrained = before.scores[:, 1].mean()  # returns are negative: the best is 0
    zero_step, one_step = after.scores[:, 0].mean(), after.scores[:, 1].mean()
    assert (one_step > 0.6 * untrained) == learns
    assert (one_step > 0.6 * zero_step) == learns


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cavia", "e_maml", "promp"])
def test_the_other_methods_learn_to_adapt(name: str) -> None:
    method = load_method(load_config(f"point_navigation_{name}", SMALL))
    untrained = method.evaluate(method.initial_state().params).scores.mean(axis=0)
    *_, (state, _) = train(method)
    trained = method.evaluate(state.params).scores.mean(axis=0)
    # after a gradient step; the best return is 0
    assert trained[1] > 0.8 * untrained[1], (trained, untrained)
    assert trained[1] > trained[0], (trained, untrained)
