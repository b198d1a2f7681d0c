"""What was measured of a run: evaluated once, and kept beside its weights.

A run is evaluated as its config says, into evaluation.json; and maybe otherwise as well, with other
step sizes, numbers of classes or queries, each time under a name: evaluation-NAME.json.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError

from metarl.config.sections import Natural, Positive, first_mistake
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve
from metarl.experiment import AnyConfig
from metarl.files import read_bounded, storing, write_atomically
from metarl.method import Method, Problem, TrainingState, load_method, method_class
from metarl.params import flatten
from metarl.rl.config import Config
from metarl.runs.run import Run

PAPER = "paper"  # the name of an evaluation with the step sizes of Finn et al. (2017)
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


@dataclass(frozen=True)
class Evaluated:
    """A run's scores on unseen tasks.

    Attributes:
        run: whose they are.
        method: the run's, with the settings that it was evaluated with.
        curve: the scores.
    """

    run: Run
    method: Method
    curve: AdaptationCurve


def suffix(name: str) -> str:
    """What the names of an evaluation's files end in."""
    return f"-{name}" if name else ""


def measure(run: Run, method: Method | None = None, name: str = "") -> AdaptationCurve:
    """Evaluate a run, and write evaluation.json, evaluation.csv and adaptation.png.

    Args:
        run: what to evaluate.
        method: the run's, with the settings to evaluate it with; those of its config where None.
        name: what to call the evaluation, where it stands beside that of the config: it is written
            into evaluation-NAME.json and so on.

    Raises:
        UserError: if the run has no sound checkpoint.
    """
    # imported here: matplotlib takes half a second, which a training should not wait for
    from metarl.report.plots import plot_adaptation

    method = method or load_method(run.config)
    problem = method.problem
    problem.check()
    run.check_data_hashes(problem.data_hashes)
    state = fitting_state(run, method)
    curve = method.evaluate(state.params)
    description: dict[str, Any] = {
        "method": run.config.method.name,
        "weights_sha256": run.weights_sha256(),
        "iteration": state.iteration,
        "samples": state.samples,
        "settings": problem.evaluation_settings,
        **curve.to_json(),
    }
    unit = method.adaptation_unit
    with storing(run.results):
        run.results.mkdir(parents=True, exist_ok=True)
        # a line each: the scores of hundreds of tasks are many numbers
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in description.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_atomically(run.results / f"evaluation{suffix(name)}.json", text)
        write_atomically(run.results / f"evaluation{suffix(name)}.csv", _csv(problem, curve))
        plot_adaptation(
            {method.label: curve.summary},
            problem.metric,
            f"Adaptation: {problem.title}",
            run.results / f"adaptation{suffix(name)}.png",
            counted=[method.adaptation_unit],
            episodes={method.label: curve.episodes} if unit and unit.counts_episodes else None,
        )
    return curve


def complete(run: Run, method: Method) -> bool:
    """Whether nothing is left to do.

    A run that was stopped between its last update and its evaluation has that left.
    """
    if not run.has_checkpoint() or run.load().iteration < method.num_iterations:
        return False
    return (run.path / "evaluation.json").exists()


def has_two_schedules(run: Run) -> bool:
    """Whether a run is evaluated with other step sizes than the paper takes for it."""
    return isinstance(run.config, Config) and run.config.evaluation.step_sizes is not None


def with_papers_schedule(run: Run) -> AnyConfig:
    """The config of a run, evaluated as by Finn et al. (2017): steps of α, and from then on α/2.

    Their batches have so many time steps, in however many trajectories.

    Raises:
        UserError: if the paper has none for it, or that is its own.
    """
    if not isinstance(run.config, Config):
        raise UserError(f"{run.path} has no policy: the paper's schedule is one for returns")
    if not _has_step_sizes(run):
        raise UserError(
            f"{run.path} takes no gradient steps on a new task (its method is "
            f"{run.config.method.name}): there is no schedule of step sizes to choose"
        )
    if not has_two_schedules(run):
        raise UserError(
            f"the config of {run.path} sets no evaluation.step_sizes, so that its own schedule is "
            "the paper's already"
        )
    evaluation = run.config.evaluation.model_copy(update={"step_sizes": None, "count": "steps"})
    return run.config.model_copy(update={"evaluation": evaluation})


def _has_step_sizes(run: Run) -> bool:
    unit = method_class(run.config).adaptation_unit
    return unit is not None and unit.has_step_sizes


def fitting_state(run: Run, method: Method) -> TrainingState:
    """The state of a run's checkpoint, whose tensors are those that its method can use.

    Raises:
        UserError: if there is none, it is damaged, or has other weights.
    """
    state, expected = run.load(), method.initial_state().params
    if list(state.params) != list(expected):
        problem = f"they are {', '.join(state.params)}, and should be {', '.join(expected)}"
        raise _unfit(run, problem)
    for name, leaf in expected.items():
        found = state.params[name]
        if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            problem = f"{name} is {_kind(found)}, and should be {_kind(leaf)}"
            raise _unfit(run, problem)
        if not torch.isfinite(found).all():
            raise _unfit(run, f"{name} has numbers that are not finite")
    size = flatten(state.params).shape
    for name in ("exp_avg", "exp_avg_sq"):  # Adam's, where Adam it was
        if name in state.opt_state and state.opt_state[name].shape != size:
            raise _unfit(run, f"{name} is {_kind(state.opt_state[name])}, and should have {size}")
    return state


def _unfit(run: Run, problem: str) -> UserError:
    return UserError(
        f"the weights in {run.path} are not those of its config ({problem}); restore them from a "
        "copy, or train anew"
    )


def _kind(leaf: torch.Tensor) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def evaluations(run: Run) -> list[str]:
    """The names of a run's evaluations, that of its config, "", first."""
    files = [
        file for folder in (run.path, run.results) for file in folder.glob("evaluation-*.json")
    ]
    named = {file.stem.removeprefix("evaluation-") for file in files}
    if has_two_schedules(run) and _has_step_sizes(run):
        named.add(PAPER)
    return ["", *sorted(named)]


def measured(run: Run, name: str = "") -> Evaluated:
    """The last evaluation of this name of a run's present weights, measured where missing.

    Raises:
        UserError: if it is damaged; or missing, and nobody knows what was to be measured.
    """
    file = f"evaluation{suffix(name)}.json"
    for folder in (run.results, run.path):
        try:
            found = _Evaluation.model_validate_json(read_bounded(folder / file, LARGEST))
            if found.weights_sha256 == run.weights_sha256():
                evaluation = type(run.config.evaluation).model_validate(found.settings)
                config = run.config.model_copy(update={"evaluation": evaluation})
                return Evaluated(run, load_method(config), found.curve)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            if isinstance(error, ValidationError):
                problem = first_mistake(error, file)
            else:
                problem = " ".join(str(error).split())
            asked = f" --name {name}" if name else ""
            raise UserError(
                f"{folder / file} is damaged, or of another version of metarl ({problem}); delete "
                f"it, or measure it anew: metarl evaluate {run.path}{asked}"
            ) from error
    if name not in ("", PAPER):
        raise UserError(
            f"{run.path / file} is of other weights than the run has; delete it, or measure it "
            f"anew: metarl evaluate {run.path} --name {name} --set evaluation.…"
        )
    method = load_method(with_papers_schedule(run) if name else run.config)
    return Evaluated(run, method, measure(run, method, name))


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
