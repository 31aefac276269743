"""Measurements as they come in, kept in a file, so that a long run can be stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any


class Results:
    """Measurements and refusals by (k, loader, workers)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self._lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def add(self, k: int, loader: str, workers: int, found: dict[str, float]) -> None:
        """Keep one measurement."""
        self._keep({"k": k, "loader": loader, "workers": workers, "found": found})

    def give_up(self, k: int, loader: str, workers: Iterable[int], reason: str) -> None:
        """This loader is not tried again at this k or a larger one."""
        for count in workers:
            self._keep({"k": k, "loader": loader, "workers": count, "reason": reason})

    def count(self, k: int, loader: str, workers: int) -> int:
        """Measurements so far."""
        return len(self._found(k, loader, workers))

    def gave_up(self, k: int, loader: str, workers: int) -> str:
        """Why there is no measurement at this k; empty when nothing is known against one."""
        for line in self._lines:
            if "reason" in line and (line["loader"], line["workers"]) == (loader, workers):
                if line["k"] == k:
                    return str(line["reason"])
                if line["k"] < k:
                    return "-"
        return ""

    def median(self, k: int, loader: str, workers: int, quantity: str) -> float | None:
        """Over the rounds."""
        found = [each[quantity] for each in self._found(k, loader, workers) if quantity in each]
        return median(found) if found else None

    def ratios(self, k: int, workers: int, loader: str, other: str, quantity: str) -> list[float]:
        """One loader's measurements over another's, round by round."""
        pairs = zip(self._found(k, loader, workers), self._found(k, other, workers), strict=False)
        return [mine[quantity] / its[quantity] for mine, its in pairs]

    def _found(self, k: int, loader: str, workers: int) -> list[dict[str, float]]:
        wanted = {"k": k, "loader": loader, "workers": workers}
        return [
            line["found"]
            for line in self._lines
            if "found" in line and all(line[name] == value for name, value in wanted.items())
        ]

    def _keep(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
