"""What was measured of a run: evaluated once, and kept beside its weights."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field

from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.files import read_bounded, storing, write_atomically
from metarl.method import Method, Problem, TrainingState, load_method
from metarl.params import flatten
from metarl.rl.config import Config
from metarl.rl.methods import METHODS
from metarl.runs.config import SUFFIXES, AnyConfig, Schedule
from metarl.runs.run import Run
from metarl.settings import Natural, Positive

LARGEST = 2**28  # bytes
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Evaluation(BaseModel):
    """What evaluation.json says, as far as anybody asks."""

    weights_sha256: str
    settings: dict[str, Any]
    step_sizes: tuple[Positive, ...]
    tasks: list[list[Number]]
    scores: list[list[Number]]
    episodes: tuple[Natural, ...] = ()
    instances: tuple[Natural, ...] = ()

    @property
    def curve(self) -> AdaptationCurve:
        """The scores.

        Raises:
            ValueError: if they are not one for each task and stage.
        """
        number = len(self.tasks)
        # what is not there, from_json makes of the rest
        curve = AdaptationCurve.from_json(self.model_dump(exclude_unset=True))
        stages = len(curve.episodes) or len(curve.instances) or len(self.step_sizes) + 1
        if number < 2 or curve.tasks.ndim != 2 or curve.scores.shape != (number, stages):
            raise ValueError("there is not one score for each task and stage")
        return curve


def measure(run: Run, method: Method | None = None, schedule: Schedule = "own") -> AdaptationCurve:
    """Evaluate a run, and write evaluation.json, evaluation.csv and adaptation.png.

    Args:
        run: what to evaluate.
        method: that of the run's config, with this schedule, where it is at hand.
        schedule: which step sizes to take. Those of the paper are written beside the others, into
            evaluation-paper.json and so on.

    Raises:
        UserError: if the run has no sound checkpoint, or the paper has no other schedule for it.
    """
    # imported here: matplotlib takes half a second, which a training should not wait for
    from metarl.runs.plots import plot_adaptation

    method = method or load_method(scheduled(run, schedule))
    suffix = SUFFIXES[schedule]
    problem = method.problem
    problem.check()
    run.check_data_hashes(problem.data_hashes)
    state = fitting_state(run, method)
    curve = method.adaptation_curve(state.theta)
    description: dict[str, Any] = {
        "method": run.config.method.name,
        "weights_sha256": run.weights_sha256(),
        "iteration": state.iteration,
        "samples": state.samples,
        "settings": problem.evaluation_settings,
        **curve.to_json(),
    }
    with storing(run.results):
        run.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(description, indent=2) + "\n"
        write_atomically(run.results / f"evaluation{suffix}.json", text)
        write_atomically(run.results / f"evaluation{suffix}.csv", _csv(method.problem, curve))
        plot_adaptation(
            {method.label: curve.summary},
            method.problem.metric,
            f"Adaptation: {method.problem.title}",
            run.results / f"adaptation{suffix}.png",
            counted=[method.axis],
            episodes={method.label: curve.episodes} if method.axis == "episodes" else None,
        )
    return curve


def complete(run: Run, method: Method) -> bool:
    """Whether nothing is left to do.

    A run that was stopped between its last update and its evaluation has that left.
    """
    if not run.has_checkpoint() or run.load().iteration < method.updates:
        return False
    return (run.path / "evaluation.json").exists()


def has_two_schedules(run: Run) -> bool:
    """Whether a run is evaluated with other step sizes than the paper takes for it."""
    return isinstance(run.config, Config) and run.config.evaluation.step_sizes is not None


def scheduled(run: Run, schedule: Schedule) -> AnyConfig:
    """The config of a run, with the step sizes of this schedule.

    Raises:
        UserError: if the paper has none for it, or that is its own.
    """
    if schedule == "own":
        return run.config
    if not isinstance(run.config, Config):
        raise UserError(f"{run.path} has no policy: the paper's schedule is one for returns")
    if METHODS.load(run.config.method.name).axis != "gradient steps":
        raise UserError(
            f"{run.path} takes no gradient steps on a new task (its method is "
            f"{run.config.method.name}): there is no schedule of step sizes to choose"
        )
    if not has_two_schedules(run):
        raise UserError(
            f"the config of {run.path} sets no evaluation.step_sizes, so that its own schedule is "
            "the paper's already"
        )
    evaluation = run.config.evaluation.model_copy(update={"step_sizes": None})
    return run.config.model_copy(update={"evaluation": evaluation})


def fitting_state(run: Run, method: Method) -> TrainingState:
    """The state of a run's checkpoint, whose tensors are those that its method can use.

    Raises:
        UserError: if there is none, it is damaged, or has other weights.
    """
    state, expected = run.load(), method.initial_state().theta
    if list(state.theta) != list(expected):
        problem = f"they are {', '.join(state.theta)}, and should be {', '.join(expected)}"
        raise _unfit(run, problem)
    for name, leaf in expected.items():
        found = state.theta[name]
        if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            problem = f"{name} is {_kind(found)}, and should be {_kind(leaf)}"
            raise _unfit(run, problem)
        if not torch.isfinite(found).all():
            raise _unfit(run, f"{name} has numbers that are not finite")
    size = flatten(state.theta).shape
    for name in ("exp_avg", "exp_avg_sq"):  # Adam's, where Adam it was
        if name in state.optimizer and state.optimizer[name].shape != size:
            raise _unfit(run, f"{name} is {_kind(state.optimizer[name])}, and should have {size}")
    return state


def _unfit(run: Run, problem: str) -> UserError:
    return UserError(
        f"the weights in {run.path} are not those of its config ({problem}); restore them from a "
        "copy, or train anew"
    )


def _kind(leaf: torch.Tensor) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def measured(run: Run, schedule: Schedule = "own") -> tuple[AdaptationCurve, Method]:
    """The last evaluation of a run's present weights, measured where missing.

    Also the run's method, with the settings that it was evaluated with.
    """
    name = f"evaluation{SUFFIXES[schedule]}.json"
    for folder in (run.results, run.path):
        try:
            found = _Evaluation.model_validate_json(read_bounded(folder / name, LARGEST))
            if found.weights_sha256 == run.weights_sha256():
                evaluation = type(run.config.evaluation).model_validate(found.settings)
                config = run.config.model_copy(update={"evaluation": evaluation})
                return found.curve, load_method(config)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise UserError(
                f"{folder / name} is damaged, or of another version of metarl ({problem}); "
                f"measure it anew: metarl evaluate {run.path}"
            ) from error
    method = load_method(scheduled(run, schedule))
    return measure(run, method, schedule), method


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
