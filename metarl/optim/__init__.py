"""Outer-loop optimisers: pure steps on a parameter vector, independent of any domain.

An optimiser is a section of the config, an `OuterSection`, with one method,

    step(theta, objective, state, iteration) -> (theta, state, metrics)

which maximises an `Objective`, starting from `theta`. If a step is rejected, the new parameters are
the identical `theta`. The state is a dictionary of tensors that the caller keeps, as in optax.
"""

from metarl.config.registry import Registry
from metarl.optim.adam import Adam, adam_step
from metarl.optim.gradient import GradientSection
from metarl.optim.objective import Objective, TrustRegionObjective, gradient_and_value
from metarl.optim.sgd import SGD
from metarl.optim.trust_region import TrustRegion

__all__ = [
    "GRADIENT_OPTIMIZERS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "GradientSection",
    "Objective",
    "TrustRegion",
    "TrustRegionObjective",
    "adam_step",
    "gradient_and_value",
]

GRADIENT_OPTIMIZERS = Registry(  # those that need the gradient only, not KL or curvature
    "outer step",
    {
        "adam": "metarl.optim.adam:Adam",
        "sgd": "metarl.optim.sgd:SGD",
        "torch": "metarl.optim.torch_optimizer:TorchOptimizer",
    },
)
OPTIMIZERS = Registry(
    "outer step", {"trpo": "metarl.optim.trust_region:TrustRegion", **GRADIENT_OPTIMIZERS}
)
