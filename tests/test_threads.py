"""Torch computes with one thread, so that rounding does not depend on the machine."""

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
    ("config", "method", "tasks_method"),
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
    config: str, method: str, tasks_method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method_instance: Method = load_method(load_config(config, [f"method={method}"]))
    params = method_instance.initial_state().params

    def raise_num_threads(*_: object) -> None:
        raise InterruptedError(torch.get_num_threads())

    monkeypatch.setattr(type(method_instance.problem), tasks_method, raise_num_threads)
    with pytest.raises(InterruptedError, match=r"^1$"):
        method_instance.evaluate(params)
    assert torch.get_num_threads() == 2


def test_initial_weights_are_the_same_with_any_number_of_threads() -> None:
    method = load_method(load_config("half_cheetah_direction_rl2", []))
    two_thread_params = method.initial_state().params
    torch.set_num_threads(1)
    one_thread_params = method.initial_state().params
    for name, leaf in two_thread_params.items():
        assert torch.equal(one_thread_params[name], leaf)
