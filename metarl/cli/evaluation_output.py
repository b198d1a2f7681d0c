"""How well a run adapts: measured and told, by `evaluate` and at the end of a training."""

from rich.console import Console
from rich.table import Table

from metarl.evaluation import AdaptationCurve, Summary, format_score
from metarl.method import GRADIENT_STEPS, Method
from metarl.progress import working
from metarl.report.evaluations import evaluate, file_suffix
from metarl.runs.run import Run


def evaluate_and_print(
    run: Run, method: Method, console: Console, name: str = ""
) -> AdaptationCurve:
    """Measure a run, print its adaptation curve, and say where the plot is."""
    with working(console, f"evaluating {run.path}"):
        curve = evaluate(run, method, name)
    title = f"{run.path}: {method.label}"
    console.print(table(title, method, curve.summary))
    if len(curve.step_sizes):
        sizes = ", ".join(f"{size:g}" for size in curve.step_sizes)
        console.print(f"step sizes: {sizes}", highlight=False)
    plot = run.results / f"adaptation{file_suffix(name)}.png"
    console.print(f"plot: {plot}", highlight=False, soft_wrap=True)
    return curve


def table(title: str, method: Method, summary: Summary) -> Table:
    """An adaptation curve, a row for each stage."""
    table = Table(title=title, caption=summary.meaning)
    unit = method.adaptation_unit or GRADIENT_STEPS
    table.add_column(unit.column, justify="right")
    table.add_column(method.problem.metric.name, justify="right")
    table.add_column("95% interval", justify="right")
    for step, (estimate, low, high) in enumerate(
        zip(summary.estimate, summary.low, summary.high, strict=True)
    ):
        interval = f"[{format_score(low)}, {format_score(high)}]"
        table.add_row(str(step + unit.first), format_score(estimate), interval)
    return table
