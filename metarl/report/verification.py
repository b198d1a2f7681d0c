"""Verification of stored evaluations: the same tasks and episodes again, with the same weights."""

from dataclasses import dataclass

import numpy as np

from metarl.evaluation import AdaptationCurve, mean_over_tasks
from metarl.report.evaluations import BEST, Evaluation, load_checked_state


@dataclass(frozen=True)
class Verification:
    """Scores that were stored, and those of another evaluation of the same weights.

    On another processor, rounding differs. An episode of a robot may then end elsewhere, so that
    single scores differ where means agree.

    Attributes:
        stored: the stored scores.
        repeated: the scores of now.
    """

    stored: AdaptationCurve
    repeated: AdaptationCurve

    @property
    def holds(self) -> bool:
        """Whether the mean difference of the scores is zero, or within twice its 95% interval.

        Twice, because the scores after every step have to agree. The tasks have to be the same, up
        to the digits of a published run.
        """
        scores = self.stored.scores
        if not self._same_tasks:
            return False
        difference = mean_over_tasks(self.repeated.scores - scores)
        rounding = 1e-5 * np.abs(scores).max()
        width = difference.high - difference.low
        return bool((np.abs(difference.estimate) <= width + rounding).all())

    @property
    def _same_tasks(self) -> bool:
        tasks, again = self.stored.tasks, self.repeated.tasks
        return tasks.shape == again.shape and np.allclose(tasks, again, 1e-6, 0.0)

    def __str__(self) -> str:
        if not self._same_tasks:
            return "DOES NOT HOLD: the tasks are not those of the evaluation's seed"
        old, new = self.stored.summary, self.repeated.summary
        number = self.stored.scores.size
        if np.array_equal(self.stored.scores, self.repeated.scores):
            return f"holds: all {number} scores are bitwise identical"
        last = len(old.estimate) - 1
        difference = np.abs(self.stored.scores - self.repeated.scores).max()
        return (
            f"{'holds' if self.holds else 'DOES NOT HOLD'}: {new.format_step(last)} after "
            f"{last} steps, stored {old.format_step(last)}; a score differs by {difference:.3g} at "
            f"most, of {number}"
        )


def verify(evaluation: Evaluation) -> Verification:
    """Evaluate the weights of a run again, with the settings of a stored evaluation.

    Raises:
        UserError: if the run was published without its weights, or its checkpoint is damaged.
    """
    run = evaluation.run.at("best" if evaluation.name == BEST else "last")
    state = load_checked_state(run, evaluation.method)
    return Verification(evaluation.curve, evaluation.method.evaluate(state.params))
