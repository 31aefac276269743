"""What a build does to its files, written down as it does it, and a kill at one of these moments.

Python tells an audit hook what it is about to do with files. Each event becomes a line of a journal before it
happens, so the last lines of a process that was killed say where it was.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clustering.engines.engine import Device, Engine, UnitTask

NAMED_BY = {
    "open": 0,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.rename": 1,
    "os.link": 1,
}
"""Events, and which of their arguments says what they are about."""
CLEANING = "clean-up"
"""What follows the last stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """Where a build is killed: at an event of a stage, or some time after it."""

    stage: str
    at: Literal["event", "rename", "after rename"] = "event"
    number: int = 0
    """Which event of this kind, from 0; if a process comes to the end of the stage first, then there."""
    later: float = 0.0
    """Seconds after the event, for a kill from outside; without, the process kills its group at the event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What to write down, and where to die."""

    journal: Path
    folder: Path
    """What happens in it is written down."""
    kill: Kill | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A line of the journal."""

    seconds: float
    process: int
    stage: str
    event: str
    """Of Python's audit events; or `begin` and `end` of a unit."""
    name: str
    """What it is about, relative to the folder; or the number of the unit."""


def read_journal(path: Path) -> list[Event]:
    """What has happened, in order."""
    lines = (line.split(" ", 4) for line in path.read_text("utf-8").splitlines())
    return [
        Event(seconds=int(time) / 1e9, process=int(process), stage=stage, event=event, name=name)
        for time, process, stage, event, name in lines
    ]


class _Observer:
    """Of this process."""

    def __init__(self, orders: Orders) -> None:
        self.stage = "-"
        self._folder = f"{orders.folder}/"
        self._journal = os.open(orders.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._kill = orders.kill
        self._seen = 0
        self._is_after_rename = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if event not in NAMED_BY:
            return
        name = arguments[NAMED_BY[event]]
        if not isinstance(name, str | os.PathLike):
            return
        name = os.fspath(name)
        if name.startswith(self._folder):
            self.note(event, name.removeprefix(self._folder))
        elif event in ("os.remove", "os.rmdir") and arguments[-1] != -1:
            self.note(event, name)  # relative to a folder that is being removed

    def note(self, event: str, name: str) -> None:
        """Write an event down, and die if it is the one."""
        marker = re.fullmatch(r"\.build/(?:add/)?([a-z-]+)/(key|done\.json)", name)
        if marker and marker[2] == "key":
            self.stage = marker[1]
        line = f"{time.monotonic_ns()} {os.getpid()} {self.stage} {event} {name}\n"
        os.write(self._journal, line.encode())
        is_end = marker is not None and marker[2] == "done.json" and event == "os.rename"
        self._die_if_told(event, is_end)
        if is_end and self.stage == "finish":
            self.stage = CLEANING

    def _die_if_told(self, event: str, is_end: bool) -> None:
        kill = self._kill
        if kill is None or kill.stage != self.stage:
            return
        is_of_kind = {
            "event": True,
            "rename": event == "os.rename",
            "after rename": self._is_after_rename,
        }[kill.at]
        self._is_after_rename = event == "os.rename"
        self._seen += is_of_kind
        if self._seen <= kill.number and not is_end:
            return
        self._kill = None
        if kill.later:
            os.write(1, b"reached\n")  # whoever started the build does the rest
        else:
            os.killpg(0, signal.SIGKILL)
            signal.pause()


_observer: _Observer | None = None


def observe(orders: Orders) -> _Observer:
    """Watch this process from now on."""
    global _observer
    if _observer is None:
        _observer = _Observer(orders)
        sys.addaudithook(_observer.hook)
    return _observer


@dataclass(frozen=True, kw_only=True, slots=True)
class _ObservedTask:
    """A task that writes down which of its units were begun, in whatever process."""

    task: UnitTask
    stage: str
    orders: Orders

    @property
    def device(self) -> Device:
        return self.task.device

    def __call__(self, unit: int) -> int:
        observer = observe(self.orders)
        observer.stage = self.stage
        observer.note("begin", str(unit))
        done = self.task(unit)
        observer.note("end", str(unit))
        return done


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservedEngine:
    """An engine whose processes are watched, too."""

    engine: Engine
    orders: Orders

    def run(self, task: UnitTask, units: Sequence[int], advance: Callable[[int], None]) -> None:
        """See `Engine`."""
        stage = observe(self.orders).stage
        observed = _ObservedTask(task=task, stage=stage, orders=self.orders)
        self.engine.run(observed, units, advance)
