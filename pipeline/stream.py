"""The stream: batches without end from a mixture that may change before any of them.

What batch t holds depends only on the seed, t, the samples used so far, and the mixture in force; every
rank computes the same draw and keeps its slice. Batches are planned a few ahead, because numpy is fast
on many and slow on few; a plan is only arithmetic, so a new mixture throws it away at no cost.
docs/stream.md says what is guaranteed.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.budget import RepetitionBudget, paced_probabilities
from pipeline.corpus import Corpus
from pipeline.errors import MixtureError, StateError
from pipeline.mixture import Mixture
from pipeline.sampler import Ints, draw_domains, keep_within, locate, number_draws
from pipeline.view import View

STATE_VERSION = 1
_SAMPLES_PER_PLAN = 4096


class Batch(NamedTuple):
    """This rank's part of one global batch of n · world_size samples."""

    step: int
    """Index of the global batch, from 0."""
    tokens: NDArray[Any]
    """Shape (n, tokens_per_sample), uint16 or uint32; the memory is the caller's."""
    domains: NDArray[np.int64]
    """Shape (n,): the domain of the view that each sample was drawn for."""
    positions: NDArray[np.int64]
    """Shape (n,): position of each sample in the corpus."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Batches first_step .. first_step + len - 1, computed ahead."""

    first_step: int
    domains: Ints
    """Shape (steps, batch_size): the global draw."""
    local_domains: Ints
    """Shape (steps, batch_size / world_size): this rank's slice of it."""
    local_positions: Ints
    local_handles: Ints
    """Where those samples lie, as the corpus' reader says."""


class MixtureStream(Iterator[Batch]):
    """Endless batches of `corpus`, drawn from `mixture` and from whatever `set_mixture` puts in force.

    `batch_size` counts the samples of the global batch; each of `world_size` ranks gets an equal part of
    it. With a `budget`, no domain repeats more often than it allows, and the stream serves exactly the
    steps that the budget was planned for. Raises `ValueError` for sizes and ranks that do not fit,
    `MixtureError` for a mixture over another corpus, `BudgetError` for a budget too small for its run.
    """

    def __init__(
        self,
        corpus: Corpus,
        mixture: Mixture,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        budget: RepetitionBudget | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size} counts the global batch and must be a positive multiple of "
                f"world_size={world_size}, so that every rank gets the same number of samples."
            )
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank={rank} must lie in 0..{world_size - 1} (world_size={world_size})."
            )
        if mixture.view.corpus_fingerprint != corpus.fingerprint:
            raise MixtureError(
                f"the mixture belongs to corpus {mixture.view.corpus_fingerprint[:12]}, the stream to "
                f"corpus {corpus.fingerprint[:12]}; make the mixture from corpus.domains(…)."
            )
        if budget is not None:
            budget.check(mixture.view.sizes, batch_size)
        self.corpus = corpus
        self.batch_size = batch_size
        self.seed = seed
        self.budget = budget
        self.wait_seconds = 0.0
        """Seconds spent waiting for sample bytes since this object was made."""
        self._local = slice(
            rank * (batch_size // world_size), (rank + 1) * (batch_size // world_size)
        )
        self._step = 0
        self._used = np.zeros(mixture.view.k, dtype=np.int64)
        self._put_in_force(mixture)

    @property
    def step(self) -> int:
        """Index of the next batch."""
        return self._step

    @property
    def mixture(self) -> Mixture:
        """The mixture in force for the next batch."""
        return self._mixture

    @property
    def view(self) -> View:
        """The view that mixtures and domain numbers refer to."""
        return self._mixture.view

    @property
    def samples_drawn(self) -> NDArray[np.int64]:
        """Samples drawn from each domain so far, over all ranks: int64 (k,)."""
        drawn = self._used.copy()
        if self._plan is not None:
            np.add.at(drawn, self._plan.domains[: self._step - self._plan.first_step].ravel(), 1)
        return drawn

    @property
    def passes(self) -> NDArray[np.float64]:
        """Passes over each domain so far: float64 (k,); 0 for empty domains."""
        return np.divide(self.samples_drawn, np.maximum(self.view.sizes, 1), dtype=np.float64)

    @property
    def effective_probabilities(self) -> NDArray[np.float64]:
        """What the next batch is drawn from, after the budget: float64 (k,)."""
        if self.budget is None:
            return self._mixture.probabilities
        return paced_probabilities(
            self._mixture, self.budget, self.samples_drawn, self._step, self.batch_size
        )

    def set_mixture(self, mixture: Mixture) -> int:
        """Draw from `mixture` from the very next batch on; returns that batch's step.

        The mixture must be over the stream's view: `mixture.to(stream.view)` carries it there.
        """
        if mixture.view != self.view:
            raise MixtureError(
                f"the mixture is over {mixture.view}, the stream over {self.view}; carry it over with "
                "mixture.to(stream.view)."
            )
        self._used = self.samples_drawn
        self._put_in_force(mixture)
        return self._step

    def __next__(self) -> Batch:
        """The next batch; it never ends on its own."""
        plan = self._plan
        if plan is None or self._step - plan.first_step == len(plan.domains):
            plan = self._next_plan()
        row = self._step - plan.first_step
        started = time.perf_counter()
        tokens = self.corpus.reader.copy(plan.local_handles[row])
        self.wait_seconds += time.perf_counter() - started
        batch = Batch(self._step, tokens, plan.local_domains[row], plan.local_positions[row])
        self._step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with exactly the next batch, on any number of ranks.

        Plain JSON types; 8 bytes per domain before compression for each of counts and mixture.
        """
        return {
            **self._identity(),
            "step": self._step,
            "samples_drawn": _pack(self.samples_drawn),
            "mixture": _pack(self._mixture.probabilities),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; `StateError` lists what differs if it does not fit."""
        differences = [
            f"{name}: saved {state.get(name)!r}, this stream {value!r}"
            for name, value in self._identity().items()
            if state.get(name) != value
        ]
        if differences:
            raise StateError(
                "the saved state belongs to another stream ("
                + "; ".join(differences)
                + "). Open the "
                "corpus, view and settings that it was saved with."
            )
        self._step = int(state["step"])
        self._used = _unpack(state["samples_drawn"], "<i8").astype(np.int64)
        self._put_in_force(Mixture(self.view, _unpack(state["mixture"], "<f8")))

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "corpus": self.corpus.fingerprint,
            "domains": self.view.k,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "budget": None if self.budget is None else asdict(self.budget),
        }

    def _put_in_force(self, mixture: Mixture) -> None:
        self._mixture = mixture
        self._cumulative = mixture.probabilities.cumsum()
        self._plan: _Plan | None = None

    def _next_plan(self) -> _Plan:
        """Plan one batch after a change of mixture, then twice as many each time, up to a limit."""
        self._used = self.samples_drawn
        length = 1 if self._plan is None else 2 * len(self._plan.domains)
        steps = self._step + np.arange(min(length, -(-_SAMPLES_PER_PLAN // self.batch_size)))
        domains = self._draw(steps)
        numbers = number_draws(domains.ravel(), self._used).reshape(domains.shape)
        local_domains, local_numbers = domains[:, self._local], numbers[:, self._local]
        positions = locate(
            self.seed, local_domains.ravel(), local_numbers.ravel(), self.view.offsets
        )
        positions = positions.reshape(local_domains.shape)
        handles = self.corpus.reader.handles(positions)
        self._plan = _Plan(self._step, domains, local_domains, positions, handles)
        return self._plan

    def _draw(self, steps: Ints) -> Ints:
        if self.budget is None:
            return draw_domains(self.seed, steps, self._cumulative, self.batch_size)
        # Under a budget the probabilities of a batch depend on the batch before it.
        steps = steps[steps < self.budget.num_steps] if steps[0] < self.budget.num_steps else steps
        used = self._used.copy()
        allowance = self.budget.allowance(self.view.sizes)
        batches = []
        for step in steps:
            shares = paced_probabilities(
                self._mixture, self.budget, used, int(step), self.batch_size
            )
            drawn = draw_domains(self.seed, step[None], shares.cumsum(), self.batch_size)[0]
            drawn = keep_within(drawn, allowance - used)
            np.add.at(used, drawn, 1)
            batches.append(drawn)
        return np.stack(batches)


def _pack(values: NDArray[Any]) -> str:
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little_endian.tobytes(), level=1)).decode("ascii")


def _unpack(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)
