"""Time of trainings until they reach the published return."""

import math
import statistics
import time
from collections import deque
from collections.abc import Sequence

from metarl.experiment import load_config
from metarl.method import load_method, train
from metarl.report.published import find_published
from metarl.runs.metrics import score_names

WINDOW = 5  # iterations, whose mean return has to reach it


def target(source: str, overrides: Sequence[str], repeats: int) -> dict[str, float]:
    """Seconds of training until the return after one step is the published one.

    It is reached when the mean over the last five iterations, on training tasks, is as good. The
    time is wall-clock time, with the measurement of the observations' scale and without the import
    of packages.

    Returns:
        `published`: the return. `seed 1` to `seed R`, for R repeats: seconds, or infinity if the
        training ends before. `median`: over these seeds.
    """
    published = find_published(load_method(load_config(source, overrides)).problem)
    assert published is not None
    assert published.target is not None
    score = published.target
    seconds = {
        f"seed {seed}": _seconds_to_score(score, source, [*overrides, f"seed={seed}"])
        for seed in range(1, repeats + 1)
    }
    return {"published": score, **seconds, "median": statistics.median(seconds.values())}


def _seconds_to_score(score: float, source: str, overrides: Sequence[str]) -> float:
    start = time.perf_counter()
    method = load_method(load_config(source, [*overrides, "report_every=1"]))
    metric = method.problem.metric
    scores: deque[float] = deque(maxlen=WINDOW)
    for _, metrics in train(method, method.initial_state()):
        (name,) = score_names(metrics, metric.name)[1]
        scores.append(metrics[name])
        if len(scores) == WINDOW and metric.sign * statistics.fmean(scores) >= metric.sign * score:
            return time.perf_counter() - start
    return math.inf
