"""The methods of reinforcement learning."""

from metarl.config.registry import Registry
from metarl.config.sections import METHOD_MEMBERS

MEMBERS = (*METHOD_MEMBERS, "outer_steps")  # of a custom method
METHODS = Registry(
    "method of reinforcement learning",
    {
        "maml": "metarl.rl.maml:MAML",
        "promp": "metarl.rl.promp:ProMP",
        "cavia": "metarl.rl.cavia:CAVIA",
        "e_maml": "metarl.rl.e_maml:EMAML",
        "rl2": "metarl.baselines.rl2:RL2",
        "hypernetwork": "metarl.baselines.hypernetwork:Hypernetwork",
        "varibad": "metarl.baselines.varibad:VariBAD",
        "pretrained": "metarl.baselines.pretrained_policy:Pretrained",
        "multi_task": "metarl.baselines.multi_task:MultiTask",
        "random": "metarl.baselines.random_policy:Random",
        "oracle": "metarl.baselines.pretrained_policy:Oracle",
    },
)
