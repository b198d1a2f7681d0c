"""What `import metarl` offers: the commands' verbs, as functions."""

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
from metarl.report import evaluations as results
from metarl.report import groups as experiments
from metarl.report.comparison import Comparison
from metarl.runs.run import Run

RunLike = str | Path | Run


def load(run: RunLike, *, trust_code: bool = False, seed: int = 0) -> AdaptivePolicy:
    """A policy that was trained: `act`, `adapt`, `play`, `evaluate`, `render`.

    Args:
        run: the directory of a run, or the name of one that comes with the package (`metarl list`
            tells), or what `train` returned.
        trust_code: import what the run names that is not of this package, such as a family of
            one's own: what is imported is executed.
        seed: of all that the policy draws.

    Raises:
        UserError: if there is no such run, it is damaged, names code that is not trusted, or is
            about few-shot learning, which `load_network` loads.

    Example:
        >>> import metarl
        >>> policy = metarl.load("point_navigation")
        >>> policy.act([0.0, 0.0]).shape
        (2,)
    """
    return AdaptivePolicy.from_run(_opened(run, trust_code), seed)


def load_network(
    run: RunLike, *, trust_code: bool = False, data: Section | None = None
) -> AdaptiveNetwork:
    """A network that was trained for few-shot learning: `adapt`, `predict`, `evaluate`.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        data: a data set that the run was given in Python, `Dataset.of(...)`.

    Raises:
        UserError: as `load`; and if its data are not there.

    Example:
        >>> import metarl
        >>> wave = metarl.load_network("sinusoid").adapt([0.0, 1.0, 2.0], [0.0, 2.5, 2.7])
        >>> wave.predict([0.5, 1.5]).shape
        (2, 1)
    """
    opened = _opened(run, trust_code)
    if data is not None:
        changed = opened.config.model_copy(update={"data": data})
        opened = Run(opened.path, changed, opened.results)
    return AdaptiveNetwork.of(opened)


def train(
    config: str | Path | Mapping[str, Any] | AnyConfig,
    out: str | Path,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> Run:
    """Meta-train by a config, into a run's directory, and evaluate on unseen tasks at the end.

    Ctrl-C and errors leave the last sound state in the directory, with which `resume=True`, or
    `metarl train --resume`, goes on as if nothing had happened.

    Args:
        config: an experiment: `Config(...)`, plain values as YAML would have them, a YAML file, or
            the name of a config that comes with the package.
        out: the directory; new or empty, unless `resume`.
        resume: go on with the run that is in `out`, if there is one.
        report: called with the number of iterations done and their metrics, whenever there are any.

    Returns:
        The run: `metarl.load(run)` is its policy, `run.to_frame()` what was logged in training.

    Raises:
        UserError: if the config is wrong, or `out` cannot be written; before any work.
        FloatingPointError: if training broke down.
    """
    if isinstance(config, Mapping):
        config = validate_config(config)
    elif isinstance(config, str | Path):
        config = load_config(str(config))
    return training.train(config, Path(out), resume, report)


def evaluate(run: RunLike, *, trust_code: bool = False, **settings: Any) -> AdaptationCurve:
    """Measure a run anew on tasks that it never saw, and keep the result in its directory.

    Args:
        run: as for `load`.
        trust_code: as for `load`.
        settings: of the config's section `evaluation`, such as `tasks=200`.

    Returns:
        Scores of each task after 0, 1, 2, ... gradient steps; see `AdaptationCurve`.

    Raises:
        UserError: as `load`; and if there is no such setting.
    """
    changed = tuple(f"evaluation.{name}={json.dumps(value)}" for name, value in settings.items())
    if isinstance(run, Run) and not settings:
        return results.evaluate(run)
    path = run.path if isinstance(run, Run) else Path(run)
    return results.evaluate(Run.open(path, changed, trust_code or isinstance(run, Run)))


def compare(*runs: RunLike, trust_code: bool = False) -> Comparison:
    """Who adapts best: runs side by side, measured on the same tasks.

    Runs that differ in their seed alone are summed up together.

    Args:
        runs: as for `load`, at least two.
        trust_code: as for `load`.

    Returns:
        A comparison: `print` shows its tables, `to_frame()` gives a row for each method and step.

    Raises:
        UserError: as `load`; and if the runs are about different tasks.
    """
    return Comparison(experiments.compare([_opened(run, trust_code) for run in runs]))


def _opened(run: RunLike, trust_code: bool) -> Run:
    return run if isinstance(run, Run) else Run.open(Path(run), trust_code=trust_code)
