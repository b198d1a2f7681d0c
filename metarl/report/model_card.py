"""A run as others get it: its files, and a model card that says what it is and how good."""

import shutil
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from metarl.experiment import dump_config
from metarl.files import storing
from metarl.report.comparison import draw, markdown
from metarl.report.groups import compare
from metarl.report.reproduce_command import command
from metarl.runs.hub import FILES
from metarl.runs.run import Run


def write_model(run: Run, folder: Path, name: str) -> None:
    """Copy what a run is of, and write README.md and its pictures beside it.

    A run that was not evaluated yet is evaluated.

    Args:
        run: with a checkpoint.
        folder: an empty one.
        name: under which others find it, `USER/NAME`.

    Raises:
        UserError: if the run is damaged.
        StorageError: if something cannot be written.
    """
    entries = compare([run])
    method, description = entries[0].method, run.checkpoint().description
    with storing(folder):
        for pattern in FILES:
            # those of a run that comes with the package are evaluated elsewhere
            for file in {
                path.name: path for place in (run.path, run.results) for path in place.glob(pattern)
            }.values():
                if file.suffix != ".safetensors" or file.name == description.weights:
                    shutil.copyfile(file, folder / file.name)
        pictures = draw(entries, folder, "png")
    template = resources.files("metarl.report").joinpath("model_card.md").read_text()
    page = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(template)
    text = page.render(
        name=name,
        method=method.label,
        title=method.problem.title,
        policy=method.problem.config.domain == "rl",
        table=markdown(entries),
        pictures={shown: file.name for shown, (file,) in pictures.items()},
        command=command(run.config),
        updates=description.iteration,
        commit=description.commit or "not recorded",
        config=dump_config(run.config),
    )
    with storing(folder):
        (folder / "README.md").write_text(text)
