"""Stages that a rerun does not repeat.

    WORK/STAGE/key         what the stage was begun with (hash of its inputs and options)
    WORK/STAGE/done.json   its record; written last, so its presence means that the stage is complete

A stage whose key differs from the stored one is begun anew; one without a record is continued or
repeated, as the stage itself sees fit. The key of a stage contains the keys of those it reads, so
a changed option restarts the first stage that it affects and everything behind that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clustering.errors import BuildError
from clustering.progress import Progress, peak_memory_bytes


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
    """Most memory that the process had held by the end of the stage."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the stage found out: counts, names."""
    reused: bool = False
    """Finished by an earlier run."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """A stage while it runs. Do the work when `todo`; put what later stages need to know into `facts`."""

    name: str
    key: str
    folder: Path
    todo: bool
    facts: dict[str, Any]
    units: int = 0
    progress: Progress

    def advance(self, units: int) -> None:
        """Report `units` as worked on."""
        self.units += units
        self.progress.advance(units)

    def skip(self, units: int) -> None:
        """Report `units` as found finished."""
        self.progress.skip(units)


class Workspace:
    """The work folder of one build; locked, so that two builds never share it."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress
        self.records: list[StageRecord] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; released even when the process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BuildError(
                    f"another build is at work in {str(self.folder.parent)!r}; a folder takes one at a time. "
                    "Wait for it, or give another --out."
                ) from None
            yield

    @contextmanager
    def stage(
        self,
        name: str,
        *,
        unit: str,
        total: int | None,
        depends_on: Mapping[str, Any],
        outputs: Sequence[Path] = (),
    ) -> Iterator[Stage]:
        """Open a stage: finished (`todo` is False), or to be done in `folder` before the block ends.

        Args:
            name: Name of the stage and of its folder.
            unit: What it counts, in the plural.
            total: How many there are; None when that is not known.
            depends_on: Everything the result depends on, as plain JSON; keys of other stages included.
            outputs: Files outside the stage's folder that must exist for it to count as finished.
        """
        key = hash_of({"stage": name, **depends_on})
        folder = self.folder / name
        record = _finished(folder, key)
        if record is not None and all(path.is_file() for path in outputs):
            self.records.append(record)
            yield Stage(
                name=name,
                key=key,
                folder=folder,
                todo=False,
                facts=record.facts,
                progress=self.progress,
            )
            return
        _begin(folder, key)
        stage = Stage(
            name=name, key=key, folder=folder, todo=True, facts={}, progress=self.progress
        )
        started = time.monotonic()
        with self.progress.task(name, unit=unit, total=total):
            yield stage
        record = StageRecord(
            name=name,
            key=key,
            units=stage.units,
            unit=unit,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory_bytes(),
            facts=stage.facts,
        )
        write_json(folder / "done.json", asdict(record))
        self.records.append(record)


def hash_of(content: Any) -> str:
    """sha256 (hex) over plain JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is there complete or not at all."""
    with published(path) as partial:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


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


def _begin(folder: Path, key: str) -> None:
    key_file = folder / "key"
    if not key_file.is_file() or key_file.read_text("utf-8") != key:
        _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key_file.write_text(key, encoding="utf-8")


def _finished(folder: Path, key: str) -> StageRecord | None:
    done = folder / "done.json"
    if not done.is_file():
        return None
    content = json.loads(done.read_text("utf-8"))
    if content["key"] != key:
        return None
    return StageRecord(**{**content, "reused": True})


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
