"""Steering: measure alignment, let the mixer answer with a mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Corpus, Mixture
from trainer.alignment import AlignmentSampler, Estimator, Probe, Scores
from trainer.config import TrainConfig
from trainer.difference import DifferenceEstimator
from trainer.distributed import Ranks
from trainer.exact import ExactEstimator
from trainer.learner import Learner
from trainer.mixers import DGAMixer, make_mixer
from trainer.resolve import chosen_settings


class Steering:
    """The mixer of a run with what it needs to learn from; `config` is resolved."""

    def __init__(self, config: TrainConfig, corpus: Corpus, learner: Learner, ranks: Ranks) -> None:
        view = corpus.domains(k=config.k)
        target = None if config.target is None else corpus.target(config.target)
        settings = chosen_settings(config)
        self._mixer, self._blend, self.budget = make_mixer(
            settings, view, num_steps=config.steps, batch_size=config.batch_size, target=target
        )
        self._renew_every = settings.update_every
        self._sampler: AlignmentSampler | None = None
        self._estimator: Estimator | None = None
        if target is not None and settings.learns_from_scores:
            self._sampler = AlignmentSampler(
                corpus=corpus,
                view=view,
                target=target,
                seed=config.seed,
                sequences_per_domain=config.sequences_per_domain,
                target_batch=config.target_batch,
                ranks=ranks,
            )
            self._estimator = make_estimator(config, learner, corpus.pad_id, ranks)

    def mixture(self, step: int, drawn: NDArray[np.int64]) -> Mixture:
        """What batches from `step` on are drawn from; `drawn` (k,) counts the samples so far."""
        return self._blend(self._mixer.mixture, step, drawn)

    @property
    def skipped_updates(self) -> int:
        """How often scores were not finite and the mixture stayed as it was."""
        return self._mixer.skipped_updates if isinstance(self._mixer, DGAMixer) else 0

    def is_due(self, step: int) -> bool:
        """Whether `update` is to be called, and a new mixture asked for, before the batch at `step`."""
        renews = self._blend.moves and step > 0 and step % self._renew_every == 0
        return renews or self._mixer.wants_scores(step)

    def update(self, step: int) -> Scores | None:
        """Measure alignment at the present weights, if the mixer wants it, and let it learn from it."""
        if not self._mixer.wants_scores(step):
            return None
        assert self._sampler is not None, "only mixers with a target ask for scores"
        assert self._estimator is not None
        scores = self._estimator.scores(self._sampler.draw(step))
        self._mixer.update(scores.values)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """The mixer's state; measurements are drawn by address and have none."""
        return self._mixer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._mixer.load_state_dict(state)


def make_estimator(config: TrainConfig, learner: Learner, pad_id: int, ranks: Ranks) -> Estimator:
    """The estimator that `config` names, looking through the learner's loss."""
    probe = Probe(
        loss=learner.loss,
        batch_size=learner.local_batch_size,
        pad_id=pad_id,
        device=learner.device,
        normalization=config.gradients,
        ranks=ranks,
    )
    if config.estimator == "exact":
        return ExactEstimator(probe=probe)
    assert config.epsilon is not None
    return DifferenceEstimator(probe=probe, epsilon=config.epsilon)
