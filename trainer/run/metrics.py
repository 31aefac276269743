"""Metrics as JSON Lines, one object per line, and what is recorded of a mixture."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import FetchStatistics, Mixture, MixtureStream
from pipeline.samples.packing import packed
from trainer.alignment.alignment import Scores

_DENSE_DOMAINS = 1024
_SPARSE_DOMAINS = 256


class MetricsWriter:
    """Appends records to a file that a checkpoint can cut back to where it stood.

    Without a path, as on all ranks but the first, it writes nothing. Use it as a context.
    """

    def __init__(self, path: Path | None, *, keep_bytes: int) -> None:
        """Open `path` and keep its first `keep_bytes` bytes: what came later will be done again."""
        self._file = None if path is None else path.open("ab")
        if self._file is not None:
            self._file.truncate(keep_bytes)

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one record; numbers that are not finite become null, which JSON has for them."""
        if self._file is None:
            return
        record = {"event": event, "step": step, **values}
        line = json.dumps(_finite(record), allow_nan=False, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring all records to the disk; the length of the file in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


class MixtureHistory:
    """Turns mixtures into records and keeps what "how far did it move" is measured from."""

    def __init__(self, first: Mixture) -> None:
        self._first = first
        self._last = first
        self._effective = first.probabilities

    def record(
        self,
        stream: MixtureStream,
        *,
        steps: int,
        scores: Scores | None,
        of_histograms: bool = False,
    ) -> dict[str, Any]:
        """The fields of a "mixture" record for what `stream` draws from at this moment.

        "weights" is what was put in force, "effective" what is left of it by the repetition budget; at
        the end of the run (`steps`) no batch follows, and the last record's is repeated. Where "weights"
        cannot list all domains, "weights_packed" has them whenever they moved, so that the run can be
        replayed (`trainer.mixers.schedule`). Scores `of_histograms` of a basis are "basis_scores".
        """
        mixture = stream.mixture
        if stream.step < steps:
            self._effective = stream.effective_probabilities
        fields: dict[str, Any] = {
            "weights": domain_values(mixture.probabilities),
            "effective": domain_values(self._effective),
            "entropy": mixture.entropy,
            "effective_domains": mixture.effective_domains,
            "moved": mixture.distance(self._last),
            "moved_total": mixture.distance(self._first),
            "passes": domain_values(stream.passes),
            "scores": None,
        }
        if mixture.view.k > _DENSE_DOMAINS and (mixture is self._first or mixture != self._last):
            fields["weights_packed"] = packed(mixture.probabilities)
        if scores is not None:
            fields["basis_scores" if of_histograms else "scores"] = domain_values(scores.values)
            fields["target_batch_loss"] = scores.target_loss
            fields["target_gradient_norm"] = scores.target_gradient_norm
        self._last = mixture
        return fields

    def state_dict(self) -> dict[str, Any]:
        """The last record's mixture, before and after the budget, as plain JSON types."""
        return {
            "last": self._last.probabilities.tolist(),
            "effective": self._effective.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._last = Mixture(self._first.view, np.array(state["last"]))
        self._effective = np.array(state["effective"])


def fetch_fields(statistics: FetchStatistics) -> dict[str, Any]:
    """The field "fetch" of a "train" record: what object storage has cost so far; none of a local corpus."""
    if not statistics.blocks_needed:
        return {}
    return {"fetch": {**asdict(statistics), "hit_rate": statistics.hit_rate}}


def domain_values(values: NDArray[np.float64]) -> list[float] | dict[str, list[Any]]:
    """One number per domain (k,): a list, or beyond 1,024 domains the 256 largest by magnitude."""
    if len(values) <= _DENSE_DOMAINS:
        return values.tolist()  # type: ignore[no-any-return]
    index = np.sort(np.argsort(-np.abs(values), kind="stable")[:_SPARSE_DOMAINS])
    return {"index": index.tolist(), "value": values[index].tolist()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
