"""The example of PEARL: its belief, its replay buffer, and runs that resume."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metarl
from metarl.method import load_method, train
from metarl.params import flatten
from metarl.rl.trajectories import Trajectories
from metarl.runs.run import Run

EXAMPLES = str(Path(__file__).parent.parent / "examples")


@pytest.fixture
def pearl(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "pearl", raising=False)
    import pearl

    return pearl


def config(pearl: Any, **settings: Any) -> metarl.Config:
    return metarl.Config(
        method={"name": pearl.PEARL, "width": 8, "updates": 2, "capacity": 3, **settings},
        family={"name": "point-navigation", "settings": {"horizon": 5}},
        policy={"network": pearl.Actor, "settings": {"width": 8}},
        inner={"episodes_per_task": 1, "gamma": 0.9},
        outer={"algorithm": "adam", "iterations": 3, "meta_batch": 3},
        evaluation={"tasks": 2},
    )


def test_a_belief_is_a_product_of_gaussians_over_the_steps_that_were_taken(pearl: Any) -> None:
    params = load_method(config(pearl, latent_size=2)).initial_state().params
    observations, actions = torch.randn(2, 6, 2), torch.randn(2, 6, 2)
    mask = torch.tensor([[True] * 6, [True, False] * 3])
    context = {
        "observations": observations,
        "actions": actions,
        "rewards": torch.randn(2, 6),
        "mask": mask,
    }
    mean, variance = pearl.posterior(params, context)
    for task in range(2):
        density = torch.zeros(2), torch.ones(2)  # N(0, 1), by mean and precision
        for step in mask[task].nonzero().flatten().tolist():
            row = [*observations[task, step], *actions[task, step], context["rewards"][task, step]]
            hidden = torch.stack(row) @ params["encoder.weight0"] + params["encoder.bias0"]
            output = hidden.relu() @ params["encoder.weight1"] + params["encoder.bias1"]
            other, precision = output[:2], output[2:].exp()
            total = density[1] + precision
            density = (density[0] * density[1] + other * precision) / total, total
        torch.testing.assert_close(mean[task], density[0])
        torch.testing.assert_close(variance[task], 1.0 / density[1])
    order = torch.randperm(6)
    again = pearl.posterior(params, {name: leaf[:, order] for name, leaf in context.items()})
    torch.testing.assert_close(again, (mean, variance))


def test_the_buffer_has_the_last_episodes_with_their_next_observations(pearl: Any) -> None:
    def episode(number: float) -> Trajectories:
        observations = torch.arange(3.0).view(1, 1, 3, 1) + number
        mask = torch.tensor([[[True, True, number != 20.0]]])
        ended, last = torch.tensor([[number == 20.0]]), torch.full((1, 1, 1), number + 9.0)
        zeros = torch.zeros(1, 1, 3)
        return Trajectories(
            observations, zeros[..., None], zeros, mask, zeros, {}, ended, None, last
        )

    buffer = pearl.join([episode(0.0), episode(10.0)], 2)
    buffer = pearl.join([episode(20.0)], 2, buffer)
    assert buffer["observations"][0, :, 0].tolist() == [10.0, 11.0, 12.0, 20.0, 21.0, 0.0]
    assert buffer["next_observations"][0, :, 0].tolist() == [11.0, 12.0, 19.0, 21.0, 29.0, 0.0]
    assert buffer["mask"][0].tolist() == [True] * 5 + [False]
    assert buffer["terminal"][0].tolist() == [False] * 4 + [True, False]


@pytest.mark.slow
def test_a_resumed_training_equals_an_uninterrupted_one(pearl: Any, tmp_path: Path) -> None:
    settings = config(pearl)
    states = [state for state, _ in train(load_method(settings))]
    run = Run.create(tmp_path / "run", settings)
    run.save(states[0])
    *_, (resumed, _) = train(load_method(settings), Run.open(run.path, trust_code=True).load())
    assert torch.equal(flatten(states[-1].params), flatten(resumed.params))
    assert states[-1].extra["observations"].shape == (3, 15, 2)
    for name, leaf in states[-1].extra.items():
        assert torch.equal(leaf, resumed.extra[name]), name


def test_an_agent_adapts_by_its_belief(pearl: Any) -> None:
    method = load_method(config(pearl))
    params = method.initial_state().params
    agent = method.agent(params)
    episode = np.zeros((40, 2)), np.zeros((40, 2)), np.full(40, -1.0)
    rows = [torch.from_numpy(x)[None].float() for x in episode]
    context = dict(zip(("observations", "actions", "rewards"), rows, strict=True))
    mean, variance = pearl.posterior(params, context | {"mask": torch.ones(1, 40)})
    draws = torch.stack([agent.adapt([episode]).params["context"] for _ in range(300)])
    error = 4.0 * (variance[0] / len(draws)).sqrt()
    assert ((draws.mean(0) - mean[0]).abs() < error).all()
    torch.testing.assert_close(draws.var(0), variance[0], rtol=0.3, atol=0)
    agent.reset()
    assert not torch.equal(agent.params["context"], draws[-1])
    action = agent.act([0.1, 0.2], deterministic=True)
    np.testing.assert_array_equal(action, agent.act([0.1, 0.2], deterministic=True))
    for step in range(30):
        agent.act([0.1 * step, 0.2])
        agent.observe(-1.0, False, False, [0.1, 0.2])
    assert len(agent.transitions) == 30
