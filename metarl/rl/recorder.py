"""Recording of the episodes in which an agent acts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.rl.external_data import Trajectory


class Recorder:
    """The steps of the present episodes, and the complete ones since the last adaptation.

    Attributes:
        actions: of the last act, (num_envs, ...); None before it.
        ended: (num_envs,), whether the last step of each environment ended its episode.
        episodes: complete ones.
    """

    def __init__(self) -> None:
        self.actions: Tensor | None = None
        self.ended = np.zeros(0, dtype=bool)
        self.episodes: list[Trajectory] = []
        self._observations = np.zeros((0, 0), dtype=np.float32)
        self._steps: list[list[tuple[Any, Any, Any]]] = []
        self._is_single = True

    def without_episodes(self) -> "Recorder":
        """A copy in the same episodes, without their steps: the policy changes within them."""
        recorder = Recorder()
        recorder.ended = self.ended.copy()
        recorder._steps = [[] for _ in self._steps]
        recorder._is_single = self._is_single
        return recorder

    def start(self, observations: NDArray[np.float32], is_single: bool) -> None:
        self._observations, self._is_single = observations, is_single
        if len(observations) != len(self.ended):
            self.ended = np.zeros(len(observations), dtype=bool)
            self._steps = [[] for _ in observations]
        if is_single:  # a single environment is reset by hand
            self.ended[:] = False

    def record(
        self,
        rewards: NDArray[np.float32],
        is_terminal: NDArray[np.bool_],
        is_end: NDArray[np.bool_],
        is_reset: NDArray[np.bool_],
        last: NDArray[np.float32] | None,
    ) -> None:
        assert self.actions is not None
        actions = self.actions.numpy()
        for index in np.flatnonzero(~is_reset):
            steps = self._steps[index]
            steps.append((self._observations[index], actions[index], rewards[index]))
            if is_end[index]:
                columns = [np.stack(column) for column in zip(*steps, strict=True)]
                ending = bool(is_terminal[index]), None if last is None else last[index]
                self.episodes.append(Trajectory(columns[0], columns[1], columns[2], *ending))
                steps.clear()

    def finish(self, ended: NDArray[np.bool_]) -> None:
        self.ended, self.actions = ended.copy(), None
