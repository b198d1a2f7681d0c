"""Supervised meta-learning: tasks, Algorithm 2, training and evaluation."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metarl.baselines.nearest_neighbour import nearest_neighbour
from metarl.baselines.pretrained_network import merge_tasks
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import load_config, override_config, validate_config
from metarl.intervals import summarise
from metarl.method import load_method, train, with_current_names
from metarl.networks.layers import head
from metarl.params import flatten, unflatten
from metarl.report.evaluations import load_or_evaluate
from metarl.report.groups import compare
from metarl.report.predictions import predict_curve, predict_episode
from metarl.rng import make_rng
from metarl.runs.run import Run
from metarl.step_sizes import PREFIX, split
from metarl.supervised import prediction
from metarl.supervised.config import SupervisedConfig
from metarl.supervised.datasets.cache import ImageSet
from metarl.supervised.episodes import ImageTasks
from metarl.supervised.losses import accuracies
from metarl.supervised.maml import MAML, step_weights
from metarl.supervised.method import EpisodeObjective, SupervisedMethod
from metarl.supervised.prediction import predict
from metarl.supervised.problem import SupervisedProblem
from metarl.supervised.sinusoid import Sinusoid
from metarl.supervised.tasks import Episodes

SINE = {"data": {"name": "sinusoid"}, "network": {"kind": "mlp", "hidden_sizes": [8, 8]}}
IMAGES = {
    "data": {"name": "omniglot", "ways": 3},
    "network": {"kind": "conv4", "filters": 4},
    "inner": {"step_size": 0.5, "shots": 1, "queries": 2},
    "outer": {"meta_batch": 4, "iterations": 3},
    "evaluation": {"tasks": 8, "steps": 2},
}
TINY = [
    "--set=outer.iterations=6",
    "--set=outer.meta_batch=4",
    "--set=network.hidden_sizes=[8]",
    "--set=report_every=2",
    "--set=checkpoint_every=2",
    "--set=evaluation.tasks=5",
    "--set=evaluation.steps=2",
    "--set=baseline.validation_tasks=4",
]


def make_images(
    size: int = 16, channels: int = 1, classes: int = 24, images_per_class: int = 8
) -> ImageSet:
    """Classes that a network can learn to distinguish: noisy images of one pattern per class."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (classes, 1, size // 4, size // 4, channels))
    noise = rng.integers(0, 100, (classes, images_per_class, size, size, channels))
    images = (150 * patterns.repeat(4, axis=2).repeat(4, axis=3) + noise).astype(np.uint8)
    starts = np.arange(classes + 1) * images_per_class
    numbers = np.arange(classes)
    splits = {"train": numbers[:12], "validation": numbers[12:16], "test": numbers[16:]}
    names = tuple(f"class{number:02d}" for number in numbers)
    return ImageSet(images.reshape(-1, *images.shape[2:]), starts, names, splits, "sum")


def with_images(values) -> SupervisedConfig:
    """A config with the images of `make_images` instead of those of a folder."""
    config = validate_config(values)
    assert isinstance(config, SupervisedConfig)
    config.data.__dict__["images"] = make_images()
    return config


@pytest.fixture
def image_method():
    """A function that constructs the method of IMAGES with changed settings."""

    def make(**changes) -> SupervisedMethod:
        values = json.loads(json.dumps(IMAGES))
        for name, value in changes.items():
            if isinstance(value, dict):
                values.setdefault(name, {}).update(value)
            else:
                values[name] = value
        if values.get("method", "maml") in ("pretrained", "nearest_neighbour"):
            del values["inner"]["step_size"]  # without an effect
        return load_method(with_images(values))

    return make


def maml(kind: str, **settings) -> MAML:
    """MAML on a small network, with settings of the inner loop."""
    if kind == "regression":
        network, inner = {"kind": "mlp", "hidden_sizes": [7, 7]}, {"step_size": 0.05, **settings}
        config = validate_config({**SINE, "network": network, "inner": inner})
    else:
        network, inner = {"kind": "conv4", "filters": 3}, {"step_size": 0.5, **settings}
        config = with_images({**IMAGES, "network": network, "inner": inner})
    return MAML(SupervisedProblem(config))


def meta_gradient(method: MAML, meta, episodes: Episodes, iteration: int = 0):
    """The gradient of the loss, and the query loss and score, all summed over tasks."""
    objective, number = EpisodeObjective(method, episodes, iteration), len(episodes.tasks)
    uphill, _ = objective.gradient(meta)
    return -number * uphill, number * torch.tensor(objective.loss_and_score)


def query_loss(method: MAML, params, query):
    inputs, targets = query
    return method.problem.kind.loss(method.problem.network(params, inputs), targets)


def adapted(method: MAML, meta, support, steps: int):
    """The stacked parameters after a number of steps."""
    start = {name: leaf.expand(3, *leaf.shape) for name, leaf in split(meta)[0].items()}
    sizes = method.step_sizes(meta, [method.problem.config.inner.step_size] * steps)
    *_, last = method.adapted(start, support, sizes)
    return last


def double(episodes: Episodes) -> Episodes:
    """Episodes in double precision, with integer labels unchanged."""

    def convert(examples):
        x, y = examples
        return x.double(), (y.double() if y.is_floating_point() else y)

    return Episodes(episodes.tasks, convert(episodes.support), convert(episodes.query))


def episodes_of(kind: str, num_tasks: int = 3, seed: int = 0) -> Episodes:
    rng = np.random.default_rng(seed)
    if kind == "regression":
        return double(Sinusoid().tasks("train").sample(rng, num_tasks, 4, 5))
    return double(ImageTasks(make_images(), "train", 3, rotated=True).sample(rng, num_tasks, 2, 2))


def meta_of(method: MAML):
    meta = method.init(torch.Generator().manual_seed(0))
    return {name: leaf.double() for name, leaf in meta.items()}


# -- tasks


@given(seed=st.integers(0, 2**31), shots=st.integers(1, 4), queries=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_support_and_query_never_share_an_image(seed: int, shots: int, queries: int) -> None:
    images = make_images()
    # each image says which one it is, so that two are the same only if they are
    marked = np.zeros_like(images.images)
    marked[:, 0, 0, 0], marked[:, 8, 8, 0] = np.divmod(np.arange(len(marked)), 200)
    images = ImageSet(marked, images.starts, images.classes, images.splits, "")
    tasks = ImageTasks(images, "train", 3, rotated=False)
    episodes = tasks.sample(np.random.default_rng(seed), 4, shots, queries)
    (support, labels), (query, query_labels) = episodes.support, episodes.query
    for task in range(4):
        numbers = [
            (200 * x[:, 0, 0, 0] + x[:, 0, 8, 8]).mul(255).round().int().tolist()
            for x in (support[task], query[task])
        ]
        assert len({*numbers[0], *numbers[1]}) == 3 * (shots + queries)
        for number, label in zip(
            [*numbers[0], *numbers[1]], [*labels[task], *query_labels[task]], strict=True
        ):
            # the label is the place of the image's class in the task
            assert episodes.tasks[task][label] == number // 8
        assert labels[task].bincount().tolist() == [shots] * 3
        assert query_labels[task].bincount().tolist() == [queries] * 3


def test_ten_thousand_episodes_have_only_classes_of_their_split() -> None:
    images = make_images()
    for name, classes in images.splits.items():
        episodes = ImageTasks(images, name, 3, rotated=True).sample(
            np.random.default_rng(0), 10_000, 1, 1
        )
        places = episodes.tasks.astype(int) // 4
        # every class of the split, about equally often, and never twice in an episode
        counts = np.bincount(places.ravel(), minlength=len(classes))
        assert len(counts) == len(classes)
        assert counts.min() > 0.9 * counts.mean()
        assert all(len(set(task)) == 3 for task in places[:1000])


def test_the_rotation_of_a_class_is_the_same_in_support_and_query() -> None:
    images = make_images()
    corner = np.zeros_like(images.images)
    corner[:, 0, 0] = 255  # which corner is bright tells the rotation
    images = ImageSet(corner, images.starts, images.classes, images.splits, "")
    episodes = ImageTasks(images, "train", 3, rotated=True).sample(
        np.random.default_rng(0), 200, 1, 2
    )
    corners = [(0, 0), (-1, 0), (-1, -1), (0, -1)]  # after 0, 1, 2 and 3 quarter rotations

    def rotations(examples):
        x, y = examples
        at_corners = torch.stack([x[:, :, 0, i, j] for i, j in corners], -1)
        assert torch.equal(at_corners.sum(-1), torch.ones(x.shape[:2]))
        return at_corners.argmax(-1).numpy(), y.numpy()

    expected = episodes.tasks.astype(int) % 4
    for rotated, labels in (rotations(episodes.support), rotations(episodes.query)):
        np.testing.assert_array_equal(rotated, np.take_along_axis(expected, labels, axis=1))
    assert any(
        len(set(task)) > 1 for task in expected
    )  # not the same for all classes of an episode
    assert set(expected.ravel()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "tasks", [Sinusoid().tasks("train"), ImageTasks(make_images(), "train", 3, rotated=True)]
)
def test_sampled_tasks_do_not_depend_on_the_sharding(tasks) -> None:
    all_tasks = tasks.sample(make_rng(1, "tasks", 5), 6, 2, 3)
    for share in (slice(0, 2), slice(2, 6)):
        part = tasks.sample(make_rng(1, "tasks", 5), 6, 2, 3, share)
        np.testing.assert_array_equal(part.tasks, all_tasks.tasks[share])
        for actual, expected in ((part.support, all_tasks.support), (part.query, all_tasks.query)):
            assert torch.equal(actual[0], expected[0][share])
            assert torch.equal(actual[1], expected[1][share])


def test_members_overridden_by_their_old_names_are_used() -> None:
    class Doubled(MAML):
        Settings = MAML.Settings
        any_ways = True
        stage = "doubled"

        def draw(self, iteration):
            return double(super().draw(iteration))

    with pytest.warns(DeprecationWarning, match="draw is deprecated: it is called sample"):
        method = with_current_names(Doubled)(SupervisedProblem(validate_config(SINE)))
    assert method.sample_batch(0).support[0].dtype == torch.float64
    assert method.supports_other_ways
    assert list(method.train_metrics(1.0, 2.0)) == ["error/doubled"]


def test_the_accuracy_with_shuffled_labels_is_at_chance() -> None:
    tasks = ImageTasks(make_images(), "test", 3, rotated=False)
    episodes = tasks.sample(np.random.default_rng(0), 400, 1, 4)

    class Pixels:
        def features(self, params, inputs):
            return inputs.flatten(2)

    (x, y), (queries, labels) = episodes.support, episodes.query
    true = accuracies(nearest_neighbour(Pixels(), {}, (x, y), queries), labels).mean()
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in y])
    chance = accuracies(nearest_neighbour(Pixels(), {}, (x, shuffled), queries), labels).mean()
    assert true > 95
    assert chance == pytest.approx(100 / 3, abs=5)


def test_a_sinusoid_has_its_amplitude_and_phase() -> None:
    episodes = (
        Sinusoid().tasks("train", task_conditioned=True).sample(np.random.default_rng(0), 500, 3, 2)
    )
    amplitude, phase = episodes.tasks.T
    assert (amplitude >= 0.1).all()
    assert (amplitude <= 5.0).all()
    assert (phase >= 0.0).all()
    assert (phase <= np.pi).all()
    assert amplitude.mean() == pytest.approx(2.55, abs=0.2)
    for x, y in (episodes.support, episodes.query):
        assert x.shape[-1] == 3
        assert x[..., 0].abs().max() <= 5.0
        task_inputs = torch.from_numpy(episodes.tasks).float()
        torch.testing.assert_close(x[..., 1:], task_inputs[:, None].expand(-1, x.shape[1], 2))
        expected = x[..., 1] * torch.sin(x[..., 0] - x[..., 2])
        torch.testing.assert_close(y[..., 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("ways", "shots", "sentence"),
    [
        (9, 1, "data.ways=9 is more than the 8 classes for test"),
        (3, 8, "class class16 has 8 images, fewer than the 8 shots and 1 queries"),
    ],
)
def test_too_few_classes_or_images_are_reported(ways, shots, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        ImageTasks(make_images(), "test", ways, rotated=False).check(shots, 1)


# -- Algorithm 2


@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize(
    ("inner", "iteration", "weights"),
    [
        ({}, 0, [0.0, 1.0]),
        ({"steps": 3}, 0, [0.0, 0.0, 0.0, 1.0]),
        ({"steps": 2, "multi_step_iterations": 5}, 0, [0.0, 0.5, 0.5]),
        ({"adapt": "head"}, 0, [0.0, 1.0]),
        ({"learned_step_sizes": "meta_sgd"}, 0, [0.0, 1.0]),
        ({"learned_step_sizes": "lslr", "steps": 2}, 0, [0.0, 0.0, 1.0]),
        (
            {
                "learned_step_sizes": "lslr",
                "steps": 2,
                "adapt": "head",
                "multi_step_iterations": 5,
            },
            2,
            [0.0, 0.3, 0.7],
        ),
    ],
)
def test_the_meta_gradient_equals_finite_differences(kind, inner, iteration, weights) -> None:
    method, episodes = maml(kind, **inner), episodes_of(kind)
    meta = meta_of(method)
    gradient, _ = meta_gradient(method, meta, episodes, iteration)
    generator = torch.Generator().manual_seed(1)
    vector = flatten(meta)
    direction = torch.randn(vector.shape, generator=generator, dtype=torch.float64)

    def objective(size: float) -> float:
        """The definition, task by task."""
        shifted = unflatten(vector + size * direction, meta)
        sizes = method.step_sizes(
            shifted, [method.problem.config.inner.step_size] * len(weights[1:])
        )
        total = 0.0
        for task in range(3):
            support, query = (
                (x[task : task + 1], y[task : task + 1])
                for x, y in (episodes.support, episodes.query)
            )
            params = {name: leaf[None] for name, leaf in split(shifted)[0].items()}
            after = method.adapted(params, support, sizes)
            for weight, theta in zip(weights, after, strict=True):
                total += weight * float(query_loss(method, theta, query))
        return total

    # a small difference, because rectifiers have kinks nearby
    expected = (objective(1e-8) - objective(-1e-8)) / 2e-8
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_first_order_gradient_differs() -> None:
    episodes = episodes_of("regression")
    exact, first_order = maml("regression"), maml("regression", first_order=True)
    meta = meta_of(exact)
    exact_gradient, _ = meta_gradient(exact, meta, episodes)
    gradient, _ = meta_gradient(first_order, meta, episodes)
    assert not torch.allclose(exact_gradient, gradient, rtol=1e-2)
    # it is the query loss's gradient at the adapted parameters
    after = adapted(exact, meta, episodes.support, 1)
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in after.items()}
    loss = query_loss(exact, leaves, episodes.query)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    torch.testing.assert_close(gradient, torch.cat([leaf.sum(0).flatten() for leaf in gradients]))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_chunks_and_threads_change_only_the_order_of_a_sum(kind, monkeypatch) -> None:
    method, episodes = maml(kind), episodes_of(kind, num_tasks=7)
    meta = meta_of(method)

    def in_chunks_of(examples: int):
        chunked = replace(method.problem.kind, chunk=examples)
        monkeypatch.setattr(type(method.problem.data), "kind", chunked)
        return meta_gradient(method, meta, episodes)

    expected = in_chunks_of(10**6)
    monkeypatch.setattr("metarl.parallel.processors", lambda: 3)
    for examples in (1, 20, 40):
        for actual, reference in zip(in_chunks_of(examples), expected, strict=True):
            torch.testing.assert_close(actual, reference)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_duplicated_examples_do_not_change_the_adaptation(kind) -> None:
    method, episodes = maml(kind), episodes_of(kind)
    x, y = episodes.support
    twice = (torch.cat([x, x], 1), torch.cat([y, y], 1))
    meta = meta_of(method)
    once, again = (adapted(method, meta, support, 2) for support in ((x, y), twice))
    for name, leaf in once.items():
        torch.testing.assert_close(again[name], leaf)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_meta_batch_of_copies_equals_one_task(kind) -> None:
    method, single = maml(kind), episodes_of(kind, num_tasks=1)
    copies = Episodes(
        single.tasks.repeat(4, 0),
        tuple(leaf.repeat_interleave(4, 0) for leaf in single.support),
        tuple(leaf.repeat_interleave(4, 0) for leaf in single.query),
    )
    meta = meta_of(method)
    gradient, values = meta_gradient(method, meta, single)
    total_gradient, total_values = meta_gradient(method, meta, copies)
    torch.testing.assert_close(total_gradient / 4, gradient)
    torch.testing.assert_close(total_values / 4, values)


def test_adapting_the_head_does_not_change_other_layers() -> None:
    method, episodes = maml("classification", adapt="head"), episodes_of("classification")
    meta = meta_of(method)
    after = adapted(method, meta, episodes.support, 1)
    adapted_names = {name for name in meta if not (after[name] == meta[name]).all()}
    assert adapted_names == set(head(meta))


def test_learned_step_sizes_start_at_that_of_the_config_and_the_last_is_repeated() -> None:
    method = maml("regression", learned_step_sizes="lslr", steps=2)
    meta = meta_of(method)
    sizes = {name: leaf for name, leaf in meta.items() if name.startswith(PREFIX)}
    assert {name.removeprefix(PREFIX) for name in sizes} == set(split(meta)[0])
    assert all(torch.equal(leaf, torch.full((2,), 0.05).double()) for leaf in sizes.values())
    meta[PREFIX + "weight0"] = torch.tensor([0.1, 0.2])
    four = method.step_sizes(meta, [0.05] * 4)
    assert [float(step["weight0"]) for step in four] == pytest.approx([0.1, 0.2, 0.2, 0.2])
    meta_sgd = meta_of(maml("regression", learned_step_sizes="meta_sgd"))
    assert meta_sgd[PREFIX + "weight1"].shape == (7, 7)


def test_the_multi_step_loss_fades_into_that_of_the_last_step() -> None:
    def weights(iteration: int) -> list[float]:
        return step_weights(4, 10, iteration)

    for iteration in range(12):
        assert sum(weights(iteration)) == pytest.approx(1.0)
    assert weights(0) == [0.0, 0.25, 0.25, 0.25, 0.25]
    assert weights(5) == pytest.approx([0.0, 0.125, 0.125, 0.125, 0.625])
    assert weights(10) == weights(99) == [0.0, 0.0, 0.0, 0.0, 1.0]
    inner = validate_config(SINE).inner
    assert step_weights(inner.steps, inner.multi_step_iterations, 0) == [0.0, 1.0]


# -- answers


def test_queries_are_independent_unless_the_evaluation_is_transductive() -> None:
    method, episodes = maml("classification"), episodes_of("classification")
    network = method.problem.network
    params = {name: leaf.expand(3, *leaf.shape) for name, leaf in meta_of(method).items()}
    queries = episodes.query[0]
    altered = queries.clone()
    altered[:, -1] = 1.0 - altered[:, -1]

    def predictions(mode):
        return [predict(network, params, episodes.support, x, mode) for x in (queries, altered)]

    with pytest.warns(DeprecationWarning, match="predict_with is deprecated: use predict"):
        old = prediction.predict_with(False)(network, params, episodes.support, queries)
    before, after = predictions("inductive")
    assert torch.equal(old, before)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    before, after = predictions("transductive")
    assert not torch.allclose(before[:, :-1], after[:, :-1])


def test_an_evaluation_on_more_tasks_keeps_the_scores_of_the_first() -> None:
    def curve(number: int):
        method = load_method(load_config("sinusoid", ["evaluation.steps=1"]))
        return method.curve("test", number, method.initial_state().params, (0.001,))

    short, long = curve(7), curve(60)
    np.testing.assert_array_equal(short.tasks, long.tasks[:7])
    np.testing.assert_array_equal(short.scores, long.scores[:7])


def test_the_nearest_neighbour_is_the_most_similar_of_each_class() -> None:
    class Identity:
        def features(self, params, inputs):
            return inputs

    support = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
    labels = torch.tensor([[0, 1, 0]])
    queries = torch.tensor([[[3.0, 0.1], [-5.0, 0.0], [0.1, 1.0]]])
    similarity = nearest_neighbour(Identity(), {}, (support, labels), queries)
    assert similarity.argmax(-1).tolist() == [[0, 0, 1]]
    assert similarity[0, 1].tolist() == pytest.approx([1.0, 0.0])


def test_a_nan_prediction_is_not_counted_as_correct() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 0, 2] = torch.nan
    assert accuracies(logits, torch.zeros(2, 3, dtype=torch.int64)).isnan().tolist() == [
        False,
        True,
    ]


# -- training


@pytest.mark.slow
def test_training_on_images_learns(image_method) -> None:
    method = image_method(
        network={"filters": 16},
        outer={"iterations": 60, "learning_rate": 1e-2},
        evaluation={"tasks": 100},
    )
    state = method.initial_state()
    before = method.evaluate(state.params).scores[:, 1].mean()
    *_, (state, metrics) = train(method, state)
    after = method.evaluate(state.params).scores[:, 1].mean()
    assert before < 60
    assert after > 80
    assert metrics["accuracy/after_1_steps"] > 80
    assert state.samples == method.max_samples == 60 * 4 * 3 * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretrained", "nearest_neighbour"])
def test_baselines_on_images_learn_all_classes_jointly(image_method, kind) -> None:
    method = image_method(
        method=kind,
        network={"filters": 16},
        outer={"iterations": 40, "learning_rate": 1e-2, "meta_batch": 16},
        evaluation={"tasks": 100},
        baseline={"validation_tasks": 20},
    )
    state = method.initial_state()
    assert state.params["weight4"].shape[1] == 48  # twelve classes in four rotations
    *_, (state, metrics) = train(method, state)
    assert metrics["pretraining/accuracy"] > 60  # chance is 2
    curve = method.evaluate(state.params)
    assert curve.scores.shape == ((100, 3) if kind == "pretrained" else (100, 1))
    assert curve.scores[:, -1].mean() > 80  # chance is 33


@pytest.mark.parametrize("kind", ["pretrained", "random"])
@pytest.mark.parametrize("learned", ["meta_sgd", "lslr"])
def test_a_baseline_learns_no_step_sizes_and_is_fine_tuned(kind, learned) -> None:
    settings = {
        "inner": {"learned_step_sizes": learned},
        "evaluation": {"tasks": 3, "steps": 2},
        "baseline": {"step_sizes": [0.07], "validation_tasks": 2},
    }
    # the baseline of a config for MAML: what it does not use is dropped
    method = load_method(override_config({**SINE, **settings}, [f"method={kind}"]))
    theta = method.initial_state().params
    assert not split(theta)[1]
    curve = method.evaluate(theta)
    assert curve.step_sizes == (0.07, 0.07)
    assert (curve.scores[:, 1:] != curve.scores[:, :-1]).all()


def test_mixed_examples_have_the_labels_of_all_classes() -> None:
    episodes = ImageTasks(make_images(), "train", 3, rotated=True).sample(
        np.random.default_rng(0), 5, 1, 2
    )
    inputs, labels = merge_tasks(episodes).query
    assert inputs.shape == (1, 45, 1, 16, 16)
    assert labels.shape == (1, 45)
    assert set(labels[0, :9].tolist()) == set(episodes.tasks[0].astype(int).tolist())
    first_query = 3  # after the support image of each class
    assert torch.equal(inputs[0, first_query], episodes.query[0][0, 0])
    assert labels[0, first_query] == episodes.tasks[0][0]


def test_the_error_for_a_diverging_training_names_the_settings_to_lower() -> None:
    config = validate_config({**SINE, "inner": {"step_size": 1e30}})
    method = load_method(config)
    with pytest.raises(FloatingPointError, match=r"inner\.step_size.*outer\.learning_rate\)"):
        list(train(method, method.initial_state()))


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--set=inner.learned_step_sizes=lslr"]])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path: Path, options) -> None:
    reference, halves = tmp_path / "whole", tmp_path / "halves"
    assert main(["train", "sinusoid", *TINY, *options, "--out", str(reference)]) == 0
    assert (
        main(
            ["train", "sinusoid", *TINY, *options, "--set=outer.iterations=4", "--out", str(halves)]
        )
        == 0
    )
    assert main(["train", "--resume", str(halves), "--set=outer.iterations=6"]) == 0
    expected, state = Run.open(reference).load(), Run.open(halves).load()
    assert state.iteration == expected.iteration == 6
    assert state.samples == expected.samples == 6 * 4 * 20
    for name, leaf in expected.params.items():
        assert torch.equal(state.params[name], leaf)
    lines = [
        [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]
        for run in (Run.open(reference), Run.open(halves))
    ]
    assert lines[0] == lines[1]


def test_two_evaluations_of_a_run_are_equal(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "sinusoid", *TINY, "--out", str(out)]) == 0
    first = (out / "evaluation.json").read_bytes()
    assert main(["evaluate", str(out)]) == 0
    assert (out / "evaluation.json").read_bytes() == first


@pytest.fixture(scope="module")
def sinusoid_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny run of every method that supports sinusoids, by name."""
    folder = tmp_path_factory.mktemp("waves")
    runs = {kind: str(folder / kind) for kind in ("maml", "pretrained", "oracle", "random")}
    for kind, out in runs.items():
        start = ["train"] if kind == "maml" else ["baseline", "--kind", kind]
        assert main([*start, "sinusoid", *TINY, "--out", out]) == 0
    return runs


@pytest.mark.slow
def test_runs_on_sinusoids_are_compared(sinusoid_runs, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    assert main(["compare", *sinusoid_runs.values(), "--out", str(out), "--many-steps", "3"]) == 0
    table = (out / "comparison.md").read_text()
    assert "| error before adaptation | after 1 step |" in table
    assert "Mean squared error on held-out tasks" in table
    assert "Negative values favour MAML." in table
    with Image.open(out / "fits.png") as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
        assert len(colours) > 1000  # curves and letters with smooth edges, on white
        assert max(colours) == (max(colours)[0], (255, 255, 255))


def test_a_sinusoid_and_its_predictions_are_plotted(sinusoid_runs) -> None:
    assert main(["render", sinusoid_runs["maml"], "--task", "3", "1"]) == 0
    assert (Path(sinusoid_runs["maml"]) / "fit.png").exists()


@pytest.mark.slow
def test_runs_on_sinusoids_are_in_the_report(sinusoid_runs, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", sinusoid_runs["maml"], sinusoid_runs["oracle"], "--out", str(page)]) == 0
    assert "sinusoid, 5-shot" in page.read_text()


IMAGES_READ = "metarl.supervised.data.load_images"  # what reads the images of a folder


@pytest.fixture(scope="module")
def image_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny run of several methods on the images above, by name."""
    folder = tmp_path_factory.mktemp("images")
    tiny = [
        "--set=data.ways=3",
        "--set=network.filters=4",
        "--set=inner.queries=4",
        "--set=outer.meta_batch=2",
        "--set=outer.iterations=2",
        "--set=evaluation.tasks=6",
        "--set=baseline.validation_tasks=2",
    ]
    runs = {kind: str(folder / kind) for kind in ("maml", "pretrained", "nearest_neighbour")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARL_DATA", str(folder))
        patch.setattr(IMAGES_READ, lambda *_: make_images())
        for kind, out in runs.items():
            start = ["train"] if kind == "maml" else ["baseline", "--kind", kind]
            assert main([*start, "omniglot_5way_1shot", *tiny, "--out", out]) == 0
    return runs


@pytest.fixture
def images_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ImageSet], None]:
    """Commands read the images above, or those that are passed to this function."""

    def use_images(images: ImageSet) -> None:
        monkeypatch.setattr(IMAGES_READ, lambda *_: images)

    monkeypatch.setenv("METARL_DATA", str(tmp_path))
    use_images(make_images())
    return use_images


@pytest.mark.slow
@pytest.mark.usefixtures("images_read")
def test_runs_on_images_are_compared(image_runs, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    assert main(["compare", *image_runs.values(), "--out", str(out)]) == 0
    table = (out / "comparison.md").read_text()
    assert "| accuracy before adaptation | after 1 step |" in table
    assert "nearest neighbour" in table
    assert "Accuracy (%) on held-out tasks: mean of 6 tasks" in table


def test_the_evaluation_of_images_is_written_task_by_task(image_runs) -> None:
    rows = (Path(image_runs["maml"]) / "evaluation.csv").read_text().splitlines()
    assert (
        rows[0] == "task,accuracy_after_0_steps,accuracy_after_1_steps,accuracy_after_2_steps,"
        "accuracy_after_3_steps"
    )
    assert rows[1].count("class") == 3


@pytest.mark.usefixtures("images_read")
def test_an_episode_of_images_is_plotted(image_runs, complaint) -> None:
    assert main(["render", image_runs["maml"]]) == 0
    assert (Path(image_runs["maml"]) / "episode.png").exists()
    error = complaint("render", image_runs["maml"], "--task", "1")
    assert "--task and --steps are for policies and functions of one variable; omit them" in error


@pytest.mark.slow
@pytest.mark.usefixtures("images_read")
def test_runs_on_images_are_in_the_report(image_runs, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["report", *image_runs.values(), "--out", str(page)]) == 0
    assert "omniglot, 3-way 1-shot" in page.read_text()


@pytest.mark.usefixtures("images_read")
def test_transductive_evaluations_are_not_compared_with_others(
    image_runs, tmp_path: Path, complaint
) -> None:
    other = str(shutil.copytree(image_runs["nearest_neighbour"], tmp_path / "alone"))
    assert main(["evaluate", other, "--set", "evaluation.transductive=false"]) == 0
    assert "were evaluated with different settings" in complaint(
        "compare", image_runs["maml"], other
    )


def test_a_run_refuses_other_data_than_it_was_trained_on(
    image_runs, images_read, complaint
) -> None:
    other = make_images()
    other.splits["train"][0] = 23
    images_read(other)
    message = complaint("evaluate", image_runs["maml"])
    assert "was trained on other data: its split_sha256" in message
    assert "other data" in complaint("train", "--resume", image_runs["maml"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {**SINE, "method": "nearest_neighbour"},
            "method: nearest_neighbour does not support regression",
        ),
        ({**IMAGES, "method": "oracle"}, "method: oracle does not support classification"),
        (
            {**SINE, "network": {"kind": "conv4"}},
            "network.kind: is for images, not for regression; use an mlp",
        ),
        ({**SINE, "network": {"kind": "cnn"}}, "network.kind: must be 'mlp' or 'conv4', not 'cnn'"),
        ({**SINE, "data": {"name": "sinus"}}, "data.name: must be 'sinusoid' or 'omniglot' or"),
        ({**SINE, "network": {"kind": "mlp", "nrom": True}}, "network.nrom: there is no such"),
        ({**SINE, "inner": {"multi_step_iterations": 5}}, "needs inner.steps above 1"),
        ({**SINE, "network": {"kind": "mlp", "norm": True}}, "network.norm: is for images"),
        ({**SINE, "inner": {"adapt": "body"}}, "inner.adapt: must be 'all' or 'head', not 'body'"),
        ({"data": {"name": "sinusoid"}}, "network: this setting is required"),
        ({**IMAGES, "data": {"name": "omniglot", "ways": 1}}, "data.ways: must be greater than"),
    ],
)
def test_errors_in_a_config_are_reported(values, sentence) -> None:
    with pytest.raises(UserError) as caught:
        validate_config(values)
    assert sentence in str(caught.value)


def test_missing_data_is_reported_before_training(tmp_path, monkeypatch, complaint) -> None:
    monkeypatch.delenv("METARL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    message = complaint("train", "omniglot_5way_1shot", "--out", "run")
    assert "omniglot not found; set its folder with --data FOLDER" in message
    message = complaint("train", "omniglot_5way_1shot", "--data", str(tmp_path), "--out", "run")
    assert "github.com/brendenlake/omniglot" in message
    assert not Path("run").exists()


def test_options_that_sinusoids_do_not_support_are_reported(tmp_path, complaint) -> None:
    out = str(tmp_path / "run")
    assert main(["train", "sinusoid", *TINY, "--out", out]) == 0
    assert "has no policy" in complaint("export", out, "policy.zip")
    assert "has no policy to show" in complaint("render", out, "--live")
    assert "an amplitude and a phase" in complaint("render", out, "--task", "1")
    assert "--steps must be between 0 and 2" in complaint("render", out, "--steps", "7")
    assert "uses different tasks" in complaint("compare", out, "point_navigation")


def test_the_shipped_configs_follow_the_protocol_of_the_paper() -> None:
    config = load_config("miniimagenet_5way_1shot")
    assert isinstance(config, SupervisedConfig)
    assert (config.inner.steps, config.inner.queries, config.outer.meta_batch) == (5, 15, 4)
    assert config.outer.clip == 0.133
    config = load_config("sinusoid")
    assert (config.inner.step_size, config.outer.iterations) == (0.001, 70_000)


def test_several_classifiers_are_aggregated_by_the_plain_mean() -> None:
    scores = [np.array([[100.0], [100.0], [100.0], [60.0]]), np.array([[100.0]] * 4)]
    assert summarise(scores).estimate[0] == 95.0  # the middle half says 100
    assert summarise(scores[:1]).estimate[0] == 90.0


@pytest.fixture
def waves(tmp_path: Path) -> Callable[..., str]:
    """Trains a tiny run on sinusoids and returns its directory."""

    def run(name: str, *settings: str) -> str:
        out = str(tmp_path / name)
        options = [f"--set={setting}" for setting in settings]
        assert main(["train", "sinusoid", *TINY, *options, "--out", out]) == 0
        return out

    return run


@pytest.mark.slow
def test_evaluations_with_other_shots_are_not_compared(waves, complaint) -> None:
    five = waves("five", "inner.shots=5", "evaluation.shots=null")
    ten = waves("ten", "inner.shots=10", "evaluation.shots=null")
    same = waves("same", "inner.shots=5", "evaluation.shots=5", "seed=2")
    assert "evaluation.shots: 5 → 10" in complaint("compare", five, ten)
    out = str(Path(five).parent / "comparison")
    assert main(["compare", five, same, "--out", out]) == 0


@pytest.mark.slow
def test_seeds_with_different_evaluation_settings_are_not_aggregated(waves, capsys) -> None:
    runs = [
        waves("first", "evaluation.tasks=3"),
        waves("second", "seed=2", "evaluation.tasks=4"),
        waves("third", "seed=3", "evaluation.tasks=3", "evaluation.seed=8"),
    ]
    capsys.readouterr()
    assert main(["evaluate", *runs[:2]]) == 0
    assert main(["evaluate", runs[0], runs[2]]) == 0
    assert "all 2 runs" not in capsys.readouterr().out


def test_a_duplicate_run_is_refused(waves, complaint) -> None:
    run = waves("run")
    for command in ("compare", "evaluate"):
        assert "is given twice" in complaint(command, run, f"{run}/../run")


def test_runs_of_the_same_name_are_distinguished(waves, tmp_path: Path) -> None:
    runs = [
        Run.open(Path(waves(f"{folder}/same", f"inner.step_size={size}")))
        for folder, size in (("a", 0.01), ("b", 0.02))
    ]
    labels = [entry.label for entry in compare(runs)]
    assert len(set(labels)) == 2


def test_the_plot_shows_the_first_task_of_the_evaluation_with_its_settings(waves) -> None:
    out = waves("run")
    assert main(["evaluate", out, "--set=evaluation.shots=7", "--set=evaluation.steps=4"]) == 0
    run = Run.open(Path(out))
    evaluated = load_or_evaluate(run)
    curve, method = evaluated.curve, evaluated.method
    prediction = predict_curve(run, steps=[4])
    assert len(prediction.points) == 7
    assert prediction.description == method.problem.describe(curve.tasks[0])


@pytest.mark.usefixtures("images_read")
def test_the_contact_sheet_shows_the_first_episode_of_the_evaluation(tmp_path: Path) -> None:
    tiny = ["data.ways=3", "network.filters=4", "inner.queries=4", "outer.iterations=2"]
    options = [f"--set={setting}" for setting in [*tiny, "evaluation.tasks=6"]]
    out = tmp_path / "run"
    assert main(["train", "omniglot_5way_1shot", *options, "--out", str(out)]) == 0
    curve = load_or_evaluate(Run.open(out)).curve
    sheet = predict_episode(Run.open(out))
    assert 100 * (sheet.predictions == sheet.labels).mean() == pytest.approx(curve.scores[0, -1])


def test_a_number_of_classes_is_refused_for_tasks_without_classes(waves, complaint) -> None:
    message = complaint("evaluate", waves("run"), "--set=evaluation.ways=3")
    assert "evaluation.ways=3: sinusoid has no classes" in message


@pytest.mark.parametrize("method", ["maml", "pretrained"])
def test_an_annealed_run_cannot_be_made_longer(waves, complaint, method) -> None:
    run = waves("run", "outer.anneal=true", f"method={method}")
    message = complaint("train", "--resume", run, "--set", "outer.iterations=8")
    assert "outer.iterations: 6 → 8" in message


@pytest.mark.parametrize("method", ["pretrained", "random", "maml", "nearest_neighbour"])
def test_too_few_validation_classes_are_reported_before_training(method) -> None:
    inner = {"shots": 1, "queries": 2}
    values = {**IMAGES, "method": method, "data": {"name": "omniglot", "ways": 5}, "inner": inner}
    problem = SupervisedProblem(with_images(values))
    if method in ("maml", "nearest_neighbour"):
        problem.check()
    else:
        sentence = r"data\.ways=5 is more than the 4 classes for validation"
        with pytest.raises(UserError, match=sentence):
            problem.check()


def test_the_error_for_a_diverging_evaluation_names_the_largest_number_of_steps(
    tmp_path: Path, capsys
) -> None:
    options = ["--set=inner.step_size=1e3", "--set=outer.learning_rate=1e-9"]
    out = str(tmp_path / "run")
    options += ["--set=evaluation.steps=30", "--set=outer.iterations=1"]
    assert main(["train", "sinusoid", *TINY, *options, "--out", out]) == 1
    message = " ".join(capsys.readouterr().err.split())
    step = int(re.search(r"evaluate with evaluation\.steps=(\d+)", message)[1])
    assert main(["evaluate", out, "--set", f"evaluation.steps={step}"]) == 0


def test_the_state_is_returned_after_every_iteration_and_metrics_at_their_interval() -> None:
    config = validate_config({**SINE, "report_every": 3, "outer": {"iterations": 7}})
    method = load_method(config)
    history = list(train(method, method.initial_state()))
    assert [state.iteration for state, _ in history] == list(range(1, 8))
    assert [state.iteration for state, metrics in history if metrics] == [3, 6, 7]
    assert sum(metrics.get("examples", 0) for _, metrics in history) == history[-1][0].samples


def test_a_resumed_run_writes_its_config_at_once(waves, monkeypatch, capsys) -> None:
    run = waves("run")

    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("metarl.launch.train.iterations", interrupted)
    assert main(["train", "--resume", run, "--set", "outer.iterations=50"]) == 130
    assert "of 50 updates; continue with: metarl train --resume" in " ".join(
        capsys.readouterr().out.split()
    )
    assert Run.open(Path(run)).config.outer.iterations == 50


def test_an_interrupted_evaluation_is_reported_as_missing(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(SupervisedMethod, "evaluate", interrupted)
    assert main(["train", "sinusoid", *TINY, "--out", str(tmp_path / "run")]) == 130
    assert "trained, but not evaluated" in " ".join(capsys.readouterr().out.split())
