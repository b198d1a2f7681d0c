"""One page of results, made from run directories: what is on it was measured, not typed.

A section a family of tasks: a table beside the published figures, a picture of adaptation and of
training, how each run was made, and what a person concludes from it, out of a file of notes. Data
with several sections, such as of 5 and of 20 classes, have one more before them, with all methods.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import yaml
from jinja2 import Environment, StrictUndefined

from metarl.errors import UserError
from metarl.evaluation import Summary, mean_over_tasks
from metarl.files import storing
from metarl.method import AXES, load_method
from metarl.rl.config import Config
from metarl.runs.comparison import (
    axes_of,
    by_episodes,
    markdown_table,
    minutes,
    training_curves,
)
from metarl.runs.config import AnyConfig, flat, load_config, shipped_configs
from metarl.runs.experiments import (
    OWN,
    Entry,
    experiments,
    gathered,
    other_evaluation,
    short_names,
)
from metarl.runs.overview import Column, overview
from metarl.runs.paired import Difference, better, paired
from metarl.runs.plots import counted_in, plot_summary
from metarl.runs.published import Published, estimates, in_words, published
from metarl.runs.results import Evaluated
from metarl.runs.run import Run
from metarl.supervised.tasks import Data

STAGES = (0, 1, 2, 3, 5, 10, 12)  # as far as a run goes
# what a result does not depend on
FREE = ("evaluation.", "device", "checkpoint_every", "report_every", "family.settings.num_threads")
# settings of an evaluation that a section's title or another column tells
TOLD = {*OWN, "ways", "shots", "tasks", "trajectories"}
INTRODUCTION = "introduction"
# what a row is of, its scores by stage, and what it took
Row = tuple[dict[str, str], dict[int, str], dict[str, str]]


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
    sections: list[dict[str, str]] = []
    pictures = []
    # sections of the same data, or of a family with other settings, follow one another
    for related in gathered(gathered(evaluated, _same_tasks), _same_kind):
        # the one that was published bears the plain title
        related.sort(key=lambda section: published(section[0].method.problem) is None)
        columns: list[Column] = []
        first = len(sections)
        for section in related:
            for each in section[1:]:
                each.run.check_data_hashes(section[0].run.data_hashes())
            groups = [experiments(group) for group in gathered(section, _same_protocol)]
            found = [each for group in groups for each in paired(group)]
            entries = groups[0]
            title, settings = entries[0].method.problem.title, _tasks(entries[0].runs[0].config)
            if title in [other["title"] for other in sections]:  # such as with other dynamics
                title += f", {settings}"
            slug = _slug(title)
            picture = folder / f"{slug}.png"
            known = published(entries[0].method.problem)
            with storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _draw(entries, known, picture)
            pictures.append(picture)
            paths = [run.path for group in groups for entry in group for run in entry.runs]
            columns.append((entries, known))
            sections.append(
                {
                    "title": title,
                    "settings": settings,
                    "axis": entries[0].method.problem.metric.axis,
                    "counted": counted_in(axes_of(entries)),
                    "table": _markdown(_rows(groups, known, found)),
                    "better": " ".join(dict.fromkeys(map(better, found))),
                    "source": known.source if known else "",
                    "picture": picture.relative_to(page.parent).as_posix(),
                    "runs": _markdown([made[path] for path in dict.fromkeys(paths)]),
                    "notes": said.pop(slug, ""),
                }
            )
        name, config = _kind(related[0]), related[0][0].run.config
        if len(columns) > 1 and config.domain == "supervised":
            sections[first] |= {
                "data": name,
                "overview": _markdown(overview(columns)),
                "remarks": said.pop(_slug(name), ""),
            }
    template = resources.files("metarl.runs").joinpath("page.md").read_text()
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(template).render(
        introduction=introduction, sections=sections, rest=list(said.values())
    )
    with storing(page):
        page.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
    return [page, *pictures]


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


def command(config: AnyConfig) -> str:
    """What trains such a run: of all configs that come with the package the nearest, and changes.

    Args:
        config: of the run.
    """
    method = config.method.name
    candidates = []
    for name in shipped_configs():
        shipped = load_config(name)
        baseline = method != shipped.method.name
        if shipped.domain != config.domain:
            continue
        if baseline:
            try:
                shipped = load_config(name, [f"method={method}"])
            except UserError:  # one that is not of such tasks, or of such an outer step
                continue
        verb = f"metarl baseline {name} --kind {method}" if baseline else f"metarl train {name}"
        changes = _changes(shipped, config)
        other_tasks = not {"family.name", "data.name"}.isdisjoint(changes)
        candidates.append(((other_tasks, len(changes), baseline), verb, shipped, changes))
    _, verb, shipped, changes = min(candidates, key=lambda candidate: candidate[0])
    if isinstance(shipped, Config) and shipped.policy.observation_scale == "measured":
        # a run's config says what was measured of its tasks
        measured = load_method(shipped).problem.config
        changes = min(changes, _changes(measured, config), key=len)
    return " ".join([verb, *(f"--set {name}={_yaml(value)}" for name, value in changes.items())])


def _changes(shipped: AnyConfig, config: AnyConfig) -> dict[str, Any]:
    """The settings of a config that matter and are not those of one that comes with the package."""
    settings = flat(shipped.model_dump(mode="json"))
    return {
        setting: value
        for setting, value in flat(config.model_dump(mode="json")).items()
        if settings.get(setting) != value and not setting.startswith(FREE)
    }


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _slug(title: str) -> str:
    """The name of a section's picture and notes, such as `point-navigation`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _tasks(config: AnyConfig) -> str:
    """What the tasks are, but for what their title tells."""
    settings = flat(config.model_dump(mode="json"))
    told = {
        name.rpartition(".")[2]: value
        for name, value in settings.items()
        if name.startswith(("family.settings.", "data."))
        and name not in (*FREE, "data.name", "data.ways")
    }
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _rows(
    groups: Sequence[Sequence[Entry]], known: Published | None, found: Sequence[Difference]
) -> list[dict[str, str]]:
    """A row for each experiment and protocol, for each of its seeds, and for each published one."""
    entries = [entry for group in groups for entry in group]
    settings = [entry.method.problem.evaluation_settings for entry in entries]
    varying = [
        name
        for name in settings[0]
        if name not in TOLD and any(other.get(name) != settings[0][name] for other in settings)
    ]
    rows = []
    for entry, less in zip(entries, _differences(entries, found), strict=True):
        (words, scores, cost), *of_seeds = _measured(entry, varying)
        rows += [(words, scores, less | cost), *of_seeds]
    if known:
        for method, figures in known.rows.items():
            words = {"": f"*published: {method}*", "tasks": str(known.tasks or "")}
            rows.append((words, {k: in_words(figure) for k, figure in figures.items()}, {}))
    reached = {k for _, scores, _ in rows for k in scores}
    stages = {_heading(k): k for k in STAGES if k in reached}
    first, _, last = rows[0]
    return [
        {name: words.get(name, "") for name in first}
        | {heading: scores.get(k, "–") for heading, k in stages.items()}
        | {name: cost.get(name, "") for name in last}
        for words, scores, cost in rows
    ]


def _measured(entry: Entry, varying: Sequence[str]) -> list[Row]:
    """The rows of one experiment: all seeds together, and each alone.

    Args:
        entry: the experiment.
        varying: settings of the evaluation that are not the same in all rows.
    """
    curve = entry.curves[0]
    sizes = dict.fromkeys(", ".join(f"{s:g}" for s in c.step_sizes[:3]) for c in entry.curves)
    axis = entry.method.axis
    how = f"{AXES[axis].stage} a stage" if axis and not curve.step_sizes else " or ".join(sizes)
    if len(curve.step_sizes) > 3:
        how += ", …"
    settings = entry.method.problem.evaluation_settings
    common = {name: yaml.safe_dump(settings.get(name)).split("\n")[0] for name in varying}
    common["step sizes"] = how or "–"
    if curve.episodes:
        common["episodes a stage"] = str(curve.episodes[1]) if len(curve.episodes) > 1 else "–"

    def row(label: str, runs: Sequence[Run], summary: Summary) -> Row:
        seeds = ", ".join(str(run.config.seed) for run in runs)
        words = {"": label, **common, "seeds": seeds, "tasks": str(len(curve.tasks))}
        return words, {k: summary.after(k) for k in range(len(summary.estimate))}, cost(runs)

    def cost(runs: Sequence[Run]) -> dict[str, str]:
        samples = [run.checkpoint().description.samples for run in runs]
        return {
            entry.method.problem.metric.samples: f"{fmean(samples) / 1e6:.2f} M",
            "minutes": minutes(runs),
        }

    rows = [row(entry.label, entry.runs, entry.summary)]
    if len(entry.runs) > 1:
        for run, each in zip(entry.runs, entry.curves, strict=True):
            label = f"{entry.label}, seed {run.config.seed}"
            rows.append(row(label, [run], mean_over_tasks(each.scores)))
    return rows


def _differences(entries: Sequence[Entry], found: Sequence[Difference]) -> list[dict[str, str]]:
    """For each experiment a column: by how much another is above it after a step, task by task."""
    firsts = list(dict.fromkeys(each.first.label for each in found))
    heading = f"{firsts[0] if len(firsts) == 1 else 'a meta-learner'} less it, after 1"
    less = {id(each.first): "itself" for each in found} | {
        id(each.second): each.summary.after(1)
        + (f" ({each.first.label})" if len(firsts) > 1 else "")
        for each in found
    }
    return [{heading: less.get(id(entry), "–")} if found else {} for entry in entries]


def _heading(stage: int) -> str:
    return "before" if stage == 0 else f"after {stage}"


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


def _draw(entries: Sequence[Entry], known: Published | None, picture: Path) -> None:
    problem = entries[0].method.problem
    used = {entry.label: entry.curves[0].episodes for entry in entries}
    row = known.rows.get("MAML") if known else None
    plot_summary(
        {entry.label: entry.summary for entry in entries},
        {entry.label: training_curves(entry) for entry in entries},
        problem.metric,
        problem.title,
        picture,
        counted=axes_of(entries),
        episodes=used if by_episodes(entries) else None,
        published=estimates(row) if row else None,
    )


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in which a minus is one, where it is before a number and not part of a command."""
    return re.sub(r"(?<=[ \[])-(?=\d)", "−", markdown_table(rows))
