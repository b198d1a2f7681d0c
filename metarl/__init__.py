"""Meta-reinforcement learning around MAML (Finn et al., 2017): policies that adapt to a new task.

Five lines load a policy that was meta-trained, adapt it to a task of your own environment by one
gradient step, and act:

    import gymnasium, metarl
    policy = metarl.load("half_cheetah_direction")       # or the directory of a run of yours
    env = gymnasium.make("metarl/HalfCheetahDirection-v0")
    adapted = policy.adapt(env, task=[-1.0])             # plays 20 episodes, takes a gradient step
    action = adapted.act(env.reset(options={"task": [-1.0]})[0])

`adapt` takes any gymnasium environment with the spaces that the policy was trained on, a single one
or a vector environment, or episodes that you gathered by acting:

    policy.adapt(env, steps=3)                           # three steps, each on new episodes
    policy.adapt([(observations, actions, rewards), ...])
    policy.evaluate().to_frame()                         # returns on unseen tasks, for pandas
    policy.render("walk.mp4", task=[1.0])                # a film of one episode

Train one, and compare it with others:

    config = metarl.Config(family={"name": "point-navigation"}, outer={"iterations": 100})
    run = metarl.train(config, "runs/points")            # a directory: weights, metrics, evaluation
    metarl.compare(run, "runs/points-pretrained").to_frame()

Few-shot regression and classification have the same verbs: `load_network` gives a network with
`adapt(inputs, targets)` and `predict(inputs)`. The inner loop alone, as one function of parameters
in plain PyTorch, is `metarl.adapt`. Tasks of your own are a class with a few members:
`check_family` tells whether it keeps the contract, and `vectorise` makes a vector environment of
any gymnasium environment.

Whatever is the user's to mend is a `UserError`, in one sentence. Nothing here is imported before it
is asked for: `import metarl` takes no time.
"""

from typing import TYPE_CHECKING

from metarl.lazy import imported_from

if TYPE_CHECKING:
    from metarl.api import compare as compare
    from metarl.api import evaluate as evaluate
    from metarl.api import load as load
    from metarl.api import load_network as load_network
    from metarl.api import train as train
    from metarl.envs.checker import check_family as check_family
    from metarl.envs.family import TaskFamily as TaskFamily
    from metarl.envs.wrappers import vectorise as vectorise
    from metarl.errors import UserError as UserError
    from metarl.evaluation import AdaptationCurve as AdaptationCurve
    from metarl.inner_loop import adapt as adapt
    from metarl.models.network import AdaptiveNetwork as AdaptiveNetwork
    from metarl.models.policy import AdaptivePolicy as AdaptivePolicy
    from metarl.rl.config import Config as Config
    from metarl.rl.external_data import Trajectory as Trajectory
    from metarl.runs.run import Run as Run
    from metarl.supervised.config import SupervisedConfig as SupervisedConfig
    from metarl.supervised.data import Dataset as Dataset

_HOMES = {
    "load": "metarl.api",
    "load_network": "metarl.api",
    "train": "metarl.api",
    "evaluate": "metarl.api",
    "compare": "metarl.api",
    "adapt": "metarl.inner_loop",
    "check_family": "metarl.envs.checker",
    "vectorise": "metarl.envs.wrappers",
    "Config": "metarl.rl.config",
    "SupervisedConfig": "metarl.supervised.config",
    "Dataset": "metarl.supervised.data",
    "AdaptivePolicy": "metarl.models.policy",
    "AdaptiveNetwork": "metarl.models.network",
    "AdaptationCurve": "metarl.evaluation",
    "Run": "metarl.runs.run",
    "TaskFamily": "metarl.envs.family",
    "Trajectory": "metarl.rl.external_data",
    "UserError": "metarl.errors",
}

__all__ = list(_HOMES)  # the names above, once


__getattr__ = imported_from(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
