"""Run folders, read back: what a training run wrote becomes plain rows and arrays.

Everything here tolerates a run that is still going or was stopped: such a run has metrics but no
`result.json`, and `Run.finished` says so. Nothing is inferred that the run did not write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import BraidstreamError
from trainer.targets import target_weights

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
"""Names in the folder of a run, for whoever writes one, too."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class ResultsError(BraidstreamError):
    """A run folder that cannot be read as one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainValues:
    """One number per domain at one step, as (index, value) pairs.

    Runs over more than 1,024 domains record only their largest values, so pairs are the general
    form and a full record is the case in which every domain is listed.
    """

    index: Integers
    """Shape (m,): domains that are listed."""
    value: Floats
    """Shape (m,): their values; a domain that is not listed counts as 0."""

    @staticmethod
    def parse(record: Any) -> DomainValues | None:
        """Read a dense list, an {"index", "value"} object, or null."""
        if record is None:
            return None
        if isinstance(record, dict):
            index = np.asarray(record["index"], dtype=np.int64)
            return DomainValues(index=index, value=_floats(record["value"]))
        value = _floats(record)
        return DomainValues(index=np.arange(len(value), dtype=np.int64), value=value)

    def dense(self, k: int) -> Floats:
        """All k values, shape (k,)."""
        values = np.zeros(k)
        values[self.index] = self.value
        return values

    def top(self, count: int) -> list[tuple[int, float]]:
        """The `count` largest as (domain, value), largest first."""
        order = np.argsort(-np.nan_to_num(self.value, nan=-np.inf), kind="stable")[:count]
        return [(int(self.index[i]), float(self.value[i])) for i in order]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluations:
    """Losses in nats per token over the run; arrays have shape (n,), NaN where nothing was recorded."""

    steps: Integers
    target_loss: dict[str, Floats]
    """Loss on the target's test blocks."""
    target_train_loss: dict[str, Floats]
    """Loss on the target's train blocks: the ones that steer, never trained on directly."""
    generic_loss: Floats
    """Loss on held-out blocks in natural proportions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureHistory:
    """The mixture over the run: one record per mixer update and per evaluation, in step order."""

    steps: Integers
    weights: tuple[DomainValues, ...]
    """What the mixer asked for."""
    effective: tuple[DomainValues, ...]
    """What was sampled, after the repetition budget."""
    passes: tuple[DomainValues, ...]
    """How often each domain had been seen."""
    scores: tuple[DomainValues | None, ...]
    """Alignment scores, where the record comes from a mixer that has them."""
    effective_domains: Floats
    """Shape (n,), exp(entropy)."""

    def most_repeated(self) -> Floats:
        """Passes on the most repeated domain, shape (n,)."""
        return np.array([record.value.max(initial=0.0) for record in self.passes], dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthWarning:
    """A warning of `trainer.health`, as the run recorded it."""

    step: int
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run as its folder tells it."""

    name: str
    """Name of the folder."""
    config: dict[str, Any]
    """The resolved settings, from config.json."""
    result: dict[str, Any] | None
    """What result.json says; None while the run is unfinished."""
    evaluations: Evaluations
    mixtures: MixtureHistory
    warnings: tuple[HealthWarning, ...]
    """In the order in which they came up."""
    unreadable_lines: int
    """Lines of metrics.jsonl that are no JSON: a run that was killed while it wrote leaves one."""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.result is not None

    @property
    def mixer(self) -> str:
        """Name of the mixer."""
        return str(self.config["mixer"])

    @property
    def k(self) -> int:
        """Number of domains of the view that the mixer steered."""
        return int(self.config["k"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def target(self) -> str | None:
        """The steering target; None for a mixer that has none."""
        target = self.config.get("target")
        return None if target is None else str(target)

    def targets(self) -> tuple[str, ...]:
        """Targets for which this run counts: the one that steered it, else all it evaluated."""
        if self.target is not None:
            return (self.target,)
        return tuple(self.evaluations.target_loss)


def read_runs(folder: Path) -> list[Run]:
    """Read all runs directly inside `folder`, by name; folders without config.json are no runs."""
    runs = [read_run(path.parent) for path in sorted(folder.glob(f"*/{CONFIG_FILE}"))]
    steering = dict.fromkeys(run.target for run in runs if run.target is not None)
    return [_with_mixed_targets(run, tuple(steering)) for run in runs]


def read_run(folder: Path) -> Run:
    """Read one run folder. Raises `ResultsError` where its config or result is damaged."""
    config = _read_object(folder / CONFIG_FILE)
    if missing := [name for name in ("mixer", "k", "seed") if name not in config]:
        raise ResultsError(
            f"{folder / CONFIG_FILE} does not say {', '.join(missing)}; this is not the folder of a "
            "`braidstream train` run, or of another version. Move it away, or choose another --out."
        )
    result_path = folder / RESULT_FILE
    records, unreadable = read_metrics(folder / METRICS_FILE)
    return Run(
        name=folder.name,
        config=config,
        result=_read_object(result_path) if result_path.exists() else None,
        evaluations=_evaluations(_of_event(records, "eval")),
        mixtures=_mixtures(_of_event(records, "mixture")),
        warnings=_warnings(records),
        unreadable_lines=unreadable,
    )


def _with_mixed_targets(run: Run, targets: Sequence[str]) -> Run:
    """A run that no target steers also counts for several sets with weights that steered another."""
    if run.target is not None:
        return run
    found = run.evaluations
    test, train = dict(found.target_loss), dict(found.target_train_loss)
    for target in targets:
        weights = target_weights(target, tuple(test))
        if target not in test and set(weights) <= set(test):
            for losses in (test, train):
                parts = [weight * losses[name] for name, weight in weights.items()]
                losses[target] = np.sum(parts, axis=0)
    return replace(run, evaluations=replace(found, target_loss=test, target_train_loss=train))


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All records of metrics.jsonl and the number of lines that are no JSON; ([], 0) without file."""
    if not path.exists():
        return [], 0
    records: list[dict[str, Any]] = []
    unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                unreadable += 1
                continue
            if isinstance(record, dict):
                records.append(record)
    return records, unreadable


def _of_event(records: Iterable[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    """Records of one kind in step order; of a step that a resumed run did again, the last one."""
    by_step = {int(record["step"]): record for record in records if record.get("event") == event}
    return [by_step[step] for step in sorted(by_step)]


def _evaluations(records: Sequence[dict[str, Any]]) -> Evaluations:
    return Evaluations(
        steps=_steps(records),
        target_loss=_by_name(records, "target_loss"),
        target_train_loss=_by_name(records, "target_train_loss"),
        generic_loss=_floats([record.get("generic_loss") for record in records]),
    )


def _mixtures(records: Sequence[dict[str, Any]]) -> MixtureHistory:
    nothing = DomainValues(index=np.zeros(0, dtype=np.int64), value=np.zeros(0))

    def column(name: str) -> tuple[DomainValues, ...]:
        return tuple(DomainValues.parse(record.get(name)) or nothing for record in records)

    return MixtureHistory(
        steps=_steps(records),
        weights=column("weights"),
        effective=column("effective"),
        passes=column("passes"),
        scores=tuple(DomainValues.parse(record.get("scores")) for record in records),
        effective_domains=_floats([record.get("effective_domains") for record in records]),
    )


def _warnings(records: Sequence[dict[str, Any]]) -> tuple[HealthWarning, ...]:
    """Each once: a resumed run says again what it said after its checkpoint."""
    found = (
        HealthWarning(
            step=int(record["step"]), kind=str(record["kind"]), message=str(record["message"])
        )
        for record in records
        if record.get("event") == "health"
    )
    return tuple(dict.fromkeys(found))


def _by_name(records: Sequence[dict[str, Any]], field: str) -> dict[str, Floats]:
    names = dict.fromkeys(name for record in records for name in record.get(field) or {})
    return {
        name: _floats([(record.get(field) or {}).get(name) for record in records]) for name in names
    }


def _steps(records: Sequence[dict[str, Any]]) -> Integers:
    return np.array([record["step"] for record in records], dtype=np.int64)


def _floats(values: Sequence[float | None]) -> Floats:
    """None, which JSON has for what was not measured, becomes NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}). Remove the folder {path.parent.name!r} and run the "
            "comparison again: only that run is repeated."
        ) from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path} should hold one JSON object, found {type(content).__name__}.")
    return content
