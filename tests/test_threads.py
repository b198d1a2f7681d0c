"""Results do not depend on the number of threads, and no two purposes share a random stream."""

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from metarl.experiment import load_config
from metarl.method import Method, load_method, train
from metarl.params import flatten
from metarl.rl.problem import PolicyProblem
from metarl.threads import processors, thread_limit


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


SMALL = ["outer.iterations=1", "evaluation.tasks=3"]
ROLLOUTS = [*SMALL, "family.settings.horizon=10", "evaluation.episodes_per_task=7"]
SHAPES = [["outer.meta_batch=3", "inner.episodes_per_task=5"]]
SHAPES += [["outer.meta_batch=5", "inner.episodes_per_task=7"]]


def with_threads(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(number)), raising=False)
    monkeypatch.delenv("METARL_THREADS", raising=False)
    torch.set_num_threads(number)


@pytest.mark.parametrize("shape", SHAPES, ids=["3x5", "5x7"])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("half_cheetah_direction", ROLLOUTS),
        ("half_cheetah_direction", [*ROLLOUTS, "policy.network=my_network:Net"]),
        ("half_cheetah_direction_cavia", ROLLOUTS),
        ("half_cheetah_direction_promp", ROLLOUTS),
        ("point_navigation", [*ROLLOUTS, "inner.baseline=linear_prior"]),
        ("point_navigation_rl2", ROLLOUTS),
    ],
)
def test_a_training_and_its_evaluation_are_the_same_with_any_number_of_threads(
    config: str,
    settings: list[str],
    shape: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path,
) -> None:
    (tmp_path / "my_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("metarl.rl.problem.MIN_PARTED_ENVS", 1)  # as in large batches
    monkeypatch.setattr("baselines.rl2.SMALLEST_CHUNK", 1)
    results = []
    for number in (1, 2, 3):
        with_threads(number, monkeypatch)
        method = load_method(load_config(config, [*settings, *shape]))
        *_, (state, _) = train(method)
        results.append((flatten(state.params), method.evaluate(state.params).scores))
    for params, scores in results[1:]:
        assert torch.equal(params, results[0][0])
        assert np.array_equal(scores, results[0][1])


NETWORK = """
import torch
class Net(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(inputs, 13), torch.nn.Tanh(), torch.nn.Linear(13, outputs)
        )
    def forward(self, observations):
        return self.layers(observations)
"""


@pytest.mark.parametrize("config", ["sinusoid", "sinusoid_reptile", "sinusoid_cavia"])
def test_few_shot_regression_is_the_same_with_any_number_of_threads(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for number in (1, 3):
        with_threads(number, monkeypatch)
        method = load_method(load_config(config, [*SMALL, "outer.meta_batch=7"]))
        *_, (state, _) = train(method)
        results.append((flatten(state.params), method.evaluate(state.params).scores))
    assert torch.equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize(("episodes", "parts"), [(7, [7 * 5]), (200, [600, 400])])
def test_the_parts_of_a_batch_depend_on_its_size_alone(
    episodes: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = PolicyProblem(load_config("half_cheetah_direction", []))
    for number in (1, 2, 5):
        with_threads(number, monkeypatch)
        with problem.temporary_envs(5, episodes) as envs:
            assert [part.num_envs for part in envs] == parts
            threads = {part.unwrapped.world.batch.nthread for part in envs}
        assert threads == {max(1, number // len(parts))}
        assert processors() == number


def test_a_limit_of_threads_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with_threads(4, monkeypatch)
    with thread_limit(3):
        with thread_limit(2):
            assert processors() == 2
        assert processors() == 3
    assert processors() == 4


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("point_navigation", ["evaluation.batch_unit=steps", "inner.baseline=linear_prior"]),
        ("point_navigation_rl2", []),
        ("sinusoid", []),
    ],
)
def test_no_two_purposes_of_a_run_share_a_random_stream(
    config: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeds of training and evaluation are equal, and some episodes end early."""
    streams: Counter[tuple[int, ...]] = Counter()
    sequence = np.random.SeedSequence

    def record(entropy: object = None, **options: object) -> np.random.SeedSequence:
        if isinstance(entropy, list):  # gymnasium's own seeds are numbers
            streams[tuple(entropy)] += 1
        return sequence(entropy, **options)

    monkeypatch.setattr(np.random, "SeedSequence", record)
    if config != "sinusoid":
        settings = [*settings, *SHAPES[0], "family.settings.horizon=10"]
        settings += ["family.settings.half_width=0.02", "evaluation.episodes_per_task=3"]
    method = load_method(load_config(config, [*SMALL, *settings, "seed=1", "evaluation.seed=1"]))
    *_, (state, _) = train(method)
    method.evaluate(state.params)
    if config != "sinusoid":
        policy = method.agent(state.params, seed=1)
        policy.play(method.problem.family.make(), 2, 10, [0.01, 0.0], ("play",))
    assert len(streams) >= 3
    assert [words for words, count in streams.items() if count > 1] == []
