"""Who runs the units of a stage: this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

Device = Literal["cpu", "cuda"]

AHEAD = 2
"""Units handed to each worker before it asks: enough to keep it busy, few to lose."""


class UnitTask(Protocol):
    """The work of one stage, unit by unit.

    A picklable value: it carries the work store and options, and loads what is heavy (a model) when it is
    first called, once per process. A unit reads what earlier stages published, and publishes its output
    last; doing it twice gives the same bytes.
    """

    @property
    def device(self) -> Device:
        """What a worker needs to itself: a GPU, or just a core."""

    def __call__(self, unit: int) -> int:
        """Do one unit; returns the number of documents (or samples) worked on."""


@runtime_checkable
class SteppedTask(Protocol):
    """A task whose units take long enough that people want to see them move."""

    def steps(self, unit: int) -> Iterator[int]:
        """Do one unit; gives the number of documents worked on since it last did."""


class Engine(Protocol):
    """Runs units in any order, in any process, on any machine."""

    def run(self, task: UnitTask, units: Sequence[int], advance: Callable[[int], None]) -> None:
        """Do all `units`; `advance` is called with the documents worked on since its last call.

        The error of a unit ends the run and reaches the caller; units that have finished stay finished.
        """
