"""What `metarl render` does: a policy is filmed, what a network says is drawn."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metarl.errors import UserError
from metarl.method import load_method
from metarl.progress import working
from metarl.report.adapted_policy import adapt_to_task
from metarl.report.plots import plot_classification, plot_fits, plot_paths
from metarl.report.predictions import is_sinusoid, predict_episode, predict_wave
from metarl.report.video import Frame, compose_frames, write_gif, write_mp4
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig


def render(options: argparse.Namespace, console: Console) -> int:
    """Write films or pictures, or show them in a window; `metarl render --help` says which."""
    run = Run.open(options.run, trust_code=options.trust_code)
    out: Path = options.out or run.results
    try:
        if isinstance(run.config, SupervisedConfig):
            with working(console, "adapting and drawing"):
                files = _draw(run, options, out)
        else:
            files = _film(run, options, out, console)
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror or error}); name another directory with --out"
        ) from error
    for file in files:
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    return 0


def _film(run: Run, options: argparse.Namespace, out: Path, console: Console) -> list[Path]:
    if options.live:
        _check_display()
    with working(console, "adapting and filming"):
        adapted = adapt_to_task(run, options.task, options.steps)
        title = f"{_title(run)}: {adapted.description}"
        try:
            frames, fps = compose_frames(adapted.episodes(), title)
        except RuntimeError as error:
            raise UserError(str(error)) from error
    if options.live:
        _show(frames, fps, title)
        return []
    name = re.sub(r"[^a-z0-9.+-]+", "-", adapted.description.lower()).strip("-")
    files = [out / f"{name}.mp4", out / f"{name}.gif"]
    out.mkdir(parents=True, exist_ok=True)
    with working(console, "writing the videos"):
        write_mp4(files[0], frames, fps)
        write_gif(files[1], frames, fps)
    if adapted.has_paths:
        files.append(out / f"{name}.png")
        plot_paths(adapted.paths(), adapted.task, title, files[-1])
    return files


def _draw(run: Run, options: argparse.Namespace, out: Path) -> list[Path]:
    if options.live:
        raise UserError(f"{run.path} moves nothing: leave --live out, and look at the picture")
    if is_sinusoid(run):
        seen = predict_wave(run, options.task, options.steps)
        out.mkdir(parents=True, exist_ok=True)
        plot_fits({_title(run): seen}, seen.description, out / "fit.png")
        return [out / "fit.png"]
    if options.task or options.steps:
        raise UserError(
            f"{run.path} is about images, of which the first episode of the evaluation is drawn: "
            "leave --task and --steps out"
        )
    episode = predict_episode(run)
    out.mkdir(parents=True, exist_ok=True)
    plot_classification(episode, _title(run), out / "episode.png")
    return [out / "episode.png"]


def _title(run: Run) -> str:
    method = load_method(run.config)
    return f"{method.label}, {method.problem.title}"


def _check_display() -> None:
    from matplotlib import pyplot

    headless = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if headless or pyplot.get_backend().lower() == "agg":
        raise UserError(
            "--live needs a display and a window toolkit that matplotlib knows (Tk or Qt; pip "
            "install PySide6); leave it away to write a video instead"
        )


def _show(frames: Sequence[Frame], fps: float, title: str) -> None:
    """Play the frames in a window, over and over, until it is closed."""
    from matplotlib import pyplot
    from matplotlib.animation import FuncAnimation

    height, width = frames[0].shape[:2]
    figure = pyplot.figure(title, figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    image = axes.imshow(frames[0])

    def update(index: int) -> tuple[object]:
        image.set_data(frames[index])
        return (image,)

    animation = FuncAnimation(figure, update, len(frames), interval=1000 / fps, blit=True)  # type: ignore[arg-type]
    pyplot.show()
    del animation  # matplotlib plays it only as long as somebody holds it
