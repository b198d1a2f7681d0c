"""Custom networks: supported modules have exact derivatives; others are an error."""

import importlib.util
import math
import shutil
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations

import metarl
from metarl.cli import main
from metarl.errors import UserError
from metarl.experiment import load_config, validate_config
from metarl.inner_loop import adapt
from metarl.launch.initial_weights import initial_state, prepare
from metarl.method import at_iteration, load_method
from metarl.networks.module import FunctionalModule
from metarl.networks.normalisation import BatchNorm
from metarl.params import flatten
from metarl.runs.run import Run

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("my_networks", HERE / "my_networks.py")
my_networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(my_networks)
POINT = {
    "family": {"name": "point-navigation", "settings": {"horizon": 5}},
    "policy": {"network": "my_networks:Net", "settings": {"width": 3}},
    "inner": {"episodes_per_task": 10},
    "outer": {"algorithm": "trpo", "iterations": 2, "meta_batch": 3},
    "evaluation": {"tasks": 3, "episodes_per_task": 2},
}
SINE = {
    "data": {"name": "sinusoid"},
    "network": {"name": "my_networks:Net", "settings": {"width": 3}},
    "outer": {"iterations": 2, "meta_batch": 3},
    "evaluation": {"tasks": 3},
}


@pytest.fixture
def in_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's module of networks."""
    shutil.copy(HERE / "my_networks.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return tmp_path


def wrapped(module: nn.Module, shape=(2,), outputs=3) -> FunctionalModule:
    return FunctionalModule("it", lambda: module, shape, outputs)


NETS = {
    "vectors": (lambda: my_networks.Net(2, 3), (2,)),
    "pictures": (lambda: my_networks.Pictures((1, 8, 8), 3), (1, 8, 8)),
    "normalised by the batch": (lambda: my_networks.around(BatchNorm(4))(2, 3), (2,)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_meta_gradient_equals_finite_differences_stacked_or_not(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETS[name]
    network = wrapped(make().double(), shape)
    theta = network.init(torch.Generator().manual_seed(0))
    x, y = torch.rand(3, 6, *shape).double(), torch.randn(3, 6, 3).double()

    def loss(params, batch):
        return (network(params, batch[0]) - batch[1]).square().mean((-1, -2)).sum()

    def stacked(theta):
        many = {name: leaf.expand(3, *leaf.shape) for name, leaf in theta.items()}
        return loss(adapt(loss, many, [(x, y)], 0.3), (x, y))

    def side_by_side(theta):
        one_task = lambda x, y: loss(adapt(loss, theta, [(x, y)], 0.3), (x, y))  # noqa: E731
        return vmap(one_task)(x, y).sum()

    def one_by_one(theta):
        return sum(loss(adapt(loss, theta, [pair], 0.3), pair) for pair in zip(x, y, strict=True))

    direction = {name: torch.randn_like(leaf) for name, leaf in theta.items()}

    def along(size):
        return float(one_by_one({n: leaf + size * direction[n] for n, leaf in theta.items()}))

    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    for objective in (stacked, side_by_side, one_by_one):
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
        slopes = torch.autograd.grad(objective(leaves), list(leaves.values()))
        slope = sum((g * d).sum() for g, d in zip(slopes, direction.values(), strict=True))
        assert float(slope) == pytest.approx(expected, rel=1e-5)


class Tuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x), None


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1.0
        return self.layer(x) * self.calls


class Noisy(Tuple):
    def forward(self, x):
        return self.layer(x) + torch.randn(3)


class Rewritten(Tuple):
    """Has a forward of its own, and something that is no submodule."""

    def __init__(self, function, attribute=None) -> None:
        super().__init__()
        self.function, self.attribute = function, attribute
        self.unregistered = [nn.Linear(2, 3)]

    def forward(self, x):
        return self.function(self, x)


class Clashing(Tuple):
    def __init__(self) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(3))


class WithContext(Tuple):
    def __init__(self) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(3))


around = my_networks.around
UNFIT = {
    "dropout": (around(nn.Dropout(0.5)), r"'between' \(Dropout\) is random, .* set p=0"),
    "batch norm": (around(nn.BatchNorm1d(4)), r"\(BatchNorm1d\) keeps .*track_running_stats=False"),
    "lazy batch norm": (around(nn.LazyBatchNorm1d()), r"\(BatchNorm1d\) keeps running statistics"),
    "spectral norm": (
        around(parametrizations.spectral_norm(nn.Linear(4, 4))),
        r"\(spectral_norm\) changes with every call; call .eval\(\)",
    ),
    "double": (lambda i, o: Rewritten(lambda net, x: net.layer(x.double())), "raised RuntimeError"),
    "half": (lambda i, o: Rewritten(lambda net, x: net.layer(x).half()), "not torch.float16"),
    "in place": (lambda i, o: Rewritten(lambda net, x: net.layer(x.clamp_(0, 0.5))), "in place"),
    "a list": (
        lambda i, o: Rewritten(lambda net, x: net.layer(x) * net.unregistered[0](x)),
        "uses trainable tensors .* torch.nn.ModuleList",
    ),
    "detached": (lambda i, o: Rewritten(lambda net, x: net.layer(x).detach()), "do not depend on"),
    "no gradient": (
        lambda i, o: Rewritten(
            lambda net, x: net.layer(x) + net.attribute.detach(), nn.Parameter(torch.ones(3))
        ),
        "'attribute' has an effect, but gets no gradient",
    ),
    "lock": (lambda i, o: Rewritten(lambda net, x: net.layer(x), threading.Lock()), "be copied"),
    "lstm": (around(nn.LSTM(4, 4)), r"\(LSTM\) does not support torch's vmap; .* method rl2"),
    "gru cell": (around(nn.GRUCell(4, 4)), r"\(GRUCell\) does not support torch's vmap"),
    "a tuple": (lambda i, o: Tuple(), r"outputs of shape \(3, 3\), not tuple"),
    "other outputs": (lambda i, o: nn.Linear(2, 4), r"not \(3, 4\)"),
    "other inputs": (lambda i, o: nn.Linear(5, 3), "raised RuntimeError on inputs of shape"),
    "noise": (lambda i, o: Noisy(), "is random or has state"),
    "memory": (lambda i, o: Counts(), "is random or has state"),
    "nothing": (lambda i, o: nn.Identity(), "no parameters"),
    "a name": (lambda i, o: Clashing(), "'log_std', which is a reserved name"),
    "CAVIA's name": (lambda i, o: WithContext(), "'context', which is a reserved name"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unsupported_modules_are_refused_with_the_fix_before_training(name: str) -> None:
    make, sentence = UNFIT[name]
    with pytest.raises(UserError, match=sentence):
        wrapped(make(2, 3)).init(torch.Generator())


NORMALISATIONS = {
    "batch": nn.BatchNorm1d(4, track_running_stats=False),
    "layer": nn.LayerNorm(4),
    "lazy": nn.Sequential(nn.LazyLinear(4), nn.LayerNorm(4)),
    "evaluated spectral": parametrizations.spectral_norm(nn.Linear(4, 4)).eval(),
    "transformer": nn.Sequential(
        nn.Unflatten(1, (2, 2)),
        nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True),
        nn.Flatten(),
    ),
    "no dropout": nn.Dropout(0.0),
}


@pytest.mark.parametrize("layer", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_normalisation_by_a_function_of_the_batch_is_supported(layer: nn.Module) -> None:
    wrapped(around(layer)(2, 3)).init(torch.Generator())


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(4, track_running_stats=False), nn.LayerNorm(4)], ids=["batch", "layer"]
)
def test_wrong_derivatives_of_torch_are_detected(monkeypatch, layer: nn.Module) -> None:
    monkeypatch.setattr("metarl.networks.module.ExactDerivatives", nullcontext)
    with pytest.raises(UserError, match="a wrong meta-gradient"):
        wrapped(around(layer)(2, 3)).init(torch.Generator())


class Layers(nn.Module):
    """Two hidden layers and a head, with further names or uses of them."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        if variant == "names":
            self.layers = nn.ModuleList([self.second, nn.ModuleDict({"head": self.last})])
        if variant in ("tied", "tied and named"):
            self.third.weight = self.second.weight
        if variant == "tied and named":
            self.tied = self.third
        if variant == "weight norm":
            parametrizations.weight_norm(self.last)
        self.variant = variant

    def forward(self, x):
        hidden = torch.tanh(self.third(torch.tanh(self.second(torch.tanh(self.first(x))))))
        if self.variant == "keyword":
            return self.last(input=hidden)
        if self.variant == "float":
            return self.last(hidden.float())
        if self.variant == "zero state":
            return self.last(hidden + self.second(torch.zeros(len(x), 4)))
        if self.variant == "function":
            return nn.functional.linear(hidden, self.last.weight, self.last.bias)
        return self.last(hidden)


def meta_gradient_of(network: FunctionalModule, theta) -> dict[str, torch.Tensor]:
    x = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(1))

    def loss(params, inputs):
        return (network(params, inputs) - 1.0).square().mean((-1, -2)).sum()

    leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
    stacked = {name: leaf.expand(3, *leaf.shape) for name, leaf in leaves.items()}
    value = loss(adapt(loss, stacked, [x, x], 0.3), x)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


@pytest.mark.parametrize("variant", ["names", "keyword", "float", "function"])
def test_names_and_calls_of_layers_do_not_change_the_meta_gradient(variant: str) -> None:
    expected_network = wrapped(Layers("reference"))
    theta = expected_network.init(torch.Generator())
    expected = meta_gradient_of(expected_network, theta)
    network = wrapped(Layers(variant))
    assert network.init(torch.Generator()).keys() == theta.keys()
    for _ in range(2):  # torch.func.functional_call corrupts a layer with two names once
        gradient = meta_gradient_of(network, theta)
        assert all(torch.equal(gradient[name], expected[name]) for name in theta)
        assert all(float(leaf.norm()) > 0.0 for leaf in gradient.values())


@pytest.mark.parametrize("variant", ["tied", "tied and named"])
def test_the_gradient_of_a_tied_parameter_is_the_sum_over_its_places(variant: str) -> None:
    untied, tied = wrapped(Layers("reference")), wrapped(Layers(variant))
    untied.init(torch.Generator())
    theta = tied.init(torch.Generator())
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    full = torch.func.grad(lambda p: untied(p, x).square().sum())(
        {**theta, "third.weight": theta["second.weight"]}
    )
    assert "third.weight" not in theta
    for _ in range(2):
        grads = torch.func.grad(lambda p: tied(p, x).square().sum())(theta)
        torch.testing.assert_close(
            grads["second.weight"], full["second.weight"] + full["third.weight"]
        )


@pytest.mark.parametrize("variant", ["weight norm", "zero state"])
def test_parametrised_heads_and_zero_states_are_supported(variant: str) -> None:
    network = wrapped(Layers(variant))
    theta = network.init(torch.Generator())
    assert {name.partition(".")[0] for name in network.head} == {"last"}
    assert len(network.head) == (3 if variant == "weight norm" else 2)
    assert all(float(leaf.norm()) > 0.0 for leaf in meta_gradient_of(network, theta).values())
    assert network.features(theta, torch.rand(5, 2)).shape == (5, 4)


def test_the_last_layer_is_the_one_that_is_called_last() -> None:
    network, x = wrapped(my_networks.OutputFirst(2, 3)), torch.rand(5, 2)
    theta = network.init(torch.Generator())
    assert network.head == ["last.weight", "last.bias"]
    expected = torch.tanh(theta["scale"] * (x @ theta["first.weight"].T + theta["first.bias"]))
    torch.testing.assert_close(network.features(theta, x), expected)
    assert network(network.new_head(theta, 7), x).shape == (5, 7)


def test_features_are_the_inputs_of_the_last_layer_however_it_is_called() -> None:
    x, theta = torch.rand(5, 2), wrapped(Layers("reference")).init(torch.Generator())
    by_position, by_keyword = wrapped(Layers("reference")), wrapped(Layers("keyword"))
    assert torch.equal(by_position.features(theta, x), by_keyword.features(theta, x))
    with pytest.raises(UserError, match="does not call its last layer 'last'"):
        wrapped(Layers("function")).features(theta, x)


def test_a_last_layer_that_cannot_be_replaced_is_refused() -> None:
    network = wrapped(Layers("keyword"))
    theta = network.init(torch.Generator())
    assert network(network.new_head(theta, 7), torch.rand(2, 2)).shape == (2, 7)
    shared = Layers("reference")
    shared.last = nn.Linear(4, 4)
    shared.last.weight = shared.second.weight
    for module, outputs in ((Layers("weight norm"), 3), (shared, 4)):
        network = wrapped(module, outputs=outputs)
        with pytest.raises(UserError, match=r"'last' .* cannot be replaced"):
            network.new_head(network.init(torch.Generator()), 7)


def test_an_error_in_a_forward_after_the_check_names_the_network() -> None:
    def forward(net, x):
        return net.layer(x) if len(x) < 4 else net.layer(x)[:, 7]

    network = wrapped(Rewritten(forward))
    theta = network.init(torch.Generator())
    with pytest.raises(UserError, match=r"network 'it' raised IndexError on .* \(5, 2\)"):
        network(theta, torch.rand(5, 2))


def test_networks_of_another_precision_are_refused(in_user_folder: Path) -> None:
    Path("wide.py").write_text(
        "from my_networks import Net\nclass Wide(Net):\n    def __init__(self, inputs, outputs):\n"
        "        super().__init__(inputs, outputs)\n        self.double()\n"
    )
    config = validate_config({**SINE, "network": {"kind": "wide:Wide"}})
    with pytest.raises(UserError, match=r"of torch.float64; training is in torch.float32"):
        load_method(config).initial_state()


def test_equal_seeds_give_equal_networks_and_buffers(in_user_folder: Path) -> None:
    config = validate_config(SINE)
    theta, shifts = [], []
    for _ in range(2):
        method = load_method(config)
        theta.append(method.initial_state().params)
        shifts.append(method.problem.network._function.module.shift)
    assert torch.equal(shifts[0], shifts[1])
    assert all(torch.equal(theta[0][name], theta[1][name]) for name in theta[0])
    assert theta[0]["first.weight"].shape == (3, 1)
    assert method.problem.network.head(theta[0]) == ["last.weight", "last.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"adapt": "head"}, {"learned_step_sizes": "meta_sgd"}])
@pytest.mark.parametrize("values", [POINT, SINE], ids=["policy", "regression"])
def test_a_custom_network_is_trained_evaluated_and_loaded(
    in_user_folder: Path, values, settings
) -> None:
    inner = {**values.get("inner", {}), **settings}
    run = metarl.train({**values, "inner": inner}, "run")
    load = metarl.load if "family" in values else metarl.load_network
    before = load_method(run.config).initial_state().params
    params = load("run", trust_code=True).params
    assert not torch.equal(params["first.weight"], before["first.weight"])
    with pytest.raises(UserError, match="names code that is not of this package"):
        Run.open(Path("run"))


@pytest.mark.slow
def test_promp_and_random_support_custom_networks_and_pretraining_by_ppo_does_not(
    in_user_folder: Path, complaint
) -> None:
    adam = {"algorithm": "adam", "iterations": 1, "meta_batch": 2}
    metarl.train({**POINT, "method": "promp", "outer": adam}, "promp")
    metarl.train({**POINT, "method": "random"}, "random")
    with pytest.raises(UserError, match=r"my_networks:Net is unsupported"):
        metarl.train({**POINT, "method": "pretrained"}, "pretrained")
    with pytest.raises(UserError, match="has a recurrent network of its own"):
        metarl.train({**POINT, "method": "rl2", "outer": adam}, "rl2")
    assert not Path("pretrained").exists()
    assert "is unsupported" in complaint("export", "promp", "model.zip", "--trust-code")


@pytest.mark.slow
def test_supervised_baselines_support_custom_networks(in_user_folder: Path) -> None:
    for kind in ("pretrained", "random", "oracle"):
        run = metarl.train({**SINE, "method": kind, "baseline": {"step_sizes": [0.01]}}, kind)
        assert metarl.evaluate(run).scores.shape[0] == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({**POINT, "policy": {"network": "my_networks:Nett"}}, "has no class 'Nett'"),
        ({**POINT, "policy": {"network": "fractions:Fraction"}}, "must be a torch.nn.Module"),
        (
            {**POINT, "policy": {"settings": {"width": 1}}},
            "policy.settings: needs a custom network",
        ),
        (
            {**POINT, "policy": {"network": "my_networks:Net", "hidden_sizes": [3]}},
            "policy.hidden_sizes: belongs to the multilayer perceptron",
        ),
        ({**SINE, "network": {"name": "fractions:Fraction"}}, "must be a torch.nn.Module"),
        ({**SINE, "network": {"name": "my_networks:Net", "width": 3}}, "width: there is no such"),
    ],
)
def test_errors_in_a_config_are_reported(in_user_folder: Path, values, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        validate_config(values)


def test_an_unknown_setting_of_the_constructor_is_named(in_user_folder: Path, complaint) -> None:
    Path("my.yaml").write_text(
        "data: {name: sinusoid}\nnetwork: {name: 'my_networks:Net', settings: {widht: 3}}\n"
    )
    assert "no setting 'widht' (did you mean 'width'?)" in complaint("train", "my.yaml")
    assert (
        main(
            [
                "train",
                "my.yaml",
                "--set=network.settings={width: 3}",
                "--set=outer.iterations=1",
                "--set=evaluation.tasks=2",
            ]
        )
        == 0
    )


def test_the_inner_loop_accepts_a_module_and_refuses_other_types() -> None:
    net = nn.Linear(1, 1)

    def loss(params, batch):
        return functional_call(net, params, batch).square().mean()

    x = torch.ones(3, 1)
    adapted = adapt(loss, net, [x], 0.1)
    expected = adapt(loss, dict(net.named_parameters()), [x], 0.1)
    assert torch.equal(adapted["weight"], expected["weight"])
    with pytest.raises(
        TypeError, match=r"a dictionary of tensors.* or a torch.nn.Module, not list"
    ):
        adapt(loss, list(net.parameters()), [x], 0.1)


class Shifted(nn.Module):
    """A layer after a shift that differs by seed, and is not trained."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.rand(inputs))
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x + self.shift)


@pytest.mark.parametrize(
    ("config", "tiny"),
    [
        ("sinusoid", ["network.kind=my_networks:Shifted"]),
        ("point_navigation", ["policy.network=my_networks:Shifted", "family.settings.horizon=5"]),
    ],
)
def test_weights_are_not_combined_with_the_buffers_of_another_seed(
    config: str, tiny: list[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_networks", sys.modules[__name__])
    base = load_config(config, tiny)
    run = Run.create(tmp_path / "run", base)
    run.save(load_method(base).initial_state())
    settings = [*tiny, f"init_from={tmp_path / 'run'}"]
    same = prepare(load_config(config, settings))
    initial_state(load_method(same))
    other = prepare(load_config(config, [*settings, "seed=2"]))
    with pytest.raises(UserError, match=r"depend on the seed.*set seed=1"):
        initial_state(load_method(other))


def test_configs_with_one_network_section_have_buffers_of_their_own() -> None:
    config = load_config("sinusoid", [f"network.kind={__name__}:Shifted"])
    method = load_method(config)
    params, inputs = method.initial_state().params, torch.rand(3, 1)
    outputs = method.problem.network(params, inputs)
    load_method(config.model_copy(update={"seed": 2})).initial_state()
    assert torch.equal(method.problem.network(params, inputs), outputs)


def test_a_loaded_custom_network_is_evaluated_with_other_settings(in_user_folder: Path) -> None:
    run = metarl.train(SINE, "run")
    network = metarl.load_network(run, trust_code=True)
    assert network.evaluate(shots=3, tasks=2).scores.shape[0] == 2
    own = network.evaluate(tasks=3)
    assert (own.scores == metarl.evaluate(run, trust_code=True).scores).all()


class Flat(nn.Module):
    """A layer with the name of a part of memory-augmented networks."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(inputs), outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(x.flatten(1))


def test_parameters_of_a_method_do_not_replace_those_of_the_network() -> None:
    images = [(np.full((4, 4), number, np.uint8), number) for number in range(10)] * 4
    data = metarl.Dataset.of(images, ways=2, size=4, channels=1)
    config = metarl.SupervisedConfig(
        data=data, network={"kind": f"{__name__}:Flat"}, method={"name": "mann", "size": 4}
    )
    with pytest.raises(UserError, match=r"'output\.weight', but the method has"):
        load_method(config).initial_state()


def test_a_learned_optimiser_of_a_network_with_buffers_repeats_in_threads(monkeypatch) -> None:
    settings = ["method=learned_optimizer", f"network.kind={__name__}:Shifted", "inner.steps=2"]
    config = load_config("sinusoid", [*settings, "outer.meta_batch=16"])
    monkeypatch.setattr("metarl.supervised.method.SupervisedMethod.chunk_size", lambda *_: 2)

    def train(threads: int) -> torch.Tensor:
        monkeypatch.setattr("metarl.parallel.processors", lambda: threads)
        method = load_method(config)
        state = method.initial_state()
        for _ in range(3):
            state, _ = method.step(state)
        return flatten(state.params)

    expected = train(1)
    for _ in range(2):
        assert torch.equal(train(4), expected)


def test_buffers_are_those_of_the_run_wherever_a_network_is_constructed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "my_networks", sys.modules[__name__])
    settings = ["policy.network=my_networks:Shifted", "family.settings.horizon=5", "seed=5"]
    stages = ["outer.iterations=2", "stages=[{until: 1, set: {outer.meta_batch: 2}}]"]
    method = load_method(load_config("point_navigation", [*settings, *stages]))
    method.initial_state()
    buffers = method.problem.policy.network.constants
    for iteration in (0, 1):
        other = at_iteration(method, iteration).problem.policy.network
        assert all(torch.equal(other.module.get_buffer(n), leaf) for n, leaf in buffers.items())
