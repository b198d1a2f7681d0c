"""From a config to an experiment: the one place that knows all domains."""

from metarl.errors import UserError
from metarl.experiment import Experiment
from metarl.rl.config import Config
from metarl.rl.experiment import PolicyExperiment
from metarl.runs.config import AnyConfig
from metarl.runs.run import Run
from metarl.settings import Method
from metarl.supervised.experiment import SupervisedExperiment

LABELS: dict[Method, str] = {
    "maml": "MAML",
    "pretrained": "pretrained",
    "random": "random",
    "oracle": "oracle",
    "nearest_neighbour": "nearest neighbour",
}


def policy_experiment(run: Run) -> PolicyExperiment:
    """The experiment of a run that is about policies.

    Raises:
        UserError: if it is about something else.
    """
    if not isinstance(run.config, Config):
        raise UserError(
            f"{run.path} is about {run.config.data.name}: there is no policy to film or to export"
        )
    return PolicyExperiment(run.config)


def load_experiment(config: AnyConfig) -> Experiment:
    """What a config describes, ready to be trained and evaluated.

    Raises:
        UserError: if its data are not there, or damaged.
    """
    return PolicyExperiment(config) if isinstance(config, Config) else SupervisedExperiment(config)
