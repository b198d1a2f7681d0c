"""A run prepared for publication: its files and a model card."""

import shutil
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metarl.experiment import dump_config
from metarl.io import translate_os_errors, write_atomically
from metarl.report.comparison import markdown, write_plots
from metarl.report.groups import compare
from metarl.report.reproduce_command import reproduce_command
from metarl.runs.hub import FILES
from metarl.runs.run import Run


def write_model(run: Run, folder: Path, name: str) -> None:
    """Copy a run's files for the repository `USER/NAME`, and write README.md and its plots.

    Raises:
        UserError: if the run is damaged or being trained.
        StorageError: if a file cannot be written.
    """
    run.check_idle()
    groups = compare([run])
    method, description = groups[0].method, run.checkpoint().description
    with translate_os_errors(folder):
        for pattern in FILES:
            # evaluations of shipped runs are in another directory
            places = [path for place in (run.path, run.results) for path in place.glob(pattern)]
            for file in {path.name: path for path in places}.values():
                # while a run is trained, there may be weights of two iterations
                if file.suffix != ".safetensors" or file.name == description.weights:
                    shutil.copyfile(file, folder / file.name)
        plots = write_plots(groups, folder, "png")
    template = (
        resources.files("metarl.report").joinpath("model_card.md").read_text(encoding="utf-8")
    )
    page = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(template)
    text = page.render(
        name=name,
        method=method.label,
        title=method.problem.title,
        policy=method.problem.config.domain == "rl",
        table=markdown(groups),
        pictures={alt: file.name for alt, (file,) in plots.items()},
        command=reproduce_command(run.config, Path()),
        updates=description.iteration,
        commit=description.commit or "not recorded",
        config=dump_config(run.config),
    )
    with translate_os_errors(folder):
        write_atomically(folder / "README.md", text)
