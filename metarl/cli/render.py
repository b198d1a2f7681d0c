"""`metarl render`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot
from matplotlib.animation import FuncAnimation
from rich.console import Console

from metarl.cli.arguments import OTHER_FOLDER
from metarl.errors import UserError
from metarl.io import check_writable, report_os_errors
from metarl.method import load_method
from metarl.progress import print_line, show_status
from metarl.report.adapted_policy import adapt_to_task, policy_method
from metarl.report.plots import plot_classification, plot_fits, plot_paths
from metarl.report.predictions import is_curve, predict_curve, predict_episode
from metarl.report.video import Frame, check_rendering, compose_frames, write_gif, write_mp4
from metarl.runs.run import Run
from metarl.supervised.config import SupervisedConfig


def run(options: argparse.Namespace, console: Console) -> int:
    run = Run.open(options.run, trust_code=options.trust_code)
    out: Path = options.out or run.results
    if not options.live:
        check_writable(out, OTHER_FOLDER, is_folder=True)  # before the evaluation, if there is none
    with report_os_errors(f"cannot write {out}", OTHER_FOLDER):
        if isinstance(run.config, SupervisedConfig):
            with show_status(console, "adapting and plotting"):
                files = _write_plot(run, options, out)
        else:
            files = _write_video(run, options, out, console)
    for file in files:
        print_line(console, f"wrote {file}")
    return 0


def _write_video(run: Run, options: argparse.Namespace, out: Path, console: Console) -> list[Path]:
    if options.live:
        _check_display()  # before the evaluation, which may take minutes
    with show_status(console, "adapting and rendering"):
        check_rendering(policy_method(run).problem.raw_family)
        adapted = adapt_to_task(run, options.task, options.steps)
        title = f"{_title(run)}: {adapted.description}"
        frames, fps = compose_frames(adapted.episodes(), title)
    if options.live:
        _show(frames, fps, title)
        return []
    # the task is part of the name: videos of several tasks stay next to each other
    name = re.sub(r"[^a-z0-9.+-]+", "-", adapted.description.lower()).strip("-")
    files = [out / f"{name}.mp4", out / f"{name}.gif"]
    out.mkdir(parents=True, exist_ok=True)
    with show_status(console, "writing the videos"):
        write_mp4(files[0], frames, fps)
        write_gif(files[1], frames, fps)
    if adapted.has_paths:
        files.append(out / f"{name}.png")
        plot_paths(adapted.paths(), adapted.task, title, files[-1])
    return files


def _write_plot(run: Run, options: argparse.Namespace, out: Path) -> list[Path]:
    if options.live:
        raise UserError(f"{run.path} has no policy to show; omit --live to write a plot")
    if is_curve(load_method(run.config).problem):
        fit = predict_curve(run, options.task, options.steps)
        out.mkdir(parents=True, exist_ok=True)
        plot_fits({_title(run): fit}, fit.description, out / "fit.png")
        return [out / "fit.png"]
    if options.task or options.steps:
        raise UserError(
            f"--task and --steps are for policies and functions of one variable; omit them for "
            f"{run.path}, of which the first episode of the evaluation is plotted if it classifies "
            "images"
        )
    episode = predict_episode(run)
    out.mkdir(parents=True, exist_ok=True)
    plot_classification(episode, _title(run), out / "episode.png")
    return [out / "episode.png"]


def _title(run: Run) -> str:
    method = load_method(run.config)
    return f"{method.label}, {method.problem.title}"


def _check_display() -> None:
    # without a display, matplotlib falls back to agg, whose `show` returns at once
    headless = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if headless or pyplot.get_backend().lower() == "agg":
        raise UserError(
            "--live needs a display and a window toolkit that matplotlib supports (Tk or Qt; pip "
            "install PySide6); omit it to write a video instead"
        )


def _show(frames: Sequence[Frame], fps: float, title: str) -> None:
    """Play the frames in a window, repeatedly, until it is closed."""
    height, width = frames[0].shape[:2]
    # as many pixels as a frame, so that captions are not scaled
    figure = pyplot.figure(title, figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.axis("off")
    image = axes.imshow(frames[0])

    def update(index: int) -> tuple[object]:
        image.set_data(frames[index])
        return (image,)

    animation = FuncAnimation(figure, update, len(frames), interval=1000 / fps, blit=True)  # type: ignore[arg-type]
    pyplot.show()
    del animation  # it must live until the window is closed
