"""Steering: a stream whose mixture a mixer keeps up to date while a model trains.

    steering = Steering(corpus, SteeringConfig(target="recipes", num_steps=1200, batch_size=64), loss)
    for batch in steering.stream:
        ...                                   # forward, backward, optimizer
        steering.after_step(batch.step + 1)

`loss` is a module that maps tokens to a loss per sample; nothing else is asked of the model. The
training loop of `braidstream train`, the Hugging Face callback and the Lightning callback all do this.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import Corpus, Mixture, MixtureStream, StateError, View
from pipeline.corpus.corpus import check_corpus
from trainer.alignment.alignment import Scores
from trainer.alignment.alignment_source import AlignmentSource, make_alignment_source
from trainer.alignment.difference import DEFAULT_EPSILON, default_epsilon
from trainer.alignment.measurement import chosen_epsilon
from trainer.mixers import (
    DistributionMixer,
    MixerSettings,
    Restraint,
    basis_mixtures,
    make_mixer,
    measuring_changes,
    mixer_settings,
)
from trainer.run.distributed import Ranks
from trainer.run.domain_losses import DomainLosses
from trainer.steering_config import SteeringConfig
from trainer.targets import steering_target
from trainer.wrapped import check_parameters_are_seen, check_rank_measures_alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """A mixture was put in force."""

    first_step: int
    """Step of the first batch that is drawn from it."""
    scores: Scores | None
    """What the mixer learned from, if it was alignment; (k,) or one per basis histogram."""


class Steering:
    """A mixer with what it learns from, and the stream that it steers.

    `loss` maps tokens int64 (n, length) to losses float32 (n,); its parameters that require gradients
    are what alignment is measured on. `learning_rate` is the function of the step that `doge` follows.
    `ranks` defaults to the process group if there is one. Raises ValueError for a loss that cannot be
    measured, through DistributedDataParallel on several ranks, FSDP1 or DeepSpeed, with what to give
    instead, and what `make_mixer` and `MixtureStream` raise for settings that do not fit.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: SteeringConfig,
        loss: nn.Module,
        *,
        learning_rate: Callable[[int], float] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        check_corpus(corpus)
        if not isinstance(loss, nn.Module):
            raise TypeError(
                f"the loss {loss!r} is no torch.nn.Module, whose parameters alignment is measured on. Give a "
                "module that maps tokens (n, length) to losses (n,), such as TokenLoss(model, …)."
            )
        ranks = current_ranks() if ranks is None else ranks
        settings = config.mixer
        if isinstance(settings, str):
            config = replace(config, **measuring_changes(settings))
        self.settings = mixer_settings(settings) if isinstance(settings, str) else settings
        measures = self.settings.signal == "alignment"
        if measures or self.settings.restraint == "capacity":
            check_parameters_are_seen(loss)
        if measures:
            check_rank_measures_alone(loss, world_size=ranks.world_size)
        view = corpus.domains(level=1) if config.k is None else corpus.domains(k=config.k)
        target = None if config.target is None else steering_target(corpus, config.target)
        self._mixer, self._blend, budget, restraint = make_mixer(
            self.settings,
            corpus,
            view,
            num_steps=config.num_steps,
            batch_size=config.batch_size,
            target=target,
            basis=_basis(corpus, view, config, self.settings),
            learning_rate=learning_rate,
            weights_file=None if config.weights_file is None else Path(config.weights_file),
            capacity=_capacity(loss, corpus),
        )
        self.stream = MixtureStream(
            corpus,
            self._blend(self._mixer.mixture_at(0), 0, np.zeros(view.k, dtype=np.int64)),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            budget=budget,
        )
        """Where the batches come from."""
        self.restraint: Restraint | None = restraint
        """What became of the mixer's bound and general start for this model and run; None where it does not
        ask (`trainer.mixers.restraint`)."""
        self._config, self._corpus, self._target = config, corpus, target
        self._loss, self._ranks = loss, ranks
        self._step = 0
        """Steps that were done at the last call of `after_step`."""
        self._alignment: AlignmentSource | None = None
        self._alignment_state: dict[str, Any] | None = None
        self._losses: DomainLosses | None = None
        if self._mixer.signal == "losses":
            self._losses = DomainLosses(view.k, ranks=ranks)
        self._drawn_from = self.stream.effective_probabilities

    @property
    def skipped_updates(self) -> int:
        """How often scores were not finite and the mixer stayed as it was."""
        return self._mixer.skipped_updates

    @property
    def num_steps(self) -> int:
        """Length of the run that was planned, in batches of the stream."""
        return self._config.num_steps

    @property
    def watches_training(self) -> bool:
        """Whether scores come from what passes inside `watching`."""
        return self._mixer.signal == "alignment" and self._config.estimator == "probe"

    @property
    def learns_from_losses(self) -> bool:
        """Whether the mixer wants to `observe` the training losses."""
        return self._losses is not None

    @property
    def scores_histograms(self) -> bool:
        """Whether alignment scores are of the basis histograms instead of the domains."""
        return isinstance(self._mixer, DistributionMixer)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Shape (m,): which of the scores say something: those of histograms, or of domains with samples."""
        if isinstance(self._mixer, DistributionMixer):
            return np.ones(len(self._mixer.basis), dtype=np.bool_)
        return self.stream.view.sizes > 0

    @property
    def steps_as_in_float32(self) -> bool:
        """Whether alignment is measured by two forward passes, as near to each other as float32 allows."""
        return (
            self._mixer.signal == "alignment"
            and self._config.estimator == "difference"
            and self._config.epsilon is None
            and chosen_epsilon(self._loss) == DEFAULT_EPSILON[torch.float32]
        )

    def scores_batch(self, step: int) -> bool:
        """Whether `watching` will score batch `step`, in an uncompiled pass."""
        return self._mixer.signal == "alignment" and self._alignment_source().scores_batch(step)

    @contextmanager
    def watching(
        self, step: int, positions: NDArray[np.int64], *, loss_scale: float | None = None
    ) -> Iterator[None]:
        """Put forward and backward pass of the samples at `positions` (n,) of batch `step` inside.

        Only `estimator="probe"` looks, on the steps whose turn it is. `loss_scale` is the factor with
        which a sample's loss enters what is differentiated, 1/n unless given; with gradient accumulation
        every micro-batch has a block of its own.
        """
        if self._mixer.signal != "alignment":
            yield
            return
        with self._alignment_source().watching(step, positions, loss_scale):
            yield

    def observe(self, losses: Tensor, domains: NDArray[np.int64]) -> None:
        """Show the mixer the losses (n,) of this rank's samples of the last batch, before `after_step`.

        Only a mixer that learns from losses (`odm`) looks at them. Nothing waits for a GPU here.
        """
        if self._losses is not None:
            self._losses.add(losses, domains, self._drawn_from)

    def after_step(self, step: int) -> Renewal | None:
        """Call between steps, `step` being the number of the stream's batches that were learned from.

        Renews the mixture when that has become due since the last call; it holds from the next batch that
        the stream plans on. Returns what happened, or None. Every rank calls it alike.
        """
        due = self.is_due(step)
        self._step = step
        renewal = self._renew(step) if due else None
        if self._losses is not None and step < self._config.num_steps:
            self._drawn_from = self.stream.effective_probabilities
        return renewal

    def is_due(self, step: int) -> bool:
        """Whether `after_step(step)` will renew the mixture, for which it may measure."""
        return step < self._config.num_steps and any(
            self._renews_at(done) for done in range(self._step + 1, step + 1)
        )

    @property
    def max_passes(self) -> float | None:
        """Bound on the passes over any domain; None is no bound."""
        budget = self.stream.budget
        return None if budget is None else budget.max_passes

    def details(self) -> dict[str, Any]:
        """What the mixer says of itself beside its mixture; plain JSON types."""
        details = self._mixer.details()
        if self.restraint is None:
            return details
        return {**details, "restraint": self.restraint.share, "max_passes": self.max_passes}

    def state_dict(self) -> dict[str, Any]:
        """The state of mixer and stream as plain JSON types; every rank has to call it."""
        if self._alignment is not None:
            self._alignment_state = self._alignment.state_dict()
        return {
            "step": self._step,
            "learner": self._learner,
            "mixer": self._mixer.state_dict(),
            "alignment": self._alignment_state,
            "losses": None if self._losses is None else self._losses.state_dict(),
            "stream": self.stream.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; `StateError` if it belongs to another stream, or kind of mixer."""
        learner = state.get("learner", self._learner)  # earlier versions did not say
        if self._learner not in (None, learner):
            raise StateError(
                f"the saved state is that of {learner or 'a mixer that learns nothing'}, and this is "
                f"{self._learner}, which cannot go on from it. Take the settings that it was saved with."
            )
        self.stream.load_state_dict(state["stream"])
        self._step = int(state["step"])
        self._mixer.load_state_dict(state["mixer"])
        self._alignment, self._alignment_state = None, state["alignment"]
        if self._losses is not None:
            self._losses.load_state_dict(state["losses"])
            if self.stream.step < self._config.num_steps:
                self._drawn_from = self.stream.effective_probabilities

    @property
    def _learner(self) -> str | None:
        """Whose state this is, in words; a mixer that learns nothing has none and can go on from any."""
        if self._mixer.signal == "nothing":
            return None
        kind: list[str] = [self.settings.method]
        if self.watches_training:
            kind.append("estimator='probe'")
        if self._mixer.signal == "alignment" and self._config.shrinks:
            kind.append("shrinkage='tree'")
        return ", ".join(kind)

    def _renews_at(self, step: int) -> bool:
        if self._mixer.wants_scores(step):
            return True
        if self._blend.moves and step % self.settings.update_every == 0:
            return True
        return self._mixer.mixture_at(step) is not self._mixer.mixture_at(step - 1)

    def _renew(self, step: int) -> Renewal:
        scores = None
        if self._losses is not None:
            self._mixer.update(step, self._losses.read())
        elif self._mixer.signal == "alignment":
            scores = self._alignment_source().scores(step)
            self._mixer.update(step, scores.values)
        mixture = self._blend(self._mixer.mixture_at(step), step, self.stream.samples_drawn)
        return Renewal(first_step=self.stream.set_mixture(mixture), scores=scores)

    def _alignment_source(self) -> AlignmentSource:
        """Made when first needed: by then the model is where it is trained."""
        if self._alignment is None:
            check_parameters_are_seen(self._loss)  # a trainer may have wrapped it since
            check_rank_measures_alone(self._loss, world_size=self._ranks.world_size)
            self._alignment = make_alignment_source(
                self._config,
                self._corpus,
                self.stream.view,
                self._target,
                self._loss,
                settings=self.settings,
                ranks=self._ranks,
                basis=self._mixer.basis if isinstance(self._mixer, DistributionMixer) else None,
            )
            if self._alignment_state is not None:
                self._alignment.load_state_dict(self._alignment_state)
        return self._alignment


def check_callback_can_steer(steering: Steering) -> None:
    """Raise ValueError where every sample's loss or gradient has to be seen, as callbacks do not."""
    if steering.watches_training:
        raise ValueError(
            "estimator='probe' looks into the backward pass, which this trainer does not show to callbacks. "
            "Use steering.watching in a loop of your own, or take estimator='difference'."
        )
    if steering.learns_from_losses:
        raise ValueError(
            f"the mixer {steering.settings.method!r} learns from the loss of every sample, which this "
            "trainer does not show to callbacks. Call steering.observe in a loop of your own, or take "
            "another mixer."
        )


def check_callback_ranks(steering: Steering, ranks: Ranks) -> None:
    """Raise ValueError where the stream is not the one of this process, `ranks`, in the trainer's run."""
    stream = steering.stream
    if (stream.rank, stream.world_size) != (ranks.rank, ranks.world_size):
        raise ValueError(
            f"the stream is that of rank {stream.rank} of {stream.world_size}, and this process is rank "
            f"{ranks.rank} of {ranks.world_size}: batches would be learned from twice, or by nobody. Make "
            "Steering once the processes have met (torch.distributed), or with ranks=Ranks(rank=…, "
            "world_size=…) from `trainer`."
        )


def warn_of_callback_steps(steering: Steering, batches: int) -> None:
    """Warn where the trainer takes more `batches` of the stream than Steering was planned for."""
    planned = steering.num_steps
    if batches > planned:
        warnings.warn(
            f"the trainer takes {batches:,} batches and Steering was planned for num_steps={planned:,}: the "
            "mixture stays as it is from there on. Set num_steps to the trainer's max_steps, times the "
            "micro-batches of a step.",
            stacklevel=3,
        )


def warn_of_callback_stream(steering: Steering, batches: int) -> None:
    """Warn where the stream goes on from elsewhere than after the `batches` that the trainer has taken."""
    step = steering.stream.step
    if step != batches:
        warnings.warn(
            f"the trainer goes on after {batches:,} batches and the stream after {step:,}: it is not the run "
            "that was stopped. A checkpoint that was saved within a step, as on an exception, leaves out "
            "what had been drawn for it; with another gradient accumulation the mixer counts wrongly. Go on "
            "from a checkpoint between steps, with the settings that it was saved with.",
            stacklevel=3,
        )


def warn_of_rounded_measurements(steering: Steering, computes: torch.dtype) -> None:
    """Warn where the model computes in 16 bits and alignment is measured with a step for float32."""
    if not steering.steps_as_in_float32:
        return
    warnings.warn(
        f"the trainer has the model compute in {computes}, also while alignment is measured, and the loss "
        "says float32, whose step is lost in the rounding: scores are mostly noise. Give TokenLoss "
        "compute_dtype=torch.bfloat16, or SteeringConfig "
        f"epsilon={default_epsilon(torch.float32, computes)}.",
        stacklevel=3,
    )


def current_ranks() -> Ranks:
    """This process in torch's process group, or alone if there is none."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size())
    return Ranks()


def _capacity(loss: nn.Module, corpus: Corpus) -> float:
    """Samples that a model could learn by heart, at a token for each parameter that it trains."""
    parameters = sum(each.numel() for each in loss.parameters() if each.requires_grad)
    return parameters / corpus.tokens_per_sample


def _basis(
    corpus: Corpus, view: View, config: SteeringConfig, settings: MixerSettings
) -> dict[str, Mixture] | None:
    if settings.method != "dga-distributions" or config.target is None:
        return None
    return basis_mixtures(corpus, view, config.target, config.basis, histogram=settings.histogram)
