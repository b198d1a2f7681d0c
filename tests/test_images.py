"""Images as observations and discrete actions: training, evaluation, adaptation, rendering."""

import importlib.util
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import metarl
from metarl.envs.observations import FlatImage, flat_family
from metarl.errors import UserError
from metarl.experiment import override_config, validate_config
from metarl.method import load_method, train
from metarl.networks.cnn import CNN
from metarl.networks.module import FunctionalModule
from metarl.rl.advantages import pooled
from metarl.rl.policies import CategoricalPolicy, policy_for

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("my_images", HERE / "my_images.py")
my_images = importlib.util.module_from_spec(spec)
spec.loader.exec_module(my_images)
TINY = {
    "family": {"name": "my_images:Corners"},
    "policy": {"hidden_sizes": [16], "activation": "tanh"},
    "inner": {"episodes_per_task": 4, "step_size": 0.5},
    "outer": {"algorithm": "trpo", "iterations": 1, "meta_batch": 3},
    "evaluation": {"tasks": 3, "episodes_per_task": 2},
}
ADAM = {"algorithm": "adam", "iterations": 1, "meta_batch": 3}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(HERE / "my_images.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_images", raising=False)
    return tmp_path


@pytest.mark.slow
def test_meta_training_learns_to_identify_the_rewarded_corner(workspace: Path) -> None:
    values = {
        **TINY,
        "inner": {"episodes_per_task": 20, "step_size": 1.0},
        "outer": {"iterations": 25, "meta_batch": 10},
        "evaluation": {"tasks": 20, "episodes_per_task": 20, "step_sizes": [1.0]},
    }
    learner = load_method(validate_config(values))
    state = learner.initial_state()
    untrained = learner.evaluate(state.params).scores[:, 1].mean()
    *_, (state, _) = train(learner, state)
    before, after = learner.evaluate(state.params).scores.mean(0)
    # of 4; whoever does not know the corner gets nothing on average
    assert after > 1.5
    assert after > before + 1.0
    assert after > untrained + 0.8


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Corners", "Strokes"])
def test_a_policy_with_image_observations_is_trained_loaded_adapted_and_rendered(
    workspace: Path, family: str
) -> None:
    values = {**TINY, "family": {"name": f"my_images:{family}"}}
    policy = metarl.load(metarl.train(values, "run"))
    task_family = getattr(my_images, family)()
    metarl.check_family(task_family)
    env = task_family.make(render_mode="rgb_array")
    adapted = policy.adapt(env, task=[0.0, 4.0], episodes=3)
    picture, _ = env.reset(options={"task": [0.0, 4.0]})
    step = env.step(adapted.act(picture))
    assert np.shape(step[0]) == (5, 5, 1)
    assert len(adapted.act(np.stack([picture] * 3))) == 3
    recorded_episodes = [(np.stack([picture] * 2), np.stack([policy.act(picture)] * 2), [1.0, 0.0])]
    assert policy.adapt([*recorded_episodes, *policy.play(env, [0.0, 0.0])]).steps == 1
    assert len(policy.render("video.gif", task=[0.0, 0.0]).frames) == 5
    assert len(policy.render(env=env).frames) == 5
    with pytest.raises(UserError, match=r"is an image of shape \(5, 5, 1\), not \(3, 3, 1\)"):
        policy.act(np.zeros((3, 3, 1)))


@pytest.mark.slow
def test_other_methods_and_the_perceptron_support_images_or_name_the_alternative(
    workspace: Path,
) -> None:
    metarl.train({**TINY, "method": "promp", "outer": ADAM}, "promp")
    values = {**TINY, "inner": {"episodes_per_task": 4}}  # without the size of gradient steps
    policy = {"hidden_sizes": [16]}
    metarl.train({**values, "method": "rl2", "policy": policy, "outer": ADAM}, "rl2")
    flat = {**values, "policy": {"network": "mlp", "hidden_sizes": [8]}}
    for kind in ("pretrained", "oracle"):
        small = {"baseline": {"batch_size": 8, "step_sizes": [0.1], "validation_tasks": 2}}
        metarl.train(override_config({**flat, **small}, [f"method={kind}"]), kind)
    with pytest.raises(UserError, match="cnn is unsupported by stable-baselines3's MlpPolicy"):
        metarl.train(override_config(TINY, ["method=pretrained"]), "other")
    with pytest.raises(
        UserError, match="has image observations, which method cavia does not support"
    ):
        metarl.train({**TINY, "method": "cavia"}, "context")
    assert not Path("context").exists()


def test_a_custom_network_receives_the_image(workspace: Path) -> None:
    values = {**TINY, "policy": {"network": "my_pictures:Seen"}}
    Path("my_pictures.py").write_text(
        "from torch import nn\n"
        "class Seen(nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__()\n"
        "        assert inputs == (1, 5, 5)\n"
        "        layers = nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2, outputs)\n"
        "        self.layers = nn.Sequential(*layers)\n"
        "    def forward(self, x):\n"
        "        assert x.shape[-3:] == (1, 5, 5) and x.min() >= 0 and x.max() <= 1\n"
        "        return self.layers(x)\n"
    )
    with pytest.raises(UserError, match=r"vmap|second derivative"):
        metarl.train(values, "run")  # vmap has no branches on data
    text = Path("my_pictures.py").read_text()
    Path("my_pictures.py").write_text(text.replace(" and x.min() >= 0 and x.max() <= 1", ""))
    sys.modules.pop("my_pictures")
    metarl.train(values, "run")


def test_images_are_flattened_with_channels_first() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    last = FlatImage(gym.spaces.Box(0, 255, (4, 6, 3), np.uint8))
    first = FlatImage(gym.spaces.Box(0, 255, (3, 4, 6), np.uint8))
    assert last.image_shape == first.image_shape == (3, 4, 6)
    rows = last.flatten(picture)
    np.testing.assert_array_equal(rows, first.flatten(np.moveaxis(picture, -1, 0)))
    np.testing.assert_allclose(rows.reshape(3, 4, 6)[1, 2, 5], picture[2, 5, 1] / 255, rtol=1e-6)
    assert last.flatten(np.stack([picture] * 2)).shape == (2, 72)
    signed = FlatImage(gym.spaces.Box(-1.0, 1.0, (4, 4, 1)))
    assert signed.flatten(np.full((4, 4, 1), -1.0)).max() == 0.0
    unbounded = FlatImage(gym.spaces.Box(-np.inf, np.inf, (4, 4, 1)))
    constant = FlatImage(gym.spaces.Box(3.0, 3.0, (4, 4, 1)))
    assert constant.flatten(np.full((4, 4, 1), 3.0)).tolist() == [3.0] * 16
    assert unbounded.flatten(np.full((4, 4, 1), 9.0)).max() == 9.0


def test_single_and_vector_environments_have_the_same_images() -> None:
    family = flat_family(my_images.Corners())
    env, envs = family.make(), family.make_vec(2)
    task = np.array([0.0, 4.0])
    alone, _ = env.reset(options={"task": task})
    both, _ = envs.reset(options={"task": np.stack([task] * 2)})
    np.testing.assert_array_equal(both, [alone, alone])
    assert env.observation_space.contains(alone)
    assert envs.observation_space.contains(both)
    assert flat_family(family) is family


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 12, 9), (4, 84, 84)])
def test_the_convolutional_network_supports_images_of_any_size(shape) -> None:
    torch.manual_seed(0)
    cnn = CNN(shape, 3, filters=2, hidden_sizes=(4,))
    FunctionalModule("cnn", lambda: cnn, shape, 3).init(torch.Generator())


def test_the_baseline_reduces_an_image_to_a_few_features() -> None:
    rows = torch.rand(2, 7, 3 * 8 * 12)
    cells = pooled(rows, (3, 8, 12))
    assert cells.shape == (2, 7, 3 * 16)
    expected = rows.view(2, 7, 3, 8, 12)[1, 5, 2, 2:4, 3:6].mean()
    torch.testing.assert_close(cells.view(2, 7, 3, 4, 4)[1, 5, 2, 1, 1], expected)


def test_the_error_for_an_unsupported_space_names_the_wrapper_to_use() -> None:
    image, flat = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), gym.spaces.Box(-1, 1, (2,))
    assert isinstance(policy_for(image, gym.spaces.Discrete(3)), CategoricalPolicy)
    for observations in (
        gym.spaces.Dict({"a": image}),
        gym.spaces.Box(0, 255, (4, 4), np.uint8),
        gym.spaces.Text(9),
    ):
        with pytest.raises(UserError, match=r"gymnasium\.wrappers\.FlattenObservation"):
            policy_for(observations, flat)
    for actions in (gym.spaces.MultiBinary(2), gym.spaces.Dict({"a": flat})):
        with pytest.raises(UserError, match=r"gymnasium\.wrappers\.TransformAction"):
            policy_for(image, actions)


@pytest.mark.parametrize("scale", ["measured", [1.0]])
def test_pixels_are_not_scaled(workspace, scale) -> None:
    values = {**TINY, "policy": {**TINY.get("policy", {}), "observation_scale": scale}}
    with pytest.raises(UserError, match="images need no scaling"):
        load_method(validate_config(values)).initial_state()
