"""Meta-reinforcement learning and few-shot learning with MAML (Finn et al., 2017).

Load a meta-trained policy, adapt it to a task by one gradient step, and act:

    import gymnasium, metarl
    policy = metarl.load("half_cheetah_direction")       # or the directory of a run
    env = gymnasium.make("metarl/HalfCheetahDirection-v0")
    adapted = policy.adapt(env, task=[-1.0])             # collects 20 episodes, takes one step
    action = adapted.act(env.reset(options={"task": [-1.0]})[0])

The environment is a Gymnasium environment or vector environment with the same spaces as in
training. More of what a policy can do (see `AdaptivePolicy`):

    policy.adapt(env, steps=3)                           # three steps, each on new episodes
    policy.adapt([(observations, actions, rewards), ...])  # on episodes that the policy played
    print(policy.evaluate())                             # returns on held-out tasks
    policy.render("walk.mp4", task=[1.0])                # a video of one episode

Adapt in a loop that you control:

    policy.reset()                                       # a new task
    action = policy.act(observation)
    policy.observe(reward, terminated, truncated, next_observation)
    policy = policy.adapt()                              # between episodes, to those observed

Train a policy, which is saved in a directory, and compare it with a baseline:

    config = {"family": {"name": "point-navigation"}, "outer": {"iterations": 100}}
    run = metarl.train(config, "runs/points")
    pretrained = metarl.train({**config, "method": "pretrained"}, "runs/points-pretrained")
    print(metarl.compare(run, pretrained))

`Config` describes the settings of policies, and `SupervisedConfig` those of networks. Train several
seeds, or combinations of settings, in parallel:

    runs = metarl.train_seeds(config, 5, "runs/seeds")
    print(metarl.sweep(config, {"inner.step_size": [0.1, 0.5]}, "runs/sweep", seeds=3))

For few-shot regression and classification, `load_network` returns an `AdaptiveNetwork` with the
methods `adapt(inputs, targets)` and `predict(inputs)`; `Dataset` is for your own images.

`metarl.adapt` is the inner loop as a function of parameters, in plain PyTorch.

To train on your own tasks, write a `TaskFamily`. `check_family` checks it, and `vectorise` makes a
vector environment from any Gymnasium environment.

Errors that the user can correct are raised as `UserError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.api import compare as compare
    from metarl.api import evaluate as evaluate
    from metarl.api import load as load
    from metarl.api import load_network as load_network
    from metarl.api import search as search
    from metarl.api import sweep as sweep
    from metarl.api import train as train
    from metarl.api import train_seeds as train_seeds
    from metarl.envs.checker import check_family as check_family
    from metarl.envs.family import TaskFamily as TaskFamily
    from metarl.envs.wrappers import vectorise as vectorise
    from metarl.errors import UserError as UserError
    from metarl.evaluation import AdaptationCurve as AdaptationCurve
    from metarl.inner_loop import InnerOptimizer as InnerOptimizer
    from metarl.inner_loop import adapt as adapt
    from metarl.models.network import AdaptiveNetwork as AdaptiveNetwork
    from metarl.models.policy import AdaptivePolicy as AdaptivePolicy
    from metarl.rl.agent import Agent as Agent
    from metarl.rl.config import Config as Config
    from metarl.rl.external_data import Trajectory as Trajectory
    from metarl.runs.run import Run as Run
    from metarl.supervised.config import SupervisedConfig as SupervisedConfig
    from metarl.supervised.data import Dataset as Dataset

_MODULES = {
    "load": "metarl.api",
    "load_network": "metarl.api",
    "train": "metarl.api",
    "train_seeds": "metarl.api",
    "sweep": "metarl.api",
    "search": "metarl.api",
    "evaluate": "metarl.api",
    "compare": "metarl.api",
    "adapt": "metarl.inner_loop",
    "InnerOptimizer": "metarl.inner_loop",
    "check_family": "metarl.envs.checker",
    "vectorise": "metarl.envs.wrappers",
    "Config": "metarl.rl.config",
    "SupervisedConfig": "metarl.supervised.config",
    "Dataset": "metarl.supervised.data",
    "AdaptivePolicy": "metarl.models.policy",
    "Agent": "metarl.rl.agent",
    "AdaptiveNetwork": "metarl.models.network",
    "AdaptationCurve": "metarl.evaluation",
    "Run": "metarl.runs.run",
    "TaskFamily": "metarl.envs.family",
    "Trajectory": "metarl.rl.external_data",
    "UserError": "metarl.errors",
}

__all__ = list(_MODULES)


# PEP 562: a name is imported on first use, so that `import metarl` and `metarl --help` are quick
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
