"""The functions of `import metarl`: the commands of the command line, for Python."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.config.sections import Section
from metarl.evaluation import AdaptationCurve
from metarl.experiment import AnyConfig, load_config, validate_config
from metarl.launch import train as training
from metarl.launch.train import Report
from metarl.models.network import AdaptiveNetwork
from metarl.models.policy import AdaptivePolicy
from metarl.report import evaluations, groups
from metarl.report.comparison import Comparison
from metarl.runs.run import Run

RunLike = str | Path | Run


def load(run: RunLike, *, trust_code: bool = False, seed: int = 0) -> AdaptivePolicy:
    """Load the policy of a run.

    Args:
        run: a run, its directory, or the name of a trained run of this package (`metarl list`).
        trust_code: whether to import custom classes that the config names, such as a family.
            Importing executes them.
        seed: of the policy's random generator.

    Raises:
        UserError: if the run does not exist or is damaged, if it names custom code that is not
            trusted, or if it is a run of few-shot learning (see `load_network`).

    Example:
        >>> import metarl
        >>> policy = metarl.load("point_navigation")
        >>> policy.act([0.0, 0.0]).shape
        (2,)
    """
    return AdaptivePolicy.from_run(_open(run, trust_code), seed)


def load_network(
    run: RunLike, *, trust_code: bool = False, data: Section | None = None
) -> AdaptiveNetwork:
    """Load the network of a run of few-shot regression or classification.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        data: the data set, if the run was trained on one given in Python, `Dataset.of(...)`.

    Raises:
        UserError: as for `load`, or if the data are not found.

    Example:
        >>> import metarl
        >>> wave = metarl.load_network("sinusoid").adapt([0.0, 1.0, 2.0], [0.0, 2.5, 2.7])
        >>> wave.predict([0.5, 1.5]).shape
        (2, 1)
    """
    run = _open(run, trust_code)
    if data is not None:
        run = Run(run.path, run.config.model_copy(update={"data": data}), run.results)
    return AdaptiveNetwork.of(run)


def train(
    config: str | Path | Mapping[str, Any] | AnyConfig,
    out: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> Run:
    """Meta-train, and evaluate on held-out tasks at the end.

    An interrupted training, by Ctrl-C or by an error, leaves its last valid state in the directory.
    `resume=True` or `metarl train --resume` continues from there, with the same results as an
    uninterrupted training.

    Args:
        config: `Config(...)`, a mapping as in YAML, a YAML file, or the name of a config of this
            package.
        out: the directory of the run. It must be new or empty, unless `resume` is True.
        resume: whether to continue the run in `out`, if there is one.
        report: called with the number of completed iterations and the metrics, whenever there are
            metrics.

    Returns:
        The run. `metarl.load(run)` is its policy, `run.to_frame()` the training log.

    Raises:
        UserError: before training starts, if the config is invalid or `out` cannot be written.
        FloatingPointError: if training diverges.
    """
    if isinstance(config, Mapping):
        config = validate_config(config)
    elif isinstance(config, str | Path):
        config = load_config(str(config))
    return training.train(config, Path(out), resume, report)


def evaluate(run: RunLike, *, trust_code: bool = False, **settings: Any) -> AdaptationCurve:
    """Evaluate a run on held-out tasks, and store the result in its directory.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        settings: overrides of the config's section `evaluation`, such as `tasks=200`.

    Returns:
        The scores of each task after 0, 1, 2, ... gradient steps.

    Raises:
        UserError: as for `load`, or if a setting does not exist.
    """
    overrides = tuple(f"evaluation.{name}={json.dumps(value)}" for name, value in settings.items())
    if isinstance(run, Run) and not settings:
        return evaluations.evaluate(run)
    path = run.path if isinstance(run, Run) else Path(run)
    return evaluations.evaluate(Run.open(path, overrides, trust_code or isinstance(run, Run)))


def compare(*runs: RunLike, trust_code: bool = False) -> Comparison:
    """Compare runs on the same held-out tasks.

    Runs that differ only in their seed are aggregated.

    Args:
        runs: at least two, as for `load`.
        trust_code: as for `load`.

    Returns:
        The comparison. `print` shows its tables; `to_frame()` has a row for each method and step.

    Raises:
        UserError: as for `load`, or if the runs have different tasks.
    """
    return Comparison(groups.compare([_open(run, trust_code) for run in runs]))


def _open(run: RunLike, trust_code: bool) -> Run:
    return run if isinstance(run, Run) else Run.open(Path(run), trust_code=trust_code)
