"""What was measured of a run: evaluated once, and kept beside its weights."""

import csv
import io
import json
from typing import Any

from metarl.config import EvaluationConfig
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, evaluate
from metarl.methods import LABELS
from metarl.plotting import plot_adaptation
from metarl.run import Run, write_atomically
from metarl.training import inner_loop

NAME = "evaluation.json"


def measure(run: Run) -> AdaptationCurve:
    """Evaluate a run, and write evaluation.json, evaluation.csv and adaptation.png.

    Raises:
        UserError: if the run has no sound checkpoint.
    """
    state = run.load()
    family = run.config.load_family()
    curve = evaluate(run.config, inner_loop(run.config, family), state.theta, family)
    description: dict[str, Any] = {
        "method": run.config.method,
        "weights_sha256": run.weights_sha256(),
        "iteration": state.iteration,
        "environment_steps": state.environment_steps,
        "settings": run.config.evaluation.model_dump(mode="json"),
        **curve.to_json(),
    }
    run.results.mkdir(parents=True, exist_ok=True)
    write_atomically(run.results / NAME, json.dumps(description, indent=2) + "\n")
    write_atomically(run.results / "evaluation.csv", _csv(run, curve))
    label = LABELS[run.config.method]
    title = f"Adaptation: {run.config.family.name}"
    plot_adaptation({label: curve.summary}, title, run.results / "adaptation.png")
    return curve


def measured(run: Run) -> tuple[AdaptationCurve, EvaluationConfig]:
    """The last evaluation of a run's present weights, and its settings; measured where missing."""
    for folder in (run.results, run.path):
        try:
            found = json.loads((folder / NAME).read_text())
            if found["weights_sha256"] == run.weights_sha256():
                settings = EvaluationConfig.model_validate(found["settings"])
                return AdaptationCurve.from_json(found), settings
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder / NAME} is damaged, or of another version of metarl ({error}); "
                f"measure it anew: metarl evaluate {run.path}"
            ) from error
    return measure(run), run.config.evaluation


def _csv(run: Run, curve: AdaptationCurve) -> str:
    """One row for each task: what it is, and the mean return after 0...K steps."""
    describe = run.config.load_family().describe
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    steps = range(curve.returns.shape[1])
    writer.writerow(["task", *(f"return_after_{k}_steps" for k in steps)])
    for task, returns in zip(curve.tasks, curve.returns, strict=True):
        writer.writerow([describe(task), *returns.tolist()])
    return text.getvalue()
