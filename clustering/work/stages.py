"""Stages that a rerun does not repeat, made of units that a rerun does not repeat.

    WORK/STAGE/key         what the stage was begun with (hash of its inputs and options)
    WORK/STAGE/done.json   its record; written last, so its presence means that the stage is complete

A stage whose key differs from the stored one is begun anew; one without a record continues with the units
whose outputs are missing. The key of a stage contains the keys of those it reads, so a changed option
restarts the first stage that it affects and everything behind that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from clustering.engines.engine import Engine, UnitTask
from clustering.engines.local_engine import LocalEngine
from clustering.errors import BuildError
from clustering.work.peak_memory import PeakMemory
from clustering.work.progress import Progress
from clustering.work.work_store import SCRATCH, LocalWork, WorkStore


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """What is remembered about a finished stage."""

    name: str
    key: str
    units: int
    """Documents (or samples) worked on in the run that finished the stage."""
    unit: str
    seconds: float
    """Of the run that finished the stage."""
    peak_memory_bytes: int
    """Most memory that this process and its workers held at once during the stage (`PeakMemory`)."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the stage found out: counts, names."""
    reused: bool = False
    """Finished by an earlier run."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """A stage while it runs. Do the work when `todo`; put what later stages need to know into `facts`."""

    name: str
    key: str
    todo: bool
    facts: dict[str, Any]
    units: int = 0
    progress: Progress
    store: WorkStore
    engine: Engine

    def advance(self, units: int) -> None:
        """Report `units` as worked on."""
        self.units += units
        self.progress.advance(units)

    def skip(self, units: int) -> None:
        """Report `units` as found finished."""
        self.progress.skip(units)

    def run(self, task: UnitTask, outputs: Sequence[str], sizes: Sequence[int] = ()) -> None:
        """Do the units of a task that are not done yet.

        Args:
            task: What to do.
            outputs: For each unit, the name that it publishes last: what is there is done.
            sizes: For each unit, what to report as skipped when it is.
        """
        there = set(self.store.names(f"{self.name}/"))
        missing = [unit for unit, name in enumerate(outputs) if name not in there]
        self.skip(sum(size for name, size in zip(outputs, sizes, strict=False) if name in there))
        if missing:
            self.engine.run(task, missing, self.advance)


class Workspace:
    """Where one build works: a locked folder on this machine, and the work store (in it, or elsewhere)."""

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        *,
        store: WorkStore | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.folder = folder
        self.progress = progress
        self.store = store or LocalWork(folder.absolute())
        self.engine = engine or LocalEngine()
        self.records: list[StageRecord] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, and that of the work store, so that two builds never share one.

        Released even when the process dies.
        """
        folders = [self.folder, *([self.store.folder] if isinstance(self.store, LocalWork) else [])]
        with ExitStack() as held:
            for folder in dict.fromkeys(folder.resolve() for folder in folders):
                _lock(held.enter_context(_lock_file(folder)), folder)
            self.store.remove(f"{SCRATCH}/")  # left by processes that were killed
            yield

    @contextmanager
    def stage(
        self,
        name: str,
        *,
        unit: str,
        total: int | None,
        depends_on: Mapping[str, Any],
        is_there: Callable[[dict[str, Any]], bool] = lambda facts: True,
        before: Callable[[], None] = lambda: None,
    ) -> Iterator[Stage]:
        """Open a stage: finished (`todo` is False), or to be done before the block ends.

        Args:
            name: Name of the stage, and the prefix of what it publishes.
            unit: What it counts, in the plural.
            total: How many there are; None when that is not known.
            depends_on: Everything the result depends on, as plain JSON; keys of other stages included.
            is_there: Given its facts, whether what it left outside the work store is there; else it is to be
                done though it has a record.
            before: Called when it is to be done, before what it published earlier is removed.
        """
        key = hash_of({"stage": name, **depends_on})
        record = self._finished(name, key)
        stage = Stage(
            name=name,
            key=key,
            todo=record is None or not is_there(record.facts),
            facts={} if record is None else record.facts,
            progress=self.progress,
            store=self.store,
            engine=self.engine,
        )
        if record is not None and not stage.todo:
            self.records.append(record)
            yield stage
            return
        before()
        self._begin(name, key)
        stage.facts = {}
        started = time.monotonic()
        with PeakMemory() as peak, self.progress.task(name, unit=unit, total=total):
            yield stage
        record = StageRecord(
            name=name,
            key=key,
            units=stage.units,
            unit=unit,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak.bytes,
            facts=stage.facts,
        )
        self.store.publish(f"{name}/done.json", as_json(asdict(record)))
        self.records.append(record)

    def _begin(self, name: str, key: str) -> None:
        if self._key(name) != key:
            # Nobody's key first: were the removal interrupted, what is left would count as some build's.
            self.store.publish(f"{name}/key", b"")
            self.store.remove(f"{name}/")
            self.store.publish(f"{name}/key", key.encode())

    def _finished(self, name: str, key: str) -> StageRecord | None:
        done = f"{name}/done.json"
        if self._key(name) != key or not self.store.exists(done):
            return None
        return StageRecord(**{**json.loads(self.store.content(done)), "reused": True})

    def _key(self, name: str) -> str | None:
        key_name = f"{name}/key"
        return self.store.content(key_name).decode() if self.store.exists(key_name) else None


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / "lock").open("w")
    except OSError as error:
        raise BuildError(
            f"cannot write to {str(folder)!r} ({error.strerror}). Give a folder that you may write to: "
            "to a build as --out or --work; to an addition as the corpus, a copy of which will do."
        ) from None


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BuildError(
            f"another build is at work in {str(folder.parent)!r}; a folder takes one at a time, as --out or "
            "as --work. Wait for it, or give another."
        ) from None


def hash_of(content: Any) -> str:
    """sha256 (hex) over plain JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there complete or not at all."""
    with published(path) as partial:
        partial.write_bytes(as_json(content))


def as_json(content: Any) -> bytes:
    """Plain JSON that a person can read, too."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a temporary path; what is written there appears at `path` when the block ends well."""
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    yield partial
    for file in [partial] if partial.is_file() else partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if path.is_dir():
        _remove(path)
    partial.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
