"""The tables of the benchmark, for a console of 80 columns."""

from collections.abc import Callable, Mapping
from math import isinf

from rich import box
from rich.table import Table

Figures = Mapping[str, float]


def _table(title: str, *headings: str) -> Table:
    """A table whose columns are as wide as the longest word of their headings."""
    # no padding: figures for six columns have to fit into 80 characters
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for number, heading in enumerate(headings):
        longest = max(map(len, heading.split()))
        table.add_column(
            heading, justify="right" if number else "left", min_width=longest, overflow="fold"
        )
    return table


def _supervised(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "supervised: milliseconds of a meta-iteration, and GB of memory"
    table = _table(title, "experiment", "total", "task sampling", "share", "GB")
    for name, f in figures.items():
        total, drawing = f["iteration"], f["drawing"]
        milliseconds = f"{1e3 * total:.2f}", f"{1e3 * drawing:.2f}"
        table.add_row(name, *milliseconds, f"{drawing / total:.1%}", f"{f['memory']:.2f}")
    return table


def _sampling(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "thousand environment steps per second"
    table = _table(title, "family", "thousand steps/s", "sampler relative to it")
    labels = {
        "physics": "plain physics",
        "observed": "physics with observations",
        "sync": "SyncVectorEnv",
        "async": "AsyncVectorEnv",
    }
    for name, f in figures.items():
        table.add_section()
        table.add_row(name, f"{f['sampler'] / 1e3:.1f}")
        for key, label in labels.items():
            if key not in f:  # Meta-World has no plain physics
                continue
            ratio = f["sampler"] / f[key]
            # in per cent of plain physics, which is faster; in multiples of vector environments
            text = f"{ratio:.0f} ×" if ratio >= 1.5 else f"{ratio:.0%}"
            table.add_row(f"  {label}", f"{f[key] / 1e3:.1f}", text)
    return table


def _iteration(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "iteration: seconds of a meta-iteration and of its parts"
    table = _table(title, "experiment", "seconds", "GFLOP", "GFLOP/s", "of peak")
    for name, f in figures.items():
        table.add_section()
        total = f["sampling"] + f["learning"]
        table.add_row(f"{name} ({f['memory']:.2f} GB)", f"{total:.2f}")
        f = {**f, "GFLOP learning": _learning_gflop(f)}
        for part in ("sampling", "adapt", "learning", "gradient", "curvature", "line search"):
            cells = _arithmetic(f[part], f.get(f"GFLOP {part}"), limits)
            indent = "  " if part in ("sampling", "learning") else "    "
            table.add_row(indent + part, f"{f[part]:.2f}", *cells)
    return table


def _learning_gflop(f: Figures) -> float:
    """The operations of learning, with one candidate of the line search."""
    return sum(f[f"GFLOP {part}"] for part in ("gradient", "curvature", "line search"))


def _arithmetic(seconds: float, gflop: float | None, limits: Figures) -> tuple[str, ...]:
    """GFLOP, GFLOP/s, and their share of the limit."""
    if gflop is None:  # sampling: physics has no matrix products to count
        return ()
    rate = gflop / seconds
    return f"{gflop:.1f}", f"{rate:.0f}", f"{rate / limits['product']:.0%}"


def _growth(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "growth: seconds of a meta-iteration on point navigation"
    table = _table(title, "size", "total", "sampling", "learning", "of peak", "memory, GB")
    for name, f in figures.items():
        seconds = f["sampling"] + f["learning"], f["sampling"], f["learning"]
        share = _arithmetic(f["learning"], _learning_gflop(f), limits)[-1]
        table.add_row(name, *map("{:.2f}".format, seconds), share, f"{f['memory']:.2f}")
    return table


def _contention(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "contention: seconds of an iteration"
    table = _table(title, "method", "single", "two concurrent", "ratio")
    for name, f in figures.items():
        ratio = f["concurrent"] / f["single"]
        table.add_row(name, f"{f['single']:.3f}", f"{f['concurrent']:.3f}", f"{ratio:.2f}")
    return table


def _target(figures: Mapping[str, Figures], limits: Figures) -> Table:
    title = "target: seconds of training until the published return after one step"
    table = _table(title, "experiment", "published", "median", "fastest", "slowest", "seeds")
    for name, f in figures.items():
        seconds = [value for key, value in f.items() if key.startswith("seed ")]
        times = f["median"], min(seconds), max(seconds)
        cells = ("not reached" if isinf(time) else f"{time:.0f}" for time in times)
        table.add_row(name, f"{f['published']:g}", *cells, str(len(seconds)))
    return table


# by part: a function of its figures, by name of the case, and of the hardware's limits
TABLES: dict[str, Callable[[Mapping[str, Figures], Figures], Table]] = {
    "sampling": _sampling,
    "metaworld": _sampling,
    "iteration": _iteration,
    "growth": _growth,
    "supervised": _supervised,
    "contention": _contention,
    "target": _target,
}
