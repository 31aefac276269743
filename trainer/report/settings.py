"""What the runs of a report have in common, what differs between them, and what to beware of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trainer.mixers import MEASURED, READ_BY, VARIED
from trainer.results.results import Run
from trainer.run.config import TrainConfig

_VARIED = frozenset({"mixer", "k", "target", "seed", "evaluate", "corpus", "health"})
"""What the grid varies, a path, and thresholds of warnings; what else differs is pointed out."""
_MIXERS_OWN = frozenset({*VARIED, *READ_BY})
"""Settings that follow from the mixer; listed per mixer. Those of `MEASURED` say something of the mixers that
read them: they may differ from mixer to mixer, and are listed per mixer where they do."""


def common_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Settings that all runs share, by name, without those that the grid or the mixer sets."""
    if not runs:
        return []
    hidden = _VARIED | _MIXERS_OWN
    return [
        (name.replace("_", " "), _text(value))
        for name, value in runs[0].config.items()
        if name not in hidden and all(run.config.get(name) == value for run in runs)
    ]


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Names of settings that differ between runs although the grid does not vary them."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    return [name for name in names if name not in _VARIED | _MIXERS_OWN and _differs(name, runs)]


def _differs(name: str, runs: Sequence[Run]) -> bool:
    """Whether runs differ in a setting; in one of measuring, whether runs of the same mixer do."""
    found: dict[str, set[str]] = {}
    for run in runs:
        value = json.dumps(run.config.get(name), sort_keys=True)
        found.setdefault(run.mixer if name in MEASURED else "", set()).add(value)
    return any(len(values) > 1 for values in found.values())


def mixer_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Per mixer, the settings of its own, as its runs recorded them."""
    defaults = TrainConfig().to_json()
    measured = {
        name
        for name in MEASURED
        if any(run.config.get(name) != runs[0].config.get(name) for run in runs)
    }
    by_mixer: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = {
            name: run.config.get(name)
            for name in sorted(_MIXERS_OWN | measured)
            if name in _MIXERS_OWN or run.config.get(name) != defaults[name]
        }
        by_mixer.setdefault(run.mixer, {n: v for n, v in own.items() if v not in (None, [])})
    return [
        (
            mixer,
            ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in own.items()),
        )
        for mixer, own in by_mixer.items()
    ]


def make_notes(runs: Sequence[Run]) -> list[str]:
    """What a reader should know before believing the table."""
    notes = []
    if unfinished := [run.name for run in runs if not run.finished]:
        notes.append(f"Unfinished, drawn but not counted in the table: {', '.join(unfinished)}.")
    if names := differing_settings(runs):
        notes.append(f"The runs differ in more than the grid varies: {', '.join(names)}.")
    if damaged := sum(run.unreadable_lines for run in runs):
        notes.append(f"{damaged} lines of metrics are unreadable and were left out.")
    return notes


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
