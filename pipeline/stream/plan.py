"""Plans: the contents of several batches ahead, as arithmetic.

numpy is fast on many numbers and slow on few, so batches are planned some thousand samples at a time. A
plan reads nothing; a new mixture throws it away at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.samples.shards import SampleReader
from pipeline.stream.budget import RepetitionBudget, paced_probabilities
from pipeline.stream.mixture import Mixture
from pipeline.stream.order import SampleOrder
from pipeline.stream.sampler import Ints, draw_domains, keep_within, number_draws


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the batches this process serves: all steps but for DataLoader workers."""

    rows: slice
    """This rank's samples of a global batch."""
    first_step: int = 0
    every: int = 1
    """It serves the steps first_step, first_step + every, first_step + 2·every …"""

    def served(self, begin: int, end: int) -> range:
        """The steps of begin..end-1 that are this process's to serve."""
        return range(self.next_after(begin), end, self.every)

    def next_after(self, step: int) -> int:
        """The first step from `step` on that this process serves."""
        return step + (self.first_step - step) % self.every


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches first_step .. first_step + len(domains) - 1, computed ahead."""

    first_step: int
    domains: Ints
    """Shape (steps, batch_size): the global draw."""
    served: range
    """The steps whose batches this process serves; the arrays below have a row for each."""
    local_domains: Ints
    """Shape (served, batch_size / world_size)."""
    local_positions: Ints
    local_handles: Ints
    """Where those samples lie, as the corpus' reader says."""

    @property
    def end(self) -> int:
        """First step beyond the plan."""
        return self.first_step + len(self.domains)

    def drawn_before(self, step: int, k: int) -> Ints:
        """How often each of k domains is drawn in the planned batches before `step`: (k,)."""
        return np.bincount(self.domains[: step - self.first_step].ravel(), minlength=k)


@dataclass(frozen=True, slots=True)
class Planner:
    """Everything a plan depends on but the mixture and what was used before."""

    seed: int
    batch_size: int
    order: SampleOrder
    reader: SampleReader
    budget: RepetitionBudget | None
    share: Share
    reads_ahead: bool
    """Whether the reader gains from knowing what comes next: where blocks have to be fetched."""

    def plan(self, mixture: Mixture, used: Ints, first_step: int, length: int) -> Plan:
        """Plan up to `length` batches from `first_step` on, after `used` (k,) samples of each domain.

        Fewer where a budget ends sooner. Raises `BudgetError` beyond the budget's run.
        """
        domains = self.draw(mixture, used, first_step, length)
        served = self.share.served(first_step, first_step + len(domains))
        return Plan(first_step, domains, served, *self._located(domains, used, first_step))

    def _located(self, domains: Ints, used: Ints, first_step: int) -> tuple[Ints, Ints, Ints]:
        """Domains, positions and handles of what this process serves of the draw `domains`."""
        mine = slice(self.share.next_after(first_step) - first_step, None, self.share.every)
        numbers = number_draws(domains.ravel(), used).reshape(domains.shape)
        local_domains = domains[mine, self.share.rows]
        local_numbers = numbers[mine, self.share.rows]
        positions = self.order.positions(local_domains.ravel(), local_numbers.ravel())
        positions = positions.reshape(local_domains.shape)
        return local_domains, positions, self.reader.handles(positions)

    def outlook(self, mixture: Mixture, used: Ints, first_step: int, length: int) -> Ints:
        """Handles (n,) that would be read in `length` batches from `first_step` on if nothing changes.

        A budget is taken as it stands at `first_step`, so that this is a forecast and no plan.
        """
        shares = mixture.probabilities
        if self.budget is not None:
            length = min(length, self.budget.num_steps - first_step)
            if length < 1:
                return np.empty(0, dtype=np.int64)
            shares = paced_probabilities(mixture, self.budget, used, first_step, self.batch_size)
        steps = np.arange(first_step, first_step + length)
        domains = draw_domains(self.seed, steps, shares.cumsum(), self.batch_size)
        return self._located(domains, used, first_step)[2].ravel()

    def draw(self, mixture: Mixture, used: Ints, first_step: int, length: int) -> Ints:
        """Domains of the global batches, int64 (steps, batch_size); see `plan`."""
        steps = np.arange(first_step, first_step + length)
        if self.budget is None:
            cumulative = mixture.probabilities.cumsum()
            return draw_domains(self.seed, steps, cumulative, self.batch_size)
        # Under a budget the probabilities of a batch depend on the batch before it.
        used = used.copy()
        allowance = self.budget.allowance(mixture.view.sizes)
        batches: list[Ints] = []
        for step in steps:
            if batches and step == self.budget.num_steps:
                break
            shares = paced_probabilities(mixture, self.budget, used, int(step), self.batch_size)
            drawn = draw_domains(self.seed, step[None], shares.cumsum(), self.batch_size)[0]
            drawn = keep_within(drawn, allowance - used)
            used += np.bincount(drawn, minlength=len(used))
            batches.append(drawn)
        return np.stack(batches)
