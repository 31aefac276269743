"""Follows a run from outside: how far its metrics are, and how its log ends."""

from __future__ import annotations

import json
from pathlib import Path

_LOG_LINES = 20
_LOG_BYTES = 16_384


class MetricsTail:
    """Reads metrics.jsonl as it grows and keeps the latest numbers.

    A run that continues from a checkpoint cuts its metrics back; the tail then starts again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.step = 0
        """Latest step of any record."""
        self.target_loss: dict[str, float | None] = {}
        """Target losses of the latest evaluation."""
        self.generic_loss: float | None = None
        """Generic loss of the latest evaluation."""

    def read(self) -> None:
        """Take in the complete lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = self.step = 0
                file.seek(self._offset)
                lines = file.read()
        except FileNotFoundError:
            return
        complete = lines[: lines.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return  # A killed run leaves half a line, which the report counts.
        self.step = max(self.step, int(record["step"]))
        if record["event"] == "eval":
            self.target_loss = record["target_loss"]
            self.generic_loss = record["generic_loss"]


def end_of_log(path: Path) -> str:
    """The last lines of a log, indented; says so when there is nothing in it."""
    if not path.exists() or path.stat().st_size == 0:
        return "    (nothing)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])
