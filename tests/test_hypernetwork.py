"""Recurrent hypernetworks: the weights of a policy are a linear function of a recurrent state."""

import pytest
import torch

from metarl.baselines.hypernetwork import Hypernetwork, bilinear
from metarl.errors import UserError
from metarl.experiment import load_config
from metarl.method import load_method
from metarl.networks.mlp import mlp

TINY = ["method.hidden_size=6", "outer.meta_batch=3", "outer.iterations=2"]
SETTINGS = [
    ["method.head_sizes=[]"],
    ["method.head_sizes=[7, 4]"],
    ["method.head_sizes=[4]", "method.bottleneck_size=3"],
]


def hypernetwork(*overrides: str, config: str = "gridworld_hypernetwork") -> Hypernetwork:
    method = load_method(load_config(config, [*TINY, *overrides]))
    assert isinstance(method, Hypernetwork)
    return method


@pytest.mark.parametrize("settings", SETTINGS)
def test_at_first_every_state_generates_the_weights_of_a_fresh_policy(settings) -> None:
    policy = hypernetwork(*settings).policy
    params = policy.init(torch.Generator().manual_seed(0))
    states, observations = torch.randn(2, 5, 6), torch.randn(2, 5, 2)
    features = policy.features(params, states, observations)
    expected = mlp(params, observations, torch.tanh).log_softmax(-1)
    torch.testing.assert_close(policy.distribution(params, features)["logits"], expected)
    assert expected.std() > 0
    values = mlp(policy.value_layers(params), observations, torch.tanh)[..., 0]
    torch.testing.assert_close(policy.value(params, features), values)


@pytest.mark.parametrize("settings", SETTINGS)
def test_outputs_are_those_of_one_base_network_for_each_state(settings) -> None:
    policy = hypernetwork(*settings).policy
    params = policy.init(torch.Generator().manual_seed(0))
    params = {name: torch.randn(leaf.shape) for name, leaf in params.items()}
    states, observations = torch.randn(5, 6), torch.randn(5, 2)
    features = policy.features(params, states, observations)
    logits, values = policy.distribution(params, features)["logits"], policy.value(params, features)
    if "bottleneck.weight" in params:
        states = (states @ params["bottleneck.weight"] + params["bottleneck.bias"]).tanh()
    depth = len(policy.head_policy.hidden_sizes) + 1
    for row, (state, observation) in enumerate(zip(states, observations, strict=True)):
        outputs = []
        for prefix in ("", "value."):
            hidden = observation
            for layer in range(depth):
                number = "" if prefix and depth == 1 else layer
                weight, bias = (f"{prefix}{kind}{number}" for kind in ("weight", "bias"))
                generated = {name: params[name].clone() for name in (weight, bias)}
                for name, leaf in generated.items():
                    for k, number_k in enumerate(state):
                        leaf += number_k * params[f"hyper.{name}"][k]
                hidden = hidden @ generated[weight] + generated[bias]
                hidden = hidden.tanh() if layer < depth - 1 else hidden
            outputs.append(hidden)
        torch.testing.assert_close(logits[row], outputs[0].log_softmax(-1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values[row], outputs[1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [(3, 2, 5), (3, 5, 2)])
def test_a_bilinear_form_does_not_depend_on_the_order_of_its_products(sizes) -> None:
    weight, state, inputs = torch.randn(sizes), torch.randn(2, 4, 3), torch.randn(2, 4, sizes[1])
    expected = torch.einsum("abk,kio,abi->abo", state, weight, inputs)
    torch.testing.assert_close(bilinear(state, inputs, weight), expected)


def test_the_activation_is_a_setting_where_a_layer_has_one() -> None:
    linear = ["method.head_sizes=[]", "policy.activation=tanh"]
    load_config("bandit_5x10_hypernetwork", [*linear, "method.bottleneck_size=2"])
    with pytest.raises(UserError, match=r"policy\.activation: tanh is not supported by method hyp"):
        load_config("bandit_5x10_hypernetwork", linear)


@pytest.mark.slow
def test_a_recurrent_hypernetwork_learns_bandits() -> None:
    settings = ["outer.iterations=60", "outer.meta_batch=200", "evaluation.tasks=300"]
    method = load_method(load_config("bandit_5x10_hypernetwork", settings))
    state = method.initial_state()
    before = method.evaluate(state.params).scores.mean()
    for _ in range(40):  # of 60, whose step sizes decline
        state, _ = method.step(state)
    method.close()
    # pulling at random pays 5.0 on average, Thompson sampling 5.84
    assert before < 5.4
    assert method.evaluate(state.params).scores.mean() > 5.9
