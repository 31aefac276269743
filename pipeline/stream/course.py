"""The course of a stream: how far it has come, what was drawn, which mixture holds and which come later.

It goes forward by plans and reads nothing but ahead. The stream serves batches from it; the main process of
a DataLoader and each of its workers go through the same course.
"""

from __future__ import annotations

import numpy as np

from pipeline.stream.mixture import Mixture
from pipeline.stream.plan import Plan, Planner
from pipeline.stream.sampler import Ints

_SAMPLES_PER_PLAN = 4096
_SAMPLES_READ_AHEAD = 4 * _SAMPLES_PER_PLAN


class Course:
    """Stands before the batch `step`."""

    def __init__(self, planner: Planner, mixture: Mixture) -> None:
        self.planner = planner
        self.begin(0, np.zeros(mixture.view.k, dtype=np.int64), mixture, [])

    def begin(
        self, step: int, drawn: Ints, mixture: Mixture, changes: list[tuple[int, Mixture]]
    ) -> None:
        """Stand before `step`, with `drawn` (k,) samples used and `mixture` in force."""
        self.step = step
        self.mixture = mixture
        self.changes = changes
        """Mixtures that come into force later, by step."""
        self._drawn_before_plan = drawn
        self._plan: Plan | None = None
        self._read_ahead_until = 0

    @property
    def drawn(self) -> Ints:
        """Samples drawn from each domain before `step`, over all ranks: int64 (k,)."""
        if self._plan is None:
            return self._drawn_before_plan.copy()
        return self._drawn_before_plan + self._plan.drawn_before(self.step, self.mixture.view.k)

    def put_in_force(self, mixture: Mixture) -> None:
        """Draw from `mixture` from `step` on."""
        self.begin(self.step, self.drawn, mixture, self.changes)

    def serve(self, planner: Planner) -> None:
        """Plan with `planner`, for another share of the batches, from `step` on."""
        self.put_in_force(self.mixture)
        self.planner = planner

    def move_to(self, step: int) -> None:
        """Go forward to just before `step`; mixtures come into force on the way."""
        while self.changes and self.changes[0][0] <= step:
            holds_from, mixture = self.changes.pop(0)
            self._count_to(holds_from)
            self.put_in_force(mixture)
        self._count_to(step)

    def _count_to(self, step: int) -> None:
        while self.step < step:
            self.step = min(step, self.plan.end)

    @property
    def plan(self) -> Plan:
        """The plan that holds `step`; after a change of mixture the first one is short."""
        plan = self._plan
        if plan is not None and self.step < plan.end:
            return plan
        every = self.planner.share.every
        longest = every * -(-_SAMPLES_PER_PLAN // self.planner.batch_size)
        length = every if plan is None else min(2 * len(plan.domains), longest)
        drawn = self.drawn
        plan = self.planner.plan(self.mixture, drawn, self.step, length)
        self._drawn_before_plan, self._plan = drawn, plan  # not before: there may be no plan
        if self.planner.reads_ahead:
            self._read_ahead(plan)
        return plan

    def _read_ahead(self, plan: Plan) -> None:
        """Have the blocks of the plan fetched, and those of draws beyond it.

        Within a domain the order of samples does not depend on the mixture. So what is fetched for a
        mixture that is then replaced is what its domains need next under any other.
        """
        share = self.planner.share
        horizon = share.every * max(1, _SAMPLES_READ_AHEAD // self.planner.batch_size)
        if self._read_ahead_until - plan.end > horizon // 2:
            return
        self._read_ahead_until = plan.end + horizon
        drawn = self._drawn_before_plan + plan.drawn_before(plan.end, self.mixture.view.k)
        beyond = self.planner.outlook(self.mixture, drawn, plan.end, horizon)
        self.planner.reader.read_ahead(np.concatenate([plan.local_handles.ravel(), beyond]))
