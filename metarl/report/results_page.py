"""One page of results, made from run directories: what is on it was measured, not typed.

A section a family of tasks: a table beside the published figures, a picture of adaptation and of
training, how each run was made, and what a person concludes from it, out of a file of notes. Data
with several sections, such as of 5 and of 20 classes, have one more before them, with all methods.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, StrictUndefined

from metarl.experiment import SEED, AnyConfig, flat
from metarl.files import storing
from metarl.report.comparison import by_episodes, training_curves, units_of
from metarl.report.evaluations import Evaluated
from metarl.report.groups import Entry, experiments, gathered, other_evaluation, short_names
from metarl.report.paired import better, paired
from metarl.report.plots import plot_summary, units_label
from metarl.report.published import Published, estimates, published
from metarl.report.reproduce_command import command
from metarl.report.results_overview import overview
from metarl.report.results_table import results_rows, with_minus
from metarl.rl.config import Config
from metarl.runs.run import Run
from metarl.supervised.tasks import Data

INTRODUCTION = "introduction"


@dataclass(frozen=True)
class Section:
    """Experiments on the same tasks.

    Attributes:
        title: its heading.
        settings: of the tasks, as far as the title does not tell them.
        groups: the experiments, those that were evaluated alike together.
        known: what was published of these tasks.
    """

    title: str
    settings: str
    groups: list[list[Entry]]
    known: Published | None

    @property
    def entries(self) -> list[Entry]:
        """The experiments, as they are compared at first."""
        return self.groups[0]

    @property
    def slug(self) -> str:
        """The name of its picture and of its notes."""
        return _slug(self.title)


def write_page(evaluated: Sequence[Evaluated], page: Path, notes: Path | None) -> list[Path]:
    """Write the page, and a picture for each of its sections into a folder of the page's name.

    Args:
        evaluated: what is to be on it; those of a run's config before others.
        page: the Markdown file. One that is there already is replaced.
        notes: a folder with what people say: `introduction.md`, and a file for each section, by the
            name of its picture. A file of another name is a section of its own, at the end. None
            where nobody says anything.

    Returns:
        What was written.

    Raises:
        UserError: if a run's files are damaged, or runs saw other images under the same name.
        StorageError: if something cannot be written.
    """
    files = sorted(notes.glob("*.md")) if notes else []
    said = {file.stem: file.read_text().strip() for file in files}
    introduction = said.pop(INTRODUCTION, "")
    runs = {each.run.path: each.run for each in evaluated}
    names = short_names(list(runs))
    made = {path: _made(run, names) for path, run in runs.items()}
    folder = page.parent / page.stem
    titles: list[str] = []
    pictures: list[Path] = []
    kinds: list[dict[str, Any]] = []
    # sections of the same data, or of a family with other settings, follow one another
    for related in gathered(gathered(evaluated, _same_tasks), _same_kind):
        # the one that was published bears the plain title
        related.sort(key=lambda section: published(section[0].method.problem) is None)
        sections: list[Section] = []
        for of_tasks in related:
            sections.append(_section(of_tasks, titles))
            titles.append(sections[-1].title)
        described = []
        for section in sections:
            picture = folder / f"{section.slug}.png"
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _draw(section, picture)
            pictures.append(picture)
            shown = {"picture": picture.relative_to(page.parent).as_posix()}
            conclusion = {"notes": said.pop(section.slug, "")}
            described.append(_described(section, made) | shown | conclusion)
        kind: dict[str, Any] = {"name": _kind(related[0]), "sections": described}
        if len(sections) > 1 and related[0][0].run.config.domain == "supervised":
            columns = [(section.entries, section.known) for section in sections]
            kind["overview"] = with_minus(overview(columns))
            kind["notes"] = said.pop(_slug(kind["name"]), "")
        kinds.append(kind)
    template = resources.files("metarl.report").joinpath("results_page.md").read_text()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(template).render(
        introduction=introduction, kinds=kinds, rest=list(said.values())
    )
    with storing(page):
        page.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
    return [page, *pictures]


def _section(of_tasks: Sequence[Evaluated], taken: Collection[str]) -> Section:
    """What there is of the same tasks; `taken` are the titles of other sections.

    Raises:
        UserError: if its runs saw other images under the same name.
    """
    first, *others = of_tasks
    for other in others:
        other.run.check_data_hashes(first.run.data_hashes())
    groups = [experiments(group) for group in gathered(of_tasks, _same_protocol)]
    problem = groups[0][0].method.problem
    title, settings = problem.title, _tasks(groups[0][0].runs[0].config)
    if title in taken:  # such as with other dynamics
        title += f", {settings}"
    return Section(title, settings, groups, published(problem))


def _described(section: Section, made: Mapping[Path, Mapping[str, str]]) -> dict[str, str]:
    """What the page says of a section; `made` is how each run was, by its path."""
    found = [each for group in section.groups for each in paired(group)]
    paths = [run.path for group in section.groups for entry in group for run in entry.runs]
    return {
        "title": section.title,
        "settings": section.settings,
        "axis": section.entries[0].method.problem.metric.axis,
        "counted": units_label(units_of(section.entries)),
        "table": with_minus(results_rows(section.groups, section.known, found)),
        "better": " ".join(dict.fromkeys(map(better, found))),
        "source": section.known.source if section.known else "",
        "runs": with_minus([made[path] for path in dict.fromkeys(paths)]),
    }


def _kind(section: Sequence[Evaluated]) -> str:
    """The name of a section's data, or of its family of tasks."""
    config = section[0].run.config
    return config.family.name if isinstance(config, Config) else cast(Data, config.data).name


def _same_kind(sections: Sequence[Sequence[Evaluated]], other: Sequence[Evaluated]) -> bool:
    return _kind(sections[0]) == _kind(other)


def _same_tasks(section: Sequence[Evaluated], other: Evaluated) -> bool:
    first = section[0]
    same_title = first.method.problem.title == other.method.problem.title
    return same_title and _tasks(first.run.config) == _tasks(other.run.config)


def _same_protocol(group: Sequence[Evaluated], other: Evaluated) -> bool:
    """Whether it was evaluated alike; of a run that is there, other step sizes are another one."""
    there = [each.run for each in group]
    return other.run not in there and not other_evaluation(group[0].method, other.method)


def _slug(title: str) -> str:
    """A title as the name of a file, such as `point-navigation`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _tasks(config: AnyConfig) -> str:
    """What the tasks are, but for what their title tells."""
    settings = flat(config.model_dump(mode="json"))
    told = {
        name.rpartition(".")[2]: value
        for name, value in settings.items()
        if name.startswith(("family.settings.", "data."))
        and name not in (*SEED, "data.name", "data.ways")
    }
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _made(run: Run, names: Mapping[Path, str]) -> dict[str, str]:
    """How a run was made."""
    description = run.checkpoint().description
    return {
        "run": names[run.path],
        "command": f"`{command(run.config)}`",
        "updates": str(description.iteration),
        "hardware": description.machine or "not recorded",
        "commit": f"`{description.commit[:9]}`" if description.commit else "not recorded",
    }


def _draw(section: Section, picture: Path) -> None:
    entries, known = section.entries, section.known
    problem = entries[0].method.problem
    used = {entry.label: entry.curves[0].episodes for entry in entries}
    row = known.rows.get("MAML") if known else None
    plot_summary(
        {entry.label: entry.summary for entry in entries},
        {entry.label: training_curves(entry) for entry in entries},
        problem.metric,
        problem.title,
        picture,
        counted=units_of(entries),
        episodes=used if by_episodes(entries) else None,
        published=estimates(row) if row else None,
    )
