"""Weights from a file: a plan that someone wrote, or what another run was steered by.

One JSON object per line:

    {"step": 0, "weights": [0.2, 0.8]}
    {"step": 500, "weights": {"index": [1], "value": [1.0]}}

Weights hold from their step until the next line's. A run's metrics.jsonl is such a file (its lines that are
no "mixture" records are passed over), and weights that sum to 1 are taken to the last bit: with the same
seed, batch size and repetition budget a replay draws the very same samples. With `replay=last` the last
weights hold from the start on: what the run found out, frozen.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import Mixture, MixtureError, View
from pipeline.samples.packing import unpacked
from trainer.mixers.fixed import FixedMixer

_SUM_TOLERANCE = 1e-9


class ScheduleMixer(FixedMixer):
    """The mixtures of `plan` from their steps on; the first must hold from step 0."""

    def __init__(self, plan: Mapping[int, Mixture]) -> None:
        if 0 not in plan:
            raise MixtureError(
                f"the schedule begins at step {min(plan, default=None)}; it must say what step 0 draws from."
            )
        super().__init__(plan[0])
        steps = sorted(plan)
        # A line that changes nothing renews nothing.
        self._steps = steps[:1] + [now for last, now in pairwise(steps) if plan[now] != plan[last]]
        self._mixtures = [plan[step] for step in self._steps]

    def mixture_at(self, step: int) -> Mixture:
        """The last mixture of the plan whose step has come."""
        return self._mixtures[bisect_right(self._steps, step) - 1]

    def frozen(self) -> ScheduleMixer:
        """The plan's last mixture, from step 0 on."""
        return ScheduleMixer({0: self._mixtures[-1]})


def read_schedule(path: Path, view: View) -> ScheduleMixer:
    """Read a schedule over `view`; `MixtureError` names the line that does not fit."""
    plan: dict[int, Mixture] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MixtureError(
            f"the schedule {path} cannot be read: {error}. Name a text file of weights, for instance the "
            "metrics.jsonl of another run."
        ) from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if record.get("event", "mixture") != "mixture":
                continue
            if _lists_a_part(record):  # the whole was packed when it last moved
                continue
            plan[int(record["step"])] = _mixture(record, view)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise MixtureError(
                f"{path}:{number} is no line of a schedule over {view.k} domains ({error}). A line is "
                '{"step": 0, "weights": [...]}, with as many weights as --k says.'
            ) from error
    return ScheduleMixer(plan)


def _lists_a_part(record: Mapping[str, Any]) -> bool:
    """Whether it is a run's record of some of its domains, with nothing new in it."""
    return (
        "event" in record and isinstance(record["weights"], dict) and "weights_packed" not in record
    )


def _mixture(record: Mapping[str, Any], view: View) -> Mixture:
    weights = _weights(record, view)
    if weights.shape == (view.k,) and abs(float(weights.sum()) - 1) <= _SUM_TOLERANCE:
        return Mixture(view, weights)
    return Mixture.from_weights(view, weights)


def _weights(record: Mapping[str, Any], view: View) -> NDArray[np.float64]:
    """All k weights of a record, which names them one by one, or in part with the rest packed."""
    if "weights_packed" in record:
        return unpacked(record["weights_packed"], np.float64)
    weights = record["weights"]
    if not isinstance(weights, dict):
        return np.array(weights, dtype=np.float64)
    dense = np.zeros(view.k)
    dense[np.array(weights["index"], dtype=np.int64)] = weights["value"]
    return dense
