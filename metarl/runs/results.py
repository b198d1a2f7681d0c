"""What was measured of a run: evaluated once, and kept beside its weights."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.files import write_atomically
from metarl.method import Method, Problem, load_method
from metarl.runs.plots import plot_adaptation
from metarl.runs.run import Run

NAME = "evaluation.json"


def measure(run: Run, method: Method | None = None) -> AdaptationCurve:
    """Evaluate a run, and write evaluation.json, evaluation.csv and adaptation.png.

    Args:
        run: what to evaluate.
        method: that of the run's config, where it is at hand.

    Raises:
        UserError: if the run has no sound checkpoint.
    """
    state = run.load()
    method = method or load_method(run.config)
    problem = method.problem
    problem.check()
    run.check_data_hashes(problem.data_hashes)
    curve = method.adaptation_curve(state.theta)
    description: dict[str, Any] = {
        "method": run.config.method.name,
        "weights_sha256": run.weights_sha256(),
        "iteration": state.iteration,
        "samples": state.samples,
        "settings": problem.evaluation_settings,
        **curve.to_json(),
    }
    run.results.mkdir(parents=True, exist_ok=True)
    write_atomically(run.results / NAME, json.dumps(description, indent=2) + "\n")
    write_atomically(run.results / "evaluation.csv", _csv(problem, curve))
    plot_adaptation(
        {method.label: curve.summary},
        problem.metric,
        f"Adaptation: {problem.title}",
        run.results / "adaptation.png",
    )
    return curve


def measured(run: Run) -> tuple[AdaptationCurve, Method]:
    """The last evaluation of a run's present weights, measured where missing.

    Also the run's method, with the settings that it was evaluated with.
    """
    for folder in (run.results, run.path):
        try:
            found = json.loads((folder / NAME).read_text())
            if found["weights_sha256"] == run.weights_sha256():
                evaluation = type(run.config.evaluation).model_validate(found["settings"])
                config = run.config.model_copy(update={"evaluation": evaluation})
                return AdaptationCurve.from_json(found), load_method(config)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder / NAME} is damaged, or of another version of metarl ({error}); "
                f"measure it anew: metarl evaluate {run.path}"
            ) from error
    return measure(run), load_method(run.config)


def steps_to_show(
    run: Run, most: int, steps: Sequence[int] | None, usual: Sequence[int], setting: str
) -> list[int]:
    """After which of a run's gradient steps to look, in order.

    Args:
        run: the run.
        most: how many it was evaluated with.
        steps: those asked for.
        usual: those to look at, as far as the run goes, where nobody asks.
        setting: what evaluates it with more.

    Raises:
        UserError: if the run has not so many.
    """
    if steps is None:
        steps = [step for step in usual if step <= most]
    if max(steps) > most or min(steps) < 0:
        raise UserError(
            f"--steps must be between 0 and {most}, which {run.path} was evaluated with; for more, "
            f"evaluate it with more: metarl evaluate RUN --set {setting}"
        )
    return sorted(set(steps))


def _csv(problem: Problem, curve: AdaptationCurve) -> str:
    """One row for each task: what it is, and its score after 0...K steps."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    steps = range(curve.scores.shape[1])
    writer.writerow(["task", *(f"{problem.metric.name}_after_{k}_steps" for k in steps)])
    for task, scores in zip(curve.tasks, curve.scores, strict=True):
        writer.writerow([problem.describe(task), *scores.tolist()])
    return text.getvalue()
