"""How a policy comes to be: by meta-training, by pretraining, or not at all.

The methods share the network, the families, the budget of environment steps, the evaluator, and the
form of their training: a generator of states and metrics.
"""

from collections.abc import Iterator

from metarl.config import Config, Method
from metarl.envs import TaskFamily
from metarl.training import Metrics, TrainingState, initial_state, inner_loop, meta_train

LABELS: dict[Method, str] = {
    "maml": "MAML",
    "pretrained": "pretrained",
    "random": "random",
    "oracle": "oracle",
}


def train(
    config: Config, family: TaskFamily, state: TrainingState | None = None
) -> Iterator[tuple[TrainingState, Metrics]]:
    """Train by the config's method; see `metarl.training.meta_train`.

    Args:
        config: the experiment.
        family: as `config.load_family()` gives it.
        state: where to continue; at the beginning where None.
    """
    inner = inner_loop(config, family)
    state = state or initial_state(config, inner)
    match config.method:
        case "maml":
            return meta_train(config, family, state)
        case "random":
            return iter(())
        case "pretrained" | "oracle":
            # imported here: stable-baselines3 takes seconds, which nobody else should wait for
            from metarl.baselines.pretraining import pretrain

            return pretrain(config, inner.policy, family, state)
