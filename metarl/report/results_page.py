"""The results pages in Markdown, made from run directories and a folder of notes.

The first page has the overview tables, one of all policies and one of each data set; all scores
are also written as leaderboard.csv and leaderboard.json. Every family
of tasks has its own page: a table with the published figures, a plot of adaptation and training,
hand-written notes, and, folded away, every seed and the commands that made the runs.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, StrictUndefined
from PIL import Image

from metarl.experiment import SEED_INDEPENDENT, AnyConfig, all_settings
from metarl.io import translate_os_errors, write_atomically
from metarl.report.captions import units_label
from metarl.report.comparison import units_of
from metarl.report.evaluations import Evaluation
from metarl.report.groups import (
    ExperimentGroup,
    evaluation_differences,
    group_by,
    group_experiments,
    same_evaluation,
    same_experiment,
    short_names,
)
from metarl.report.leaderboard import leaderboard_entries, write_leaderboard
from metarl.report.paired import paired_differences, sign_note
from metarl.report.plots import plot_summary
from metarl.report.published import Published, estimates, find_published
from metarl.report.reproduce_command import reproduce_command
from metarl.report.results_overview import Column, overview_rows
from metarl.report.results_table import results_markdown, results_tables
from metarl.report.training_curves import training_curves
from metarl.rl.config import Config
from metarl.runs.run import Run
from metarl.supervised.tasks import Data

INTRODUCTION, POLICIES = "introduction", "Policies"


@dataclass(frozen=True)
class Section:
    """Experiments on the same tasks.

    Attributes:
        title: the heading.
        settings: of the tasks, apart from those that the title names.
        protocols: the experiments by evaluation protocol.
        published: the published results for these tasks.
    """

    title: str
    settings: str
    protocols: list[list[ExperimentGroup]]
    published: Published | None

    @property
    def groups(self) -> list[ExperimentGroup]:
        """The experiments of the first protocol: the one that is plotted."""
        return self.protocols[0]

    @property
    def slug(self) -> str:
        """The file name, without ending, of its plot and its notes."""
        return _slug(self.title)


def write_page(evaluations: Sequence[Evaluation], page: Path, notes: Path | None) -> list[Path]:
    """Write the page, and into a folder named after it a page and plots for each family.

    Args:
        evaluations: what the pages show; those that follow a run's config before others.
        page: the Markdown file; an existing one is replaced.
        notes: a folder with `introduction.md`, one file per section, named like its plot, and one
            per data set. A file with another name becomes a section at the end of the first page.

    Returns:
        The files that were written.

    Raises:
        UserError: if a run is damaged, or runs used different images under the same name.
        StorageError: if a file cannot be written.
    """
    files = sorted(notes.glob("*.md")) if notes else []
    texts = {file.stem: file.read_text(encoding="utf-8").strip() for file in files}
    introduction = texts.pop(INTRODUCTION, "")
    runs = {evaluation.run.path: evaluation.run for evaluation in evaluations}
    names = short_names(list(runs))
    provenance = {path: _provenance(run, names) for path, run in runs.items()}
    folder = page.parent / page.stem
    titles: list[str] = []
    written = [page]
    columns: dict[str, list[Column]] = {}  # of the overview tables, by their title
    leaderboard: list[dict[str, Any]] = []
    # sections on the same data set, or on one family with different settings, are on one page
    for related in group_by(group_by(evaluations, _same_tasks), _same_kind):
        # the section with published results has the plain title
        related.sort(key=lambda section: find_published(section[0].method.problem) is None)
        name, contexts = _kind(related[0]), []
        family_page = folder / f"{_slug(name)}.md"
        for evaluations_of_tasks in related:
            section = _section(evaluations_of_tasks, titles)
            titles.append(section.title)
            plot = folder / f"{section.slug}.png"
            with translate_os_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _plot(section, plot)
            context = _template_context(section, provenance)
            contexts.append(context | {"notes": texts.pop(section.slug, ""), "picture": plot.name})
            is_policy = section.groups[0].runs[0].config.domain == "rl"
            heading = f"[{section.title}]({family_page.relative_to(page.parent).as_posix()})"
            groups = [group for protocol in section.protocols for group in protocol]
            column = (heading, groups, section.published)
            leaderboard += leaderboard_entries(
                section.title, section.settings, groups, section.published
            )
            columns.setdefault(POLICIES if is_policy else name, []).append(column)
            written.append(plot)
        notes_of_kind = texts.pop(_slug(name), "")
        text = _rendered("results_family.md", name=name, notes=notes_of_kind, sections=contexts)
        written.append(_write(family_page, text))
    overviews = [
        {
            "title": title,
            "axis": table[0][1][0].method.problem.metric.axis.capitalize(),
            "table": results_markdown(overview_rows(table)),
        }
        for title, table in columns.items()
    ]
    text = _rendered(
        "results_page.md",
        introduction=introduction,
        policies=POLICIES,
        overviews=overviews,
        folder=folder.name,
        rest=list(texts.values()),
    )
    _write(page, text)
    return written + write_leaderboard(leaderboard, folder)


def _rendered(template: str, **context: Any) -> str:
    text = resources.files("metarl.report").joinpath(template).read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    lines = environment.from_string(text).render(**context)
    # empty parts of a template leave blank lines, which end a list or table in Markdown
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _write(file: Path, text: str) -> Path:
    with translate_os_errors(file.parent):
        write_atomically(file, text)
    return file


def _section(evaluations: Sequence[Evaluation], titles: Collection[str]) -> Section:
    """The section of evaluations on the same tasks; `titles` are those of earlier sections."""
    first, *others = evaluations
    for other in others:
        other.run.check_data_hashes(first.run.data_hashes())
    # scores compare only within a protocol: the same tasks, episodes and step sizes
    protocols = [group_experiments(group) for group in group_by(evaluations, _same_protocol)]
    problem = protocols[0][0].method.problem
    title, settings = problem.title, _task_settings(protocols[0][0].runs[0].config)
    if title in titles:  # the same family with other settings
        title += f", {settings}"
    return Section(title, settings, protocols, find_published(problem))


def _template_context(
    section: Section, provenance: Mapping[Path, Mapping[str, str]]
) -> dict[str, str]:
    """The variables of the template for a section; `provenance` is by run directory."""
    differences = [pair for groups in section.protocols for pair in paired_differences(groups)]
    table, complete = results_tables(section.protocols, section.published, differences)
    paths = [run.path for groups in section.protocols for group in groups for run in group.runs]
    return {
        "title": section.title,
        "settings": section.settings,
        "axis": section.groups[0].method.problem.metric.axis,
        "units": units_label(units_of(section.groups)),
        "table": results_markdown(table),
        "complete": results_markdown(complete),
        "sign_note": " ".join(dict.fromkeys(map(sign_note, differences))),
        "source": section.published.source if section.published else "",
        "target": (section.published and section.published.target) or "",
        "runs": results_markdown([provenance[path] for path in dict.fromkeys(paths)]),
    }


def _kind(evaluations: Sequence[Evaluation]) -> str:
    """The name of a section's data set or family of tasks."""
    config = evaluations[0].run.config
    return config.family.name if isinstance(config, Config) else cast(Data, config.data).name


def _same_kind(sections: Sequence[Sequence[Evaluation]], other: Sequence[Evaluation]) -> bool:
    return _kind(sections[0]) == _kind(other)


def _same_tasks(section: Sequence[Evaluation], other: Evaluation) -> bool:
    first = section[0]
    same_title = first.method.problem.title == other.method.problem.title
    return same_title and _task_settings(first.run.config) == _task_settings(other.run.config)


def _same_protocol(group: Sequence[Evaluation], other: Evaluation) -> bool:
    """Whether scores compare; a second evaluation of the same run is another protocol."""
    return (
        not any(other.run is evaluation.run for evaluation in group)
        and not evaluation_differences(group[0].method, other.method)
        # step sizes may differ between methods, but not between the seeds of one
        and all(
            same_evaluation(evaluation, other)
            for evaluation in group
            if evaluation.method.label == other.method.label
            and same_experiment(evaluation.run.config, other.run.config)
        )
    )


def _slug(title: str) -> str:
    """A title as a file name, such as `point-navigation`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _task_settings(config: AnyConfig) -> str:
    """The settings of the tasks that their title doesn't name."""
    settings = {
        name.rpartition(".")[2]: value
        for name, value in all_settings(config).items()
        if name.startswith(("family.settings.", "data."))
        and name not in (*SEED_INDEPENDENT, "data.name", "data.ways")
    }
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _provenance(run: Run, names: Mapping[Path, str]) -> dict[str, str]:
    description = run.description()
    return {
        "run": names[run.path],
        "command": f"`{reproduce_command(run.config, run.path)}`",
        "updates": str(description.iteration),
        "hardware": description.machine or "not recorded",
        "commit": f"`{description.commit[:9]}`" if description.commit else "not recorded",
    }


def _plot(section: Section, file: Path) -> None:
    groups, published = section.groups, section.published
    problem = groups[0].method.problem
    row = published.rows.get("MAML") if published else None
    plot_summary(
        {group.label: group.summary for group in groups},
        {group.label: training_curves(group.runs, problem.metric) for group in groups},
        problem.metric,
        problem.title,
        file,
        rows=_plot_rows(groups),
        units={group.label: group.method.adaptation_unit for group in groups},
        episodes={group.label: group.curves[0].episodes for group in groups},
        published=estimates(row) if row else None,
    )
    # 128 colours are enough for a plot, in a third of the space
    with Image.open(file) as image:
        compressed = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    compressed.save(file, optimize=True)


def _plot_rows(groups: Sequence[ExperimentGroup]) -> list[list[str]]:
    """The labels of each row of a plot: MAML beside at most four methods, baselines first."""
    # MAML is in every row, so that each method is seen beside the same curve
    first = next((group for group in groups if group.method.label == "MAML"), groups[0])
    compared = [group for group in groups if group is not first]
    compared.sort(key=lambda group: group.method.role != "baseline")
    chunks = [compared[start : start + 4] for start in range(0, len(compared), 4)] or [[]]
    return [[first.label, *(group.label for group in chunk)] for chunk in chunks]
