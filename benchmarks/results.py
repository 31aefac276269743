"""Measurements of loaders: by number of domains, loader and workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.kept_lines import KeptLines


class Results:
    """Measurements and refusals by (k, loader, workers)."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._kept = KeptLines(path, settings)

    def add(self, k: int, loader: str, workers: int, found: dict[str, float]) -> None:
        """Keep one measurement."""
        self._kept.add({"k": k, "loader": loader, "workers": workers, "found": found})

    def give_up(self, k: int, loader: str, workers: Iterable[int], reason: str) -> None:
        """This loader is not tried again at this k or a larger one."""
        for count in workers:
            self._kept.add({"k": k, "loader": loader, "workers": count, "reason": reason})

    def count(self, k: int, loader: str, workers: int) -> int:
        """Measurements so far."""
        return len(self._found(k, loader, workers))

    def gave_up(self, k: int, loader: str, workers: int) -> str:
        """Why there is no measurement at this k; empty when nothing is known against one."""
        for line in self._kept.lines:
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
            for line in self._kept.lines
            if "found" in line and all(line[name] == value for name, value in wanted.items())
        ]
