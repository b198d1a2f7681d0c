"""Sinusoid regression (Finn et al. 2017, section 5.1): y = A sin(x − φ), without noise."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.config.sections import Section
from metarl.supervised.losses import REGRESSION, TaskType
from metarl.supervised.tasks import Episodes

LOW, HIGH = (0.1, 0.0), (5.0, np.pi)  # of amplitude and phase
INPUTS = (-5.0, 5.0)


class Sinusoid(Section):
    """Sinusoids of random amplitude and phase. All splits have the same distribution of tasks."""

    name: Literal["sinusoid"] = "sinusoid"

    kind: ClassVar[TaskType] = REGRESSION
    hashes: ClassVar[dict[str, str]] = {}
    ways: ClassVar[None] = None

    def title(self, shots: int, ways: int | None = None) -> str:
        """A title such as `sinusoid, 5-shot`."""
        return f"{self.name}, {shots}-shot"

    def tasks(
        self, split: str, task_conditioned: bool = False, ways: int | None = None
    ) -> "SinusoidTasks":
        """The task distribution, the same for every split."""
        return SinusoidTasks(task_conditioned)


@dataclass(frozen=True)
class SinusoidTasks:
    """Sinusoids of random amplitude and phase; a task is the pair (A, φ).

    Attributes:
        task_conditioned: inputs are (x, A, φ) instead of x, for an oracle.
    """

    task_conditioned: bool = False

    outputs: ClassVar[int] = 1
    all_outputs: ClassVar[int] = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input: (1,), or (3,) if task-conditioned."""
        return (3,) if self.task_conditioned else (1,)

    def check(self, shots: int, queries: int) -> None:
        """Any number of points can be sampled."""

    def sample(
        self,
        rng: np.random.Generator,
        num_tasks: int,
        shots: int,
        queries: int,
        shard: slice = slice(None),
    ) -> Episodes:
        """Sample tasks and points: inputs (N, K, 1) or (N, K, 3), targets (N, K, 1)."""
        # the shard is taken after sampling: all processes draw the same numbers
        tasks = rng.uniform(LOW, HIGH, (num_tasks, 2))
        x = rng.uniform(*INPUTS, (num_tasks, shots + queries, 1))
        return points(tasks[shard], x[shard], shots, self.task_conditioned)

    def describe(self, task: NDArray[np.float64]) -> str:
        """A formula such as `3.21 sin(x − 0.70)`."""
        return f"{task[0]:.2f} sin(x − {task[1]:.2f})"


def points(
    tasks: NDArray[np.float64], x: NDArray[np.float64], shots: int, task_conditioned: bool = False
) -> Episodes:
    """Points at x (N, K, 1) on the sinusoids (N, 2); the first `shots` are the support set."""
    amplitude, phase = tasks[:, :1, None], tasks[:, 1:, None]
    y = torch.from_numpy((amplitude * np.sin(x - phase)).astype(np.float32))
    if task_conditioned:
        task_inputs = np.broadcast_to(tasks[:, None], (*x.shape[:2], 2))
        x = np.concatenate([x, task_inputs], axis=-1)
    inputs = torch.from_numpy(x.astype(np.float32))
    return Episodes(tasks, (inputs[:, :shots], y[:, :shots]), (inputs[:, shots:], y[:, shots:]))
