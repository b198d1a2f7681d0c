"""The differentiable inner loop, on problems with a known solution."""

import doctest
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations

import metarl.inner_loop
from metarl.config.sections import InnerSection
from metarl.errors import UserError
from metarl.inner_loop import InnerOptimizer, adapt, adapt_step, reverse
from metarl.step_sizes import PREFIX, meta_parameters, split, step_sizes

MATRIX = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)


def quadratic(params, target):
    offset = params["x"] - target
    return 0.5 * offset @ MATRIX @ offset


def start():
    return {"x": torch.tensor([1.0, -2.0], dtype=torch.float64)}


TARGET = torch.tensor([0.3, 0.7], dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_on_a_quadratic_the_derivative_is_a_power_of_identity_minus_hessian(steps: int) -> None:
    def outer(params):
        return adapt(quadratic, params, [TARGET] * steps, 0.1)["x"].sum()

    exact = torch.linalg.matrix_power(torch.eye(2, dtype=torch.float64) - 0.1 * MATRIX, steps)
    torch.testing.assert_close(grad(outer)(start())["x"], exact.sum(0))


def test_first_order_takes_the_same_steps_and_has_the_identity_as_derivative() -> None:
    def outer(params, first_order):
        return adapt(quadratic, params, [TARGET] * 3, 0.1, first_order)["x"].sum()

    assert outer(start(), True) == outer(start(), False)
    torch.testing.assert_close(grad(outer)(start(), True)["x"], torch.ones(2, dtype=torch.float64))


def test_a_step_by_itself_is_of_second_order_too() -> None:
    adapted = grad(lambda params: adapt_step(quadratic, params, TARGET, 0.1)[0]["x"].sum())
    expected = (torch.eye(2, dtype=torch.float64) - 0.1 * MATRIX).sum(0)
    torch.testing.assert_close(adapted(start())["x"], expected)


def test_it_works_under_plain_backward_as_well() -> None:
    params = {"x": start()["x"].requires_grad_()}
    adapt(quadratic, params, [TARGET], 0.1)["x"].sum().backward()
    expected = (torch.eye(2, dtype=torch.float64) - 0.1 * MATRIX).sum(0)
    torch.testing.assert_close(params["x"].grad, expected)


def test_it_does_not_modify_its_arguments() -> None:
    params = start()
    before = params["x"].clone()
    adapted = adapt(quadratic, params, [TARGET], 0.1)
    assert torch.equal(params["x"], before)
    assert not torch.equal(adapted["x"], before)


def test_vmapped_tasks_equal_a_loop() -> None:
    targets = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = vmap(lambda target: adapt(quadratic, start(), [target] * 2, 0.1)["x"])(targets)
    separate = torch.stack([adapt(quadratic, start(), [t] * 2, 0.1)["x"] for t in targets])
    torch.testing.assert_close(together, separate, rtol=0, atol=1e-15)


def two_parameters(params, target):
    return ((params["body"] * params["head"] - target) ** 2).sum()


def test_parameters_that_a_mapping_omits_do_not_change() -> None:
    params = {"body": torch.tensor(2.0), "head": torch.tensor(1.0)}
    adapted = adapt(two_parameters, params, [torch.tensor(5.0)], {"head": 0.1})
    assert adapted["body"] is params["body"]
    assert adapted["head"] == pytest.approx(1.0 + 0.1 * 2 * 3 * 2)


def test_each_step_can_have_different_step_sizes() -> None:
    first = adapt(quadratic, start(), [TARGET], 0.1)
    second = adapt(quadratic, first, [TARGET], {"x": 0.2})
    expected = adapt(quadratic, start(), [TARGET] * 2, [0.1, {"x": 0.2}])
    torch.testing.assert_close(second["x"], expected["x"])


def test_step_sizes_can_be_learned() -> None:
    def outer(step_size):
        return quadratic(adapt(quadratic, start(), [TARGET], {"x": step_size}), TARGET)

    step_size = torch.full((2,), 0.1, dtype=torch.float64)
    gradient = grad(outer)(step_size)
    for i in range(2):
        nudge = torch.zeros(2, dtype=torch.float64)
        nudge[i] = 1e-6
        slope = (outer(step_size + nudge) - outer(step_size - nudge)) / 2e-6
        assert gradient[i] == pytest.approx(float(slope), rel=1e-6)


def test_no_steps_change_nothing() -> None:
    assert torch.equal(adapt(quadratic, start(), [], 0.1)["x"], start()["x"])


def test_a_wrong_number_of_step_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="3 batches but 2 step sizes"):
        adapt(quadratic, start(), [TARGET] * 3, [0.1, 0.1])


def test_a_step_size_for_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(KeyError, match="unknown parameters: y"):
        adapt(quadratic, start(), [TARGET], {"y": 0.1})


def test_the_example_in_the_documentation_runs() -> None:
    assert doctest.testmod(metarl.inner_loop).failed == 0


def test_plain_reverse_mode_gives_the_same_steps_and_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(3, generator=generator), "unused": torch.ones(2)}
    target = torch.randn(3, generator=generator)

    def loss(params, batch):
        return ((params["w"] - batch) ** 4).sum()

    results = []
    for gradient in (torch.func.grad, reverse):
        params = {name: leaf.clone().requires_grad_() for name, leaf in start.items()}
        adapted = adapt(loss, params, [target] * 2, 0.01, gradient=gradient)
        results.append((adapted["w"], torch.autograd.grad(loss(adapted, target), params["w"])[0]))
        assert torch.equal(adapted["unused"], start["unused"])
    for result, reference in zip(*results, strict=True):
        torch.testing.assert_close(result, reference)


def test_plain_reverse_mode_keeps_no_graph_without_gradients() -> None:
    with torch.no_grad():
        adapted = adapt(
            lambda params, batch: (params["w"] ** 2).sum(),
            {"w": torch.ones(2)},
            [None],
            0.25,
            gradient=reverse,
        )
    assert adapted["w"].tolist() == [0.5, 0.5]
    assert not adapted["w"].requires_grad


def test_learned_step_sizes_are_those_of_their_step_and_the_last_is_repeated() -> None:
    theta = {"weight0": torch.zeros(2, 3), "bias0": torch.zeros(3)}
    settings = InnerSection(step_size=0.5, steps=2, learned_step_sizes="lslr")
    meta = meta_parameters(settings, theta, ["weight0", "bias0"])
    meta[f"{PREFIX}weight0"][:] = torch.tensor([0.1, 0.2])
    sizes = step_sizes(settings, meta, ["weight0", "bias0"], (1.0,) * 4)
    assert [float(step["weight0"]) for step in sizes] == pytest.approx([0.1, 0.2, 0.2, 0.2])
    assert [float(step["bias0"]) for step in sizes] == [0.5] * 4
    assert split(meta)[0].keys() == theta.keys()


@pytest.mark.parametrize(
    ("dtype", "other"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)]
)
def test_step_sizes_of_another_precision_keep_that_of_the_parameters(dtype, other) -> None:
    params = {"w": torch.ones(3, dtype=dtype)}
    rates = {"w": torch.full((3,), 0.1, dtype=other)}
    adapted = adapt(
        lambda p, b: (p["w"] * b).square().sum(), params, [torch.ones(3, dtype=dtype)] * 2, rates
    )
    assert adapted["w"].dtype == dtype


OPTIMIZERS = {
    "sgd": lambda leaves: torch.optim.SGD(leaves, lr=0.1),
    "momentum": lambda leaves: torch.optim.SGD(leaves, lr=0.1, momentum=0.9),
    "adam": lambda leaves: torch.optim.Adam(leaves, lr=0.1),
}


@pytest.mark.parametrize("max_norm", [None, 0.6])
@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_an_inner_optimiser_takes_the_steps_of_torchs(algorithm: str, max_norm) -> None:
    leaves = {name: leaf.requires_grad_() for name, leaf in two_leaves().items()}
    optimizer = OPTIMIZERS[algorithm](leaves.values())
    targets = [TARGET * scale for scale in (1.0, 1.5, 0.5, 2.0)]
    for target in targets:
        optimizer.zero_grad()
        leaf_loss(leaves, target).backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), max_norm or 1e9)
        optimizer.step()
    inner = InnerOptimizer(algorithm, max_norm)
    adapted = adapt(leaf_loss, two_leaves(), targets, 0.1, optimizer=inner)
    for name, leaf in leaves.items():  # torch adds 1e-6 to the norm
        torch.testing.assert_close(adapted[name], leaf.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", [torch.func.grad, reverse])
@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_an_inner_optimiser_is_differentiated_through_its_state(algorithm, transform) -> None:
    inner = InnerOptimizer(algorithm, clip=0.6)

    def adapted_sum(scale: torch.Tensor) -> torch.Tensor:
        params = {name: scale * leaf for name, leaf in two_leaves().items()}
        adapted = adapt(
            leaf_loss, params, [TARGET] * 3, 0.1 * scale, gradient=transform, optimizer=inner
        )
        return sum(leaf.square().sum() for leaf in adapted.values())

    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(adapted_sum, scale)


def test_an_unknown_inner_optimiser_and_complex_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="must be sgd, momentum or adam, not 'rmsprop'"):
        InnerOptimizer("rmsprop")
    for clip in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="clip must be positive"):
            InnerOptimizer(clip=clip)
    with pytest.raises(TypeError, match="complex parameters cannot be adapted"):
        adapt(lambda p, _: p["w"].abs().sum(), {"w": torch.ones(2, dtype=torch.cfloat)}, [0], 0.1)


def test_clipping_of_stacked_tasks_is_that_of_each_task_by_itself() -> None:
    targets = torch.stack([TARGET, 3.0 * TARGET, 0.0 * TARGET])
    stacked = {name: leaf.repeat(3, *[1] * leaf.dim()) for name, leaf in two_leaves().items()}
    inner = InnerOptimizer("momentum", clip=0.6)

    def total(params, targets):
        return vmap(leaf_loss)(params, targets).sum()

    together = adapt(
        total, stacked, [targets] * 2, 0.1, optimizer=InnerOptimizer("momentum", 0.6, stacked=True)
    )
    for task, target in enumerate(targets):
        alone = adapt(leaf_loss, two_leaves(), [target] * 2, 0.1, optimizer=inner)
        for name, leaf in alone.items():
            torch.testing.assert_close(together[name][task], leaf)


@pytest.mark.parametrize("inner", [InnerOptimizer("adam"), InnerOptimizer(clip=1.0)])
def test_a_gradient_of_zero_gives_no_step_and_a_finite_derivative(inner: InnerOptimizer) -> None:
    def flat(params, target):
        return (params["x"] * 0.0).square().sum() * target.sum()

    def outer(params):
        return adapt(flat, params, [TARGET] * 2, 0.1, optimizer=inner)["x"].sum()

    assert torch.equal(grad(outer)(start())["x"], torch.ones(2, dtype=torch.float64))


def two_leaves():
    return {
        "x": torch.tensor([1.0, -2.0], dtype=torch.float64),
        "y": torch.tensor([[0.5]], dtype=torch.float64),
    }


def leaf_loss(params, target):
    return quadratic(params, target) + (params["y"] * target.sum() - 1.0).square().sum()


def attention(need_weights):
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    layer.forward = partial(nn.MultiheadAttention.forward, layer, need_weights=need_weights)
    return layer


NETWORKS = {
    "layer": lambda: nn.LayerNorm(6),
    "layer without shift": lambda: nn.LayerNorm(6, bias=False),
    "batch": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "constant statistics": lambda: nn.BatchNorm1d(6).eval(),
    "root mean square": lambda: nn.RMSNorm(6),
    "group": lambda: nn.GroupNorm(2, 6),
    "instance": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()
    ),
    "transformer": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)),
        nn.TransformerEncoderLayer(2, 1, 3, dropout=0.0, batch_first=True),
        nn.Flatten(),
    ),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()
    ),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_meta_gradient_of_a_plain_module_is_exact_under_vmap(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), NETWORKS[name](), nn.Tanh(), nn.Linear(6, 1)).double()
    leaves = [leaf for leaf in net.parameters() if leaf.requires_grad]
    with torch.no_grad():  # scales of one and shifts of zero would hide a wrong derivative
        for leaf in leaves:
            leaf += 0.3 * torch.randn_like(leaf)
    x = torch.randn(3, 5, 2, dtype=torch.float64)

    def loss(params, batch):
        return (functional_call(net, params, (batch,)) - 1.0).square().mean()

    def after(support):
        return loss(adapt(loss, net, [support] * 2, 0.2), support.flip(0))

    value = vmap(after)(x).sum()
    gradient = torch.autograd.grad(value, leaves)
    direction = [torch.randn_like(leaf) for leaf in leaves]

    def moved(size):
        with torch.no_grad():
            for leaf, step in zip(leaves, direction, strict=True):
                leaf += size * step
        return float(sum(after(task) for task in x))

    slope = (moved(1e-5) - moved(-2e-5)) / 2e-5
    expected = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert slope == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_has_second_derivatives(need_weights: bool) -> None:
    torch.manual_seed(0)
    net, x = attention(need_weights).double(), torch.randn(2, 3, 4, dtype=torch.float64)

    def loss(params, batch):
        return functional_call(net, params, (batch, batch, batch))[0].square().sum()

    gradient = torch.func.grad(lambda p: loss(adapt(loss, p, [x], 0.1), x))
    assert all(leaf.isfinite().all() for leaf in gradient(dict(net.named_parameters())).values())


@pytest.mark.parametrize("layer", [nn.GRUCell, nn.LSTM])
def test_recurrent_layers_under_vmap_are_refused_in_a_sentence(layer) -> None:
    net = layer(2, 3)

    def loss(params, batch):
        return functional_call(net, params, (batch,))[0].square().sum()

    adapt(loss, net, [torch.ones(4, 2)], 0.1)
    with pytest.raises(UserError, match="vmap does not support recurrent layers"):
        vmap(lambda x: adapt(loss, net, [x], 0.1))(torch.ones(3, 4, 2))


def test_a_module_whose_layer_has_two_names_is_refused_and_shared_parameters_are_not() -> None:
    layer, tied = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = layer.weight
    with pytest.raises(UserError, match="layer '0' is also named '2'"):
        adapt(lambda p, b: p["0.weight"].sum(), nn.Sequential(layer, nn.Tanh(), layer), [None], 0.1)
    net = nn.Sequential(layer, nn.Tanh(), tied)

    def loss(params, x):
        return functional_call(net, params, (x,)).square().sum()

    steps = [adapt(loss, net, [torch.ones(3, 2)], 0.1) for _ in range(2)]
    assert torch.equal(steps[0]["0.weight"], steps[1]["0.weight"])
    assert not torch.equal(steps[0]["0.weight"], layer.weight)


@pytest.mark.parametrize("gradient", [torch.func.grad, reverse])
@pytest.mark.parametrize("rate", [0.1, [0.1], {"weight": 0.1, "bias": 0.1}])
def test_parameters_that_require_no_gradients_stay_constant(gradient, rate) -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    x = torch.ones(3, 2)

    def loss(params, batch):
        return functional_call(net, params, (batch,)).square().sum()

    def adapted(params):
        return adapt(loss, params, [x], rate, gradient=gradient)

    params = dict(net.named_parameters())
    assert adapted(params)["bias"] is net.bias
    assert not torch.equal(adapted(params)["weight"], net.weight)
    wrapped = torch.func.vjp(adapted, params)[0]  # torch.func replaces a Parameter by a Tensor
    assert torch.equal(wrapped["bias"], net.bias)
    adapted({**params, "count": torch.tensor(3)})["weight"].sum().backward()
    with pytest.raises(UserError, match="nothing to adapt"):
        adapted(net.requires_grad_(False))


def test_step_sizes_of_steps_are_not_taken_for_those_of_elements() -> None:
    def loss(params, target):
        return ((params["w"] - target) ** 2).sum()

    batches = [torch.ones(()), torch.ones(())]
    for size in ((), (2,)):
        with pytest.raises(ValueError, match=r"tensor of 2 step sizes .* pass list\(step_sizes\)"):
            adapt(loss, {"w": torch.zeros(size)}, batches, torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"a step size of w has shape \(3,\), which does not fit"):
        adapt(loss, {"w": torch.zeros(())}, batches, torch.ones(3))
    sizes = torch.tensor([0.1, 0.2]).requires_grad_()
    adapted = adapt(loss, {"w": torch.zeros(())}, batches, list(sizes))["w"]
    torch.testing.assert_close(adapted, torch.tensor(1.0 - 0.8 * 0.6))
