"""What every training yields, whatever it learns: states and metrics, one after the other.

Trainings are generators, so that whoever drives them decides about progress bars, files and
stopping.
"""

from dataclasses import dataclass, field

from metarl.params import Params

Metrics = dict[str, float]


@dataclass(frozen=True)
class TrainingState:
    """All that a run needs to continue exactly.

    Attributes:
        iteration: how many iterations are done.
        theta: the meta-parameters θ.
        optimizer: state of the outer optimiser; empty for TRPO, which has none.
        samples: how many samples were learned from so far: environment steps or examples.
    """

    iteration: int
    theta: Params
    optimizer: Params = field(default_factory=dict)
    samples: int = 0
