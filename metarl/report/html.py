"""A self-contained HTML report: tables, plots, videos and configs in one file."""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metarl.experiment import dump_config
from metarl.method import EPISODES, INSTANCES, load_method
from metarl.report.adapted_policy import adapt_to_task
from metarl.report.comparison import tables, write_plots
from metarl.report.groups import ExperimentGroup, short_names
from metarl.report.plots import plot_classification, plot_fits, plot_paths
from metarl.report.predictions import has_images, is_curve, predict_curve, predict_episode
from metarl.report.video import compose_frames, write_mp4
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig

SVG = "image/svg+xml"


def html_report(comparisons: Sequence[Sequence[ExperimentGroup]]) -> str:
    """The report as HTML, with one section for each comparison.

    Videos and plots of predictions show the first run of every experiment.

    Raises:
        UserError: if rendering is not available; the message says what to install.
    """
    runs = [run for groups in comparisons for group in groups for run in group.runs]
    names = short_names([run.path for run in runs])
    with tempfile.TemporaryDirectory() as folder:
        families = [_family_context(groups, names, Path(folder)) for groups in comparisons]
    template = resources.files("metarl.report").joinpath("report.html").read_text(encoding="utf-8")
    # names and settings of runs are of unknown origin: they must not add scripts to the page
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    return page.render(families=families, version=version("metarl-maml"))


def _family_context(
    groups: Sequence[ExperimentGroup], names: Mapping[Path, str], folder: Path
) -> dict[str, object]:
    plots, config = write_plots(groups, folder, "svg"), groups[0].runs[0].config
    settings = (
        config.data.model_dump() if isinstance(config, SupervisedConfig) else config.family.settings
    )
    return {
        "title": groups[0].method.problem.title,
        # threads belong to the machine, not to the tasks
        "settings": {name: value for name, value in settings.items() if name != "num_threads"},
        "tables": [{"rows": table, "caption": caption} for table, caption in tables(groups)],
        # in the order of the groups, each sentence once
        "adaptation": [*dict.fromkeys(describe_adaptation(group) for group in groups)],
        "plots": [{"alt": name, "data": _data_url(path, SVG)} for name, (path,) in plots.items()],
        "methods": [_method_context(group, names, folder) for group in groups],
    }


def describe_adaptation(group: ExperimentGroup) -> str:
    """An explanation of one step of an experiment's adaptation."""
    unit, curve = group.method.adaptation_unit, group.curves[0]
    if unit is None:
        return f"{group.label} does not adapt: its score is the one before adaptation."
    if unit is EPISODES:
        return (
            f"{group.label} adapts by its memory, which it carries from one episode of the new "
            "task to the next; its weights don't change."
        )
    if unit is INSTANCES:
        return (
            f"{group.label} adapts by its memory. It receives the images of the new task one by "
            "one, each with the label of the one before. A step is one more image of each class; "
            "the weights don't change. It is evaluated on other images of the same classes, each "
            "with the memory of that step."
        )
    if isinstance(group.runs[0].config, SupervisedConfig):
        return (
            "A gradient step on a new task: the parameters move by the step size along the "
            "negative gradient of the loss on the labelled support examples. The network is "
            "evaluated on other examples of the same task."
        )
    return (
        f"A gradient step on a new task: the policy collects {curve.episodes[1]} episodes of a "
        "held-out task, and its parameters move by the step size along the policy gradient that "
        "is estimated from them. The return after the step is that of new episodes."
    )


def _method_context(
    group: ExperimentGroup, names: Mapping[Path, str], folder: Path
) -> dict[str, object]:
    first = group.runs[0]
    is_supervised = isinstance(first.config, SupervisedConfig)
    return {
        "label": group.label,
        **(_prediction_context(first, folder) if is_supervised else _video_context(first, folder)),
        "runs": [
            {
                "name": names[run.path],
                "seed": run.config.seed,
                "updates": run.description().iteration,
                "commit": (run.commit() or "not recorded")[:12],
            }
            for run in group.runs
        ],
        "config": dump_config(first.config),
    }


def _prediction_context(run: Run, folder: Path) -> dict[str, object]:
    """A plot of a network's predictions on one task, where there is one for its data."""
    file = folder / "predictions.svg"
    problem = load_method(run.config).problem
    if is_curve(problem):
        fit = predict_curve(run)
        plot_fits({load_method(run.config).label: fit}, "", file)
        description = fit.description
    elif has_images(problem):
        episode = predict_episode(run)
        plot_classification(episode, "", file)
        description = episode.description
    else:
        return {"task": f"{problem.title} (no plot)", "videos": [], "picture": None}
    return {"task": description, "videos": [], "picture": _data_url(file, SVG)}


def _video_context(run: Run, folder: Path) -> dict[str, object]:
    """One video per stage of adaptation, so that the page can wrap them."""
    adapted = adapt_to_task(run)
    episodes = adapted.episodes()
    # videos of one length loop together
    length = max(len(episode.frames) for episode in episodes.values())
    file, videos = folder / "video.mp4", []
    for stage, episode in episodes.items():
        write_mp4(file, *compose_frames({stage: episode}, adapted.description, length))
        videos.append({"alt": stage, "data": _data_url(file, "video/mp4")})
    picture = None
    if adapted.has_paths:
        file = folder / "paths.svg"
        plot_paths(adapted.paths(), adapted.task, f"Paths: {adapted.description}", file)
        picture = _data_url(file, SVG)
    return {"task": adapted.description, "videos": videos, "picture": picture}


def _data_url(path: Path, kind: str) -> str:
    # in the page itself, which can be sent as one file
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
