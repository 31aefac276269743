"""Measurements as they come in, kept as JSON lines in a file, where a stopped benchmark goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class KeptLines:
    """What was measured with these settings. A file that holds measurements of others is refused.

    Args:
        path: The file, which need not be there; None keeps nothing beyond the process.
        settings: All that makes a difference to every line, of plain JSON types.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path = path
        self._settings = settings
        known = path.read_text("utf-8").splitlines() if path and path.exists() else []
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in known]
        """Each as it was added, with `settings`."""
        for line in self.lines:
            if line.get("settings") != settings:
                raise SystemExit(
                    f"{path} has measurements with {line.get('settings')}, and this is {settings}. Name "
                    "another --results."
                )

    def add(self, line: dict[str, Any]) -> None:
        """Keep one measurement."""
        self.lines.append({**line, "settings": self._settings})
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.lines[-1]) + "\n")
