"""Evaluations of runs, stored beside their weights.

`evaluation.json` follows the run's config. Evaluations with other settings, such as step sizes or
numbers of classes, have a name and are stored in `evaluation-NAME.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field, ValidationError

from metarl.config.files import CONFIG
from metarl.config.safe_yaml import as_json
from metarl.config.sections import NonNegativeInt, Source, UnitInterval, first_error
from metarl.errors import UserError
from metarl.evaluation import AdaptationCurve, mean_worst_tasks
from metarl.experiment import AnyConfig, by_full_name, describe_source, set_values, validate_config
from metarl.io import read_bytes, translate_os_errors, write_atomically
from metarl.method import Method, Problem, TrainingState, is_trained, load_method, method_class
from metarl.params import flatten
from metarl.report.captions import stage_name
from metarl.report.plots import plot_adaptation, plot_rewards
from metarl.report.text_tables import csv_table
from metarl.rl.config import Config
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig

PAPER = "paper"  # the name of an evaluation with the step sizes of Finn et al. (2017)
SELECTION = ("step_sizes", "validation_tasks", "selection_step")  # of `baseline`
OF_TASKS = ("evaluation.tasks", "evaluation.seed")
BEST = "best"  # the name of the evaluation of the best parameters, with early stopping
MAX_BYTES = 2**28
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
FileName = Annotated[str, Field(pattern=r"^evaluation[a-z0-9.-]*\.json$")]


class EvaluationFile(BaseModel):
    """The fields of evaluation.json that are read."""

    weights_sha256: str
    settings: dict[str, Any]
    step_sizes: tuple[FiniteFloat, ...]  # learned ones may be negative
    tasks: list[list[FiniteFloat]] | FileName  # the file of the same run that lists them
    scores: list[list[FiniteFloat]]
    episodes: tuple[NonNegativeInt, ...] = ()
    instances: tuple[NonNegativeInt, ...] = ()
    success: list[list[UnitInterval]] | None = None
    rewards: list[list[FiniteFloat | None]] | None = None
    selection: dict[str, Any] = {}  # pydantic copies it

    @property
    def curve(self) -> AdaptationCurve:
        """The adaptation curve.

        Raises:
            ValueError: if there is not one score per task and stage.
        """
        num_tasks = len(self.tasks)
        # from_json derives the fields that older files lack
        curve = AdaptationCurve.from_json(self.model_dump(exclude_unset=True))
        shape = num_tasks, curve.num_stages
        if num_tasks < 2 or curve.tasks.ndim != 2 or curve.scores.shape != shape:
            raise ValueError("there is not one score for each task and stage")
        if curve.success is not None and curve.success.shape != curve.scores.shape:
            raise ValueError("there is not one success rate for each task and stage")
        if curve.rewards is not None and len(curve.rewards) != curve.num_stages:
            raise ValueError("there is not one mean reward for each stage and time step")
        return curve


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run on held-out tasks.

    Attributes:
        run: the run.
        method: its method, with the settings of the evaluation.
        curve: the scores.
        name: of the evaluation; "" is that of the config.
        file: where they are stored.
    """

    run: Run
    method: Method
    curve: AdaptationCurve
    name: str = ""
    file: Path | None = None


def selection_settings(method: Method) -> dict[str, Any]:
    """The settings of `baseline` by which an evaluation selects a step size for fine-tuning.

    Empty for methods that select none.
    """
    config = method.problem.config
    unused = tuple(config.unused_settings())
    values = config.baseline.model_dump(mode="json", include={*SELECTION})
    return {n: value for n, value in values.items() if not f"baseline.{n}".startswith(unused)}


def all_settings_of(method: Method) -> dict[str, Any]:
    """All settings that scores depend on, by full name."""
    settings = by_full_name(method.problem.evaluation_settings, "evaluation.")
    return settings | by_full_name(selection_settings(method), "baseline.")


def file_suffix(name: str) -> str:
    """The suffix of the files of an evaluation, such as `-paper`."""
    return f"-{name}" if name else ""


def evaluate(run: Run, method: Method | None = None, name: str | None = "") -> AdaptationCurve:
    """Evaluate a run, and write evaluation.json, evaluation.csv and adaptation.png.

    Policies also have rewards.png and, where environments report success, success.png.

    Args:
        run: a run with a checkpoint.
        method: its method, with the settings of the evaluation; by default those of its config.
        name: of the evaluation; the files are then called evaluation-NAME.json and so on. None
            writes no files.

    Raises:
        UserError: if the checkpoint is missing or damaged.
    """
    method = method or load_method(run.config)
    problem = method.problem
    problem.check()
    run.check_data_hashes(problem.data_hashes)
    state = load_checked_state(run, method)
    curve = method.evaluate(state.params)
    _check_scores(curve, method)
    unit = method.adaptation_unit
    if problem.config.domain == "rl" and not curve.episodes:  # of a custom method
        per_step = problem.evaluation_settings["episodes_per_task"]
        per_stage = 1 if unit and unit.counts_episodes else per_step
        curve = replace(curve, episodes=tuple(per_stage * k for k in range(curve.scores.shape[1])))
    if name is None:
        return curve
    name = name or default_name(run)  # keep the evaluation of the last weights
    description: dict[str, Any] = {
        "method": run.config.method.name,
        "weights_sha256": run.weights_sha256(),
        "iteration": state.iteration,
        "samples": state.samples,
        "settings": problem.evaluation_settings,
        **({"selection": selection} if (selection := selection_settings(method)) else {}),
        "worst_5_percent": mean_worst_tasks([curve.scores], problem.metric).tolist(),
        **curve.to_json(),
    }
    with translate_os_errors(run.results):
        run.results.mkdir(parents=True, exist_ok=True)
        # one line per key: the scores of hundreds of tasks would fill as many lines
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in description.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_atomically(run.results / f"evaluation{file_suffix(name)}.csv", _csv(problem, curve))
        for metric, summary, plot in (
            (problem.metric, curve.summary, "adaptation"),
            (problem.metric.success, curve.success_summary, "success"),
        ):
            if summary is not None:
                plot_adaptation(
                    {method.label: summary},
                    metric,
                    f"Adaptation: {problem.title}",
                    run.results / f"{plot}{file_suffix(name)}.png",
                    units=[unit],
                    episodes={method.label: curve.episodes}
                    if unit and unit.counts_episodes
                    else None,
                )
        if curve.rewards is not None and curve.rewards.shape[1] > 1:
            plot_rewards(
                {stage_name(k, unit): rewards for k, rewards in enumerate(curve.rewards)},
                f"{method.label}, {problem.title}",
                run.results / f"rewards{file_suffix(name)}.png",
            )
        # last, because a run with this file counts as complete
        write_atomically(run.results / _file(name), text)
    return curve


def _check_scores(curve: AdaptationCurve, method: Method) -> None:
    """Refuse what a method of a user's may return, and no table could summarise."""
    shape = np.shape(curve.scores)
    if len(shape) != 2 or shape[0] != len(curve.tasks) or shape[0] < 2:
        raise UserError(
            f"{method.label}: evaluate() must return scores of shape (N, K + 1) for the N > 1 "
            f"tasks of its curve, not {shape} for {len(curve.tasks)}"
        )
    if shape[1] != curve.num_stages:
        raise UserError(
            f"{method.label}: evaluate() returned scores of {shape[1]} stages, but a curve with "
            f"{curve.num_stages} step sizes, episodes or instances; set one `step_sizes` for each "
            "gradient step, or `episodes` or `instances` for each stage"
        )
    bad = np.argwhere(~np.isfinite(curve.scores))
    if len(bad):
        raise UserError(
            f"{method.label}: the score of task {bad[0][0]} after {bad[0][1]} steps is not finite, "
            f"and {len(bad) - 1} others; lower the step sizes of the evaluation"
        )


def with_evaluation(run: Run, settings: Mapping[str, Any]) -> Run:
    """The run with other settings of its evaluation, such as `{"shots": 5}`.

    Raises:
        UserError: if a setting does not exist, or its value is invalid.
    """
    overrides = [f"evaluation.{name}={as_json(value)}" for name, value in settings.items()]
    if not overrides:
        return run
    values = run.config.model_dump(mode="json")
    set_values(values, overrides)
    source = describe_source(run.path / CONFIG, overrides)
    config = validate_config(values, source, recorded=True, overrides=overrides)
    if isinstance(run.config, SupervisedConfig):
        # a data set that was given in Python is not part of the plain values
        config = config.model_copy(update={"data": run.config.data})
    changed = Run(run.path, run.config, run.results).at("best" if run.uses_best else "last")
    changed.reconfigure(config)
    return changed


def is_complete(run: Run, method: Method) -> bool:
    """Whether a run is trained to its last iteration, and evaluated since.

    An evaluation with any settings counts, unless those of the config have changed since the
    training: a resumed run with changed ones is evaluated again.
    """
    if not run.has_checkpoint() or not is_trained(method, run.load()):
        return False
    if not (stored := stored_evaluation(run)):
        return False
    same_settings = all_settings_of(stored.method) == all_settings_of(method)
    return same_settings or not run.changed_evaluation()


def has_two_schedules(run: Run) -> bool:
    """Whether a run's config sets step sizes other than those of the paper."""
    return isinstance(run.config, Config) and run.config.evaluation.step_sizes is not None


def with_paper_schedule(run: Run) -> AnyConfig:
    """The run's config with the evaluation of Finn et al. (2017): step sizes α, α/2, α/2, ....

    Their batches have a fixed number of time steps instead of episodes.

    Raises:
        UserError: if the run takes no gradient steps, or its schedule is the paper's already.
    """
    if not isinstance(run.config, Config):
        raise UserError(f"{run.path} has no policy: the paper's schedule applies to policies only")
    if not takes_gradient_steps(run):
        raise UserError(
            f"{run.path} takes no gradient steps on a new task (its method is "
            f"{run.config.method.name}): there is no schedule of step sizes to choose"
        )
    if not has_two_schedules(run):
        raise UserError(
            f"the config of {run.path} sets no evaluation.step_sizes: its schedule is the paper's "
            "already"
        )
    evaluation = run.config.evaluation.model_copy(
        update={"step_sizes": None, "batch_unit": "steps"}
    )
    return run.config.model_copy(update={"evaluation": evaluation})


def takes_gradient_steps(run: Run) -> bool:
    """Whether the method of a run takes gradient steps on a new task."""
    unit = method_class(run.config).adaptation_unit
    return unit is not None and unit.has_step_sizes


def load_checked_state(run: Run, method: Method) -> TrainingState:
    """The state of a run's checkpoint, checked against the parameters of its method.

    Raises:
        UserError: if it is missing or damaged, or its tensors don't match the config.
    """
    state, expected = run.load(), method.initial_state().params
    if list(state.params) != list(expected):
        problem = f"they are {', '.join(state.params)}, and should be {', '.join(expected)}"
        raise _mismatch(run, problem)
    for name, leaf in expected.items():
        tensor = state.params[name]
        if (tensor.shape, tensor.dtype) != (leaf.shape, leaf.dtype):
            problem = f"{name} is {_describe(tensor)}, and should be {_describe(leaf)}"
            raise _mismatch(run, problem)
        if not torch.isfinite(tensor).all():
            raise _mismatch(run, f"{name} has numbers that are not finite")
    # of methods that learn some of the parameters otherwise
    outer_params = getattr(method, "outer_params", dict)
    size = flatten(outer_params(state.params)).shape
    for name in ("exp_avg", "exp_avg_sq"):  # the moments of Adam, if that is the outer optimiser
        if name in state.opt_state and state.opt_state[name].shape != size:
            problem = f"{name} is {_describe(state.opt_state[name])}, and should have {size}"
            raise _mismatch(run, problem)
    return state


def _mismatch(run: Run, problem: str) -> UserError:
    return UserError(
        f"the weights in {run.path} don't match its config ({problem}); restore them from a copy, "
        "or train again"
    )


def _describe(leaf: torch.Tensor) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def evaluation_names(run: Run) -> list[str]:
    """The names of a run's evaluations; first "", the evaluation of its config."""
    files = [
        file for folder in (run.path, run.results) for file in folder.glob("evaluation-*.json")
    ]
    names = {file.stem.removeprefix("evaluation-") for file in files}
    if has_two_schedules(run) and takes_gradient_steps(run):
        names.add(PAPER)
    return ["", *sorted(names)]


def load_or_evaluate(run: Run, name: str = "") -> Evaluation:
    """The stored evaluation of a run's current weights; the run is evaluated if there is none.

    Raises:
        UserError: if the file is damaged, or a named evaluation is of other weights.
    """
    name = name or default_name(run)
    if stored := stored_evaluation(run, name):
        return stored
    if name == BEST:
        run = run.at("best")
    elif name not in ("", PAPER):
        # its settings are only known to whoever chose them
        raise UserError(
            f"{run.path / _file(name)} is of other weights than the run has; delete it, or "
            f"evaluate again: metarl evaluate {run.path} --name {name} --set evaluation.…"
        )
    method = load_method(with_paper_schedule(run) if name == PAPER else run.config)
    curve = evaluate(run, method, name)
    return Evaluation(run, method, curve, name, run.results / _file(name))


def own_evaluation(run: Run) -> Evaluation:
    """The evaluation of a run with the settings of its config, whose step sizes a policy takes.

    Another stored evaluation changes nothing, unless it differs in its tasks only. Without a stored
    one, the run is evaluated as by `load_or_evaluate`.

    Raises:
        UserError: if the file is damaged.
    """
    stored, method = stored_evaluation(run), load_method(run.config)
    if stored is None:
        return load_or_evaluate(run)
    settings, own = (
        {k: v for k, v in all_settings_of(each).items() if k not in OF_TASKS}
        for each in (stored.method, method)
    )
    return stored if settings == own else Evaluation(run, method, evaluate(run, method, None))


def stored_evaluation(run: Run, name: str = "") -> Evaluation | None:
    """The stored evaluation of a run's current weights; None if there is none.

    Without a name, that of the parameters of `run`: the best ones if it is `run.at("best")`.

    Raises:
        UserError: if the file is damaged.
    """
    name = name or default_name(run)
    for folder in (run.results, run.path):
        path = folder / _file(name)
        try:
            stored = read_evaluation(folder, path.name)
            if stored.weights_sha256 == run.weights_sha256():
                schema = type(run.config.evaluation)
                source = Source(str(path), recorded=True)
                settings = schema.model_validate(stored.settings, context=source)
                baseline = run.config.baseline
                baseline = baseline.model_validate({**dict(baseline), **stored.selection})
                sections = {"evaluation": settings, "baseline": baseline}
                method = load_method(run.config.model_copy(update=sections))
                return Evaluation(run, method, stored.curve, name, path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            if isinstance(error, ValidationError):
                problem = first_error(error, path.name)
            else:
                problem = " ".join(str(error).split())
            option = f" --name {name}" if name else ""
            raise UserError(
                f"{path} is damaged, or of another version of metarl ({problem}); delete "
                f"it, or evaluate again: metarl evaluate {run.path}{option}"
            ) from error
    return None


def replaced_settings(run: Run, method: Method, name: str = "") -> str:
    """The settings of a stored evaluation that differ from a method's; empty if there is none."""
    try:
        stored = stored_evaluation(run, name)
    except UserError:  # it is damaged, and replaced for that
        stored = None
    before, after = (all_settings_of(stored.method) if stored else {}), all_settings_of(method)
    changed = [name for name in before if before[name] != after.get(name)]
    return ", ".join(f"{n.removeprefix('evaluation.')}={before[n]}" for n in changed)


def default_name(run: Run) -> str:
    """The name of an evaluation that has none of its own."""
    return BEST if run.uses_best else ""


def _file(name: str) -> str:
    return f"evaluation{file_suffix(name)}.json"


def read_evaluation(folder: Path, file: str) -> EvaluationFile:
    """An evaluation with its tasks, also where another file lists them; ValueError if damaged."""
    stored = EvaluationFile.model_validate_json(read_bytes(folder / file, MAX_BYTES))
    if isinstance(stored.tasks, str):
        other = EvaluationFile.model_validate_json(read_bytes(folder / stored.tasks, MAX_BYTES))
        if isinstance(other.tasks, str):
            raise ValueError(f"{stored.tasks} does not list its tasks")
        stored.tasks = other.tasks
    return stored


def steps_to_show(
    run: Run, last: int, steps: Sequence[int] | None, default: Sequence[int], setting: str
) -> list[int]:
    """The numbers of adaptation steps that a plot or a video shows, in order.

    Args:
        run: the run, for messages.
        last: the number of steps of its evaluation.
        steps: chosen by the user, if any.
        default: used otherwise, as far as the evaluation goes.
        setting: the setting that increases the number of steps, for messages.

    Raises:
        UserError: if the evaluation has fewer steps.
    """
    if steps is None:
        steps = [step for step in default if step <= last]
    if max(steps) > last or min(steps) < 0:
        raise UserError(
            f"--steps must be between 0 and {last}, the number of steps in the evaluation of "
            f"{run.path}; for more, run: metarl evaluate RUN --set {setting}"
        )
    return sorted(set(steps))


def _csv(problem: Problem, curve: AdaptationCurve) -> str:
    """One row per task: its description, and its score and success after 0...K steps."""
    columns = {problem.metric.name: curve.scores}
    if curve.success is not None:
        columns[problem.metric.success.name] = curve.success
    return csv_table(
        [
            {"task": problem.describe(task)}
            | {
                f"{name}_after_{k}_steps": score
                for name, scores in columns.items()
                for k, score in enumerate(scores[index].tolist())
            }
            for index, task in enumerate(curve.tasks)
        ]
    )
