"""One HTML page that holds everything: table, curves, videos, configs. It needs no network."""

import base64
import tempfile
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metarl.method import load_method
from metarl.runs.adapted_policy import adapt_to_task
from metarl.runs.comparison import Entry, draw, meaning, rows
from metarl.runs.config import dump_config
from metarl.runs.plots import plot_classification, plot_fits, plot_paths
from metarl.runs.predictions import classify, fit, shows_sinusoids
from metarl.runs.run import Run
from metarl.runs.video import side_by_side, write_mp4
from metarl.supervised.config import SupervisedConfig

SVG = "image/svg+xml"


def report(entries: Sequence[Entry]) -> str:
    """The page as text.

    Args:
        entries: a comparison; the first run of each entry is filmed, or drawn.

    Raises:
        RuntimeError: if nothing can be rendered here, with what to install.
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(entries, Path(folder), "svg")
        plots = [{"alt": shown, "data": _data(path, SVG)} for shown, (path,) in drawn.items()]
        sections = [_section(entry, Path(folder)) for entry in entries]
    template = resources.files("metarl.runs").joinpath("report.html").read_text()
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    return page.render(
        title=entries[0].method.problem.title,
        settings=_settings(entries[0].runs[0]),
        rows=rows(entries),
        meaning=meaning(entries),
        plots=plots,
        sections=sections,
        version=version("metarl-maml"),
    )


def _settings(run: Run) -> dict[str, object]:
    """What the tasks are."""
    if isinstance(run.config, SupervisedConfig):
        return run.config.data.model_dump()
    return run.config.family.settings


def _section(entry: Entry, folder: Path) -> dict[str, object]:
    run = entry.runs[0]
    return {
        "label": entry.label,
        **(
            _picture(run, folder)
            if isinstance(run.config, SupervisedConfig)
            else _video(run, folder)
        ),
        "runs": [
            {
                "path": str(one.path),
                "seed": one.config.seed,
                "updates": one.load().iteration,
                "commit": one.commit() or "not recorded",
            }
            for one in entry.runs
        ],
        "config": dump_config(run.config),
    }


def _picture(run: Run, folder: Path) -> dict[str, object]:
    """What a network says of one task."""
    file = folder / "picture.svg"
    if shows_sinusoids(run):
        seen = fit(run)
        plot_fits({load_method(run.config).label: seen}, "", file)
        description = seen.description
    else:
        episode = classify(run)
        plot_classification(episode, "", file)
        description = episode.description
    return {"task": description, "video": None, "picture": _data(file, SVG)}


def _video(run: Run, folder: Path) -> dict[str, object]:
    """What a policy does in one task.

    Raises:
        RuntimeError: if nothing can be rendered here, with what to install.
    """
    adapted = adapt_to_task(run)
    frames, fps = side_by_side(adapted.episodes(), adapted.description)
    video = folder / "video.mp4"
    write_mp4(video, frames, fps)
    picture = None
    if adapted.shows_paths:
        file = folder / "paths.svg"
        plot_paths(adapted.paths(), adapted.task, f"Paths: {adapted.description}", file)
        picture = _data(file, SVG)
    return {"task": adapted.description, "video": _data(video, "video/mp4"), "picture": picture}


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
