"""One HTML page that holds everything: table, curves, videos, configs. It needs no network."""

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
from metarl.report.comparison import draw, tables
from metarl.report.groups import Entry, short_names
from metarl.report.plots import plot_classification, plot_fits, plot_paths
from metarl.report.predictions import classify, fit, shows_pictures, shows_sinusoids
from metarl.report.video import side_by_side, write_mp4
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig

SVG = "image/svg+xml"


def report(comparisons: Sequence[Sequence[Entry]]) -> str:
    """The page as text.

    Args:
        comparisons: a section each, of one family of tasks; the first run of every entry is filmed,
            or drawn.

    Raises:
        RuntimeError: if nothing can be rendered here, with what to install.
    """
    runs = [run for entries in comparisons for entry in entries for run in entry.runs]
    names = short_names([run.path for run in runs])
    with tempfile.TemporaryDirectory() as folder:
        families = [_family(entries, names, Path(folder)) for entries in comparisons]
    template = resources.files("metarl.report").joinpath("report.html").read_text()
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    return page.render(families=families, version=version("metarl-maml"))


def _family(entries: Sequence[Entry], names: Mapping[Path, str], folder: Path) -> dict[str, object]:
    drawn = draw(entries, folder, "svg")
    return {
        "title": entries[0].method.problem.title,
        "settings": _settings(entries[0].runs[0]),
        "tables": [{"rows": table, "meaning": said} for table, said in tables(entries)],
        "adaptation": [*dict.fromkeys(adaptation(entry) for entry in entries)],
        "plots": [{"alt": shown, "data": _data(path, SVG)} for shown, (path,) in drawn.items()],
        "methods": [_method(entry, names, folder) for entry in entries],
    }


def adaptation(entry: Entry) -> str:
    """What a step of an entry's adaptation is, in a sentence or two."""
    unit, curve = entry.method.adaptation_unit, entry.curves[0]
    if unit is None:
        return f"{entry.label} does not adapt: its score stands before any step."
    if unit is EPISODES:
        return (
            f"An episode of {entry.label} leaves the weights as they are: the policy carries its "
            "memory from one episode of the new task to the next."
        )
    if unit is INSTANCES:
        return (
            f"{entry.label} sees the new task image by image, each with the label of the one "
            "before, and keeps in its memory what it needs: a stage is one more image of each "
            "class. Its weights stay as they are. It is measured on other images of the same "
            "classes, each alone with the memory as it is then."
        )
    if isinstance(entry.runs[0].config, SupervisedConfig):
        return (
            "A gradient step on a new task: the network is shown the few labelled examples of the "
            "task, and its parameters move by the step size along the gradient that lowers the "
            "loss on them. It is measured on other examples of the same task."
        )
    return (
        f"A gradient step on a new task: the policy plays {curve.episodes[1]} episodes of a task "
        "that it never saw, and its parameters move by the step size along the policy gradient, "
        "the direction in which these episodes say that the return grows. The return after the "
        "step is that of new episodes."
    )


def _settings(run: Run) -> dict[str, object]:
    """What the tasks are."""
    if isinstance(run.config, SupervisedConfig):
        return run.config.data.model_dump()
    settings = run.config.family.settings
    return {name: value for name, value in settings.items() if name != "num_threads"}


def _method(entry: Entry, names: Mapping[Path, str], folder: Path) -> dict[str, object]:
    run = entry.runs[0]
    return {
        "label": entry.label,
        **(
            _picture(run, folder)
            if isinstance(run.config, SupervisedConfig)
            else _videos(run, folder)
        ),
        "runs": [
            {
                "name": names[one.path],
                "seed": one.config.seed,
                "updates": one.load().iteration,
                "commit": (one.commit() or "not recorded")[:12],
            }
            for one in entry.runs
        ],
        "config": dump_config(run.config),
    }


def _picture(run: Run, folder: Path) -> dict[str, object]:
    """What a network says of one task."""
    file = folder / "picture.svg"
    problem = load_method(run.config).problem
    if not shows_sinusoids(run) and not shows_pictures(problem):
        return {"task": f"of {problem.title}, not drawn", "video": None, "picture": None}
    if shows_sinusoids(run):
        seen = fit(run)
        plot_fits({load_method(run.config).label: seen}, "", file)
        description = seen.description
    else:
        episode = classify(run)
        plot_classification(episode, "", file)
        description = episode.description
    return {"task": description, "videos": [], "picture": _data(file, SVG)}


def _videos(run: Run, folder: Path) -> dict[str, object]:
    """What a policy does in one task: a video for each stage, so that a page may wrap them.

    Raises:
        RuntimeError: if nothing can be rendered here, with what to install.
    """
    adapted = adapt_to_task(run)
    episodes = adapted.episodes()
    longest = max(len(episode.frames) for episode in episodes.values())
    video, videos = folder / "video.mp4", []
    for stage, episode in episodes.items():
        write_mp4(video, *side_by_side({stage: episode}, adapted.description, longest))
        videos.append({"alt": stage, "data": _data(video, "video/mp4")})
    picture = None
    if adapted.shows_paths:
        file = folder / "paths.svg"
        plot_paths(adapted.paths(), adapted.task, f"Paths: {adapted.description}", file)
        picture = _data(file, SVG)
    return {"task": adapted.description, "videos": videos, "picture": picture}


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
