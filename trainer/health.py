"""What may be going wrong while a run is going on, said once when it begins.

Eight conditions, most with a threshold of the user's:

    still         the mixture has hardly moved over many updates on alignment in a row
    collapsed     the mixture has shrunk to very few domains
    repeated      some domain has been seen too often
    overfitting   the target's test loss rises while the loss on its train sample, which steers, falls
    forgetting    the generic loss has risen above its lowest
    noisy         scores that share no evidence agree too little
    not-finite    scores were no numbers; that update was skipped
    diverged      the training loss is no number

A condition is reported when it begins, and again only after it has ended in between. Nothing here changes
a run. All of it follows from what the run measures anyway and from a small state that checkpoints keep,
so a resumed run reports what the whole one would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture
from trainer.health_thresholds import HealthThresholds
from trainer.run.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A condition that has begun."""

    kind: str
    """Which of the eight."""
    value: float
    """What was found."""
    threshold: float
    """What it passed."""
    message: str
    """What it means and what can be done, in words."""


class Health:
    """Watches one run; `target` is the set that steers it, None where none does."""

    def __init__(self, thresholds: HealthThresholds, *, target: str | None) -> None:
        self._thresholds = thresholds
        self._target = target
        self._active: set[str] = set()
        self._still_updates = 0
        self._last_scores: NDArray[np.float64] | None = None
        self._agreements: list[float] = []
        self._skipped = 0
        self._best_target: tuple[float, float] | None = None
        """Lowest test loss so far, and the train loss at that evaluation."""
        self._best_generic: float | None = None

    def after_update(
        self,
        *,
        before: Mixture,
        after: Mixture,
        scores: NDArray[np.float64] | None,
        scored: NDArray[np.bool_],
        skipped_updates: int,
        halves: NDArray[np.float64] | None = None,
    ) -> list[Finding]:
        """After the mixer has learned from `scores` (m,), of which those `scored` (m,) say something.

        Without scores it has learned from losses, a batch at a time: no step is long, and no two of them
        need agree. `skipped_updates` counts since the beginning. `halves` (2, m) are the scores by either
        half of the evidence, where successive scores share some.
        """
        found = [
            None if scores is None else self._stillness(before, after),
            self._onset(
                "not-finite",
                skipped_updates > self._skipped,
                float(skipped_updates),
                0.0,
                f"{skipped_updates} updates were skipped because scores were not finite; the weights stay "
                "as they were. If it goes on, the model is diverging: lower the learning rate.",
            ),
            None if scores is None else self._noise(scores, scored, halves),
        ]
        self._skipped = skipped_updates
        return [finding for finding in found if finding is not None]

    def after_training(self, *, loss: float, since_step: int) -> list[Finding]:
        """After the mean training `loss` of the steps from `since_step` on was read."""
        found = self._onset(
            "diverged",
            not np.isfinite(loss),
            loss,
            0.0,
            f"the training loss after step {since_step:,} is no finite number: the model has diverged, and "
            "goes on training for nothing. Stop it, and begin another run with a lower learning rate.",
        )
        return [] if found is None else [found]

    def after_record(self, *, mixture: Mixture, passes: NDArray[np.float64]) -> list[Finding]:
        """After the mixture was renewed or the run evaluated; passes (k,) over each domain so far."""
        limits = self._thresholds
        spread, most = mixture.effective_domains, float(passes.max())
        found = [
            self._onset(
                "collapsed",
                spread < limits.fewest_domains and _can_move(mixture),
                spread,
                limits.fewest_domains,
                f"the mixture is spread over {spread:.2f} domains (exp of its entropy), below "
                f"{limits.fewest_domains:g}; a share for natural proportions or a smaller step size keeps "
                "it wider.",
            ),
            self._onset(
                "repeated",
                most > limits.most_passes,
                most,
                limits.most_passes,
                f"domain {int(passes.argmax())} has been seen {most:.1f} times, more than "
                f"{limits.most_passes:g}; max_passes bounds that, and spreads it over the run.",
            ),
        ]
        return [finding for finding in found if finding is not None]

    def after_evaluation(self, evaluation: Evaluation) -> list[Finding]:
        """After an evaluation; losses that were not measured are passed over."""
        found = [self._overfitting(evaluation), self._forgetting(evaluation.generic_loss)]
        return [finding for finding in found if finding is not None]

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, as plain JSON types."""
        return {
            "active": sorted(self._active),
            "still_updates": self._still_updates,
            "last_scores": None if self._last_scores is None else self._last_scores.tolist(),
            "agreements": self._agreements,
            "skipped": self._skipped,
            "best_target": self._best_target,
            "best_generic": self._best_generic,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._active = set(state["active"])
        self._still_updates = int(state["still_updates"])
        scores, best = state["last_scores"], state["best_target"]
        self._last_scores = None if scores is None else np.array(scores)
        self._agreements = list(state["agreements"])
        self._skipped = int(state["skipped"])
        self._best_target = None if best is None else (best[0], best[1])
        self._best_generic = state["best_generic"]

    def _onset(
        self, kind: str, holds: bool, value: float, threshold: float, message: str
    ) -> Finding | None:
        """A finding if the condition holds and did not hold before."""
        begins = holds and kind not in self._active
        self._active = self._active | {kind} if holds else self._active - {kind}
        if not begins:
            return None
        return Finding(kind=kind, value=value, threshold=threshold, message=message)

    def _stillness(self, before: Mixture, after: Mixture) -> Finding | None:
        limits = self._thresholds
        moved = after.distance(before)
        still = moved < limits.still_distance and _can_move(before)
        self._still_updates = self._still_updates + 1 if still else 0
        return self._onset(
            "still",
            self._still_updates >= limits.still_updates,
            moved,
            limits.still_distance,
            f"the mixture moved by less than {limits.still_distance:g} in each of "
            f"{self._still_updates} updates; a larger step size (or score_scale=std) lets it follow "
            "the scores.",
        )

    def _noise(
        self,
        scores: NDArray[np.float64],
        scored: NDArray[np.bool_],
        halves: NDArray[np.float64] | None,
    ) -> Finding | None:
        """Correlation of scores that share no evidence: signal / (signal + noise) in variance.

        Of single measurements these are successive ones, if the signal stays. Where evidence adds up, most of
        the noise in one score is in the next, too, so halves of it are compared. Their noise is twice that of
        all, which makes r between them 2r / (1 + r) between wholes (Spearman and Brown, 1910).
        """
        limits = self._thresholds
        if not np.isfinite(scores).all():
            return None
        agreement = None
        if halves is not None:
            known = scored & np.isfinite(halves).all(axis=0)
            of_halves = correlation(*halves[:, known])
            if of_halves is not None:
                agreement = 2 * of_halves / (1 + abs(of_halves))  # -1 to 1 below 0, too
        elif self._last_scores is not None:
            agreement = correlation(self._last_scores[scored], scores[scored])
        if agreement is not None:
            self._agreements = [*self._agreements, agreement][-limits.noise_updates :]
        self._last_scores = scores
        mean = float(np.mean(self._agreements)) if self._agreements else 1.0
        more = "More sequences per domain" if halves is None else "A longer half-life"
        return self._onset(
            "noisy",
            len(self._agreements) == limits.noise_updates and mean < limits.least_agreement,
            mean,
            limits.least_agreement,
            f"scores that were measured apart correlate by {mean:.2f} only, below "
            f"{limits.least_agreement:g}: more noise than signal. {more}, fewer domains, or a smaller step "
            "size would help.",
        )

    def _overfitting(self, evaluation: Evaluation) -> Finding | None:
        if self._target is None:
            return None
        test = evaluation.target_loss.get(self._target)
        train = evaluation.target_train_loss.get(self._target)
        if test is None or train is None or not np.isfinite([test, train]).all():
            return None
        if self._best_target is None or test < self._best_target[0]:
            self._best_target = (test, train)
        best, train_then = self._best_target
        limit = self._thresholds.overfitting_nats
        return self._onset(
            "overfitting",
            test > best + limit and train < train_then,
            test - best,
            limit,
            f"the test loss on {self._target} is {test - best:.3f} nats above its lowest while the loss on "
            "its train sample has fallen: the mixture fits the sample. A larger target set, fewer passes "
            "or a share for natural proportions would help.",
        )

    def _forgetting(self, loss: float | None) -> Finding | None:
        if loss is None or not np.isfinite(loss):
            return None
        best = loss if self._best_generic is None else min(loss, self._best_generic)
        self._best_generic = best
        limit = self._thresholds.forgetting_nats
        return self._onset(
            "forgetting",
            loss > best + limit,
            loss - best,
            limit,
            f"the generic loss is {loss - best:.3f} nats above its lowest; a share for natural proportions "
            "(natural_share) keeps general ability.",
        )


def _can_move(mixture: Mixture) -> bool:
    """Whether there is more than one domain to draw from."""
    return int((mixture.view.sizes > 0).sum()) > 1


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Pearson's correlation of two score vectors (m,); None where one of them does not vary."""
    if not len(first):
        return None
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else None
