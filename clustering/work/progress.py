"""Progress of a build: bars on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_SECONDS = 10.0


class Progress:
    """Shows one task at a time on stderr, with its rate and the time that is left."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._name = self._unit = ""
        self._total: int | None = None
        self._done = self._skipped = 0
        self._started = self._shown = 0.0

    @contextmanager
    def task(self, name: str, *, unit: str, total: int | None) -> Iterator[None]:
        """Show a task until the block ends."""
        self._name, self._unit, self._total = name, unit, total
        self._done = self._skipped = 0
        self._started = self._shown = time.monotonic()
        if self._quiet:
            yield
        elif sys.stderr.isatty():
            with _rich_bar() as self._bar:
                self._task = self._bar.add_task(name, total=total, unit=unit, rate="")
                yield
            self._bar = None
        else:
            yield
            self._print_line("done")

    def advance(self, units: int) -> None:
        """Count units that were worked on."""
        self._done += units
        self._show()

    def skip(self, units: int) -> None:
        """Count units that an earlier run had finished; they do not enter the rate."""
        self._skipped += units
        self._show()

    def note(self, text: str) -> None:
        """Say something beside the bars."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @property
    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _show(self) -> None:
        if self._bar is not None:
            rate = f"{self._rate:,.0f} {self._unit}/s" if self._done else ""
            self._bar.update(self._task, completed=self._done + self._skipped, rate=rate)
        elif self._quiet or self._done + self._skipped == self._total:
            return  # the line that the task ends with says it
        elif time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            self._print_line(self._time_left())

    def _time_left(self) -> str:
        if self._total is None or not self._done:
            return "running"
        seconds = max(0, self._total - self._done - self._skipped) / self._rate
        return f"{_duration(seconds)} left"

    def _print_line(self, state: str) -> None:
        of = "" if self._total is None else f" of {self._total:,}"
        count = f"{self._done + self._skipped:,}{of} {self._unit}, {self._rate:,.0f}/s, "
        if not self._total and not self._done + self._skipped:  # nothing is counted here
            count = ""
        print(f"{self._name}: {count}{state}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
