"""However many threads torch has, it computes with one: sums are rounded alike everywhere."""

from collections.abc import Iterator

import pytest
import torch

from metarl.experiment import load_config
from metarl.method import Method, load_method


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("config", "method", "asked"),
    [
        ("sinusoid", "maml", "evaluation_episodes"),
        ("sinusoid", "pretrained", "evaluation_episodes"),
        ("sinusoid_reptile", "reptile", "evaluation_episodes"),
        ("sinusoid", "meta_lstm", "evaluation_episodes"),
        ("sinusoid_cavia", "cavia", "evaluation_episodes"),
        ("point_navigation_cavia", "cavia", "test_tasks"),
        ("point_navigation_e_maml", "e_maml", "test_tasks"),
        ("point_navigation", "maml", "test_tasks"),
        ("point_navigation", "pretrained", "validation_tasks"),
        ("point_navigation_rl2", "rl2", "test_tasks"),
    ],
)
def test_an_evaluation_has_one_thread(
    config: str, method: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Method = load_method(load_config(config, [f"method={method}"]))
    params = made.initial_state().params

    def seen(*_: object) -> None:
        raise InterruptedError(torch.get_num_threads())

    monkeypatch.setattr(type(made.problem), asked, seen)
    with pytest.raises(InterruptedError, match=r"^1$"):
        made.evaluate(params)
    assert torch.get_num_threads() == 2


def test_initial_weights_are_the_same_with_any_number_of_threads() -> None:
    method = load_method(load_config("half_cheetah_direction_rl2", []))
    two = method.initial_state().params
    torch.set_num_threads(1)
    one = method.initial_state().params
    assert all(torch.equal(one[name], leaf) for name, leaf in two.items())
