"""`kill -9` at random moments of every stage: the rerun makes the same corpus, repeats no finished unit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from clustering.config import BuildConfig, TargetSource
from pipeline import open_corpus
from tests.clustering.conftest import (
    KINDS,
    documents_of,
    small_config,
    write_lines,
    write_model,
)
from tests.clustering.nursery import Nursery

STAGES = [
    "read",
    "targets",
    "dedupe",
    "roles",
    "static-model",
    "embed",
    "embed-targets",
    "fit",
    "assign",
    "tokenizer",
    "tokenize",
    "order",
    "plan",
    "write",
    "describe",
    "finish",
]
"""In the order of a build."""
LAST_OF_A_UNIT = {
    "read": "unit-*.json",
    "embed": "part-*.arrow",
    "assign": "part-*.arrow",
    "tokenize": "part-*.arrow",
    "order": "run-*.arrow",
    "write": "unit-*.json",
    "describe": "part-*.arrow",
}
"""What a unit publishes last, in the stages that have more than one."""

moments = random.Random(0)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def small_build(
    tmp_path_factory: pytest.TempPathFactory, cooking_target: TargetSource
) -> BuildConfig:
    """400 short documents in 16 files, and an embedding model that is made in no time."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "texts").mkdir()
    for kind in KINDS:
        texts = documents_of(kind, 100)
        for begin in range(0, 100, 25):
            write_lines(folder / "texts" / f"{kind}-{begin}.jsonl", texts[begin : begin + 25])
    return small_config(
        folder / "texts",
        folder / "unbroken",
        cooking_target,
        model=str(write_model(folder / "model")),
        device="cpu",
        tokens_per_sample=16,
        block_bytes=256,
        shard_bytes=1_024,
        part_documents=16,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Undisturbed:
    """What a build comes to that nobody kills."""

    config: BuildConfig
    fingerprint: str
    names: set[str]
    """Every file that it leaves."""
    seconds: dict[str, float]
    """Of each stage."""


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, small_build: BuildConfig) -> Callable[[str], Undisturbed]:
    """The undisturbed build for trials of a stage: with the static model where that is to be distilled."""
    known: dict[str, Undisturbed] = {}

    def of(stage: str) -> Undisturbed:
        model = "static" if stage == "static-model" else small_build.model
        if model not in known:
            out = small_build.folder.with_name(f"unbroken-{len(known)}")
            config = replace(small_build, model=model, out=out)
            nursery.start(config)
            assert nursery.join() == 0
            known[model] = Undisturbed(
                config=config,
                fingerprint=open_corpus(out).fingerprint,
                names=names_in(out),
                seconds={stage: seconds_of(out / ".build" / stage) for stage in STAGES},
            )
        return known[model]

    return of


def seconds_of(stage: Path) -> float:
    """How long a finished stage took."""
    return float(json.loads((stage / "done.json").read_text("utf-8"))["seconds"])


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def published_in(work: Path) -> dict[Path, tuple[int, int]]:
    """What finished stages and finished units have published, with what publishing it again would change."""
    found: list[Path] = []
    for stage in STAGES:
        if (work / stage / "done.json").is_file():
            found += (path for path in (work / stage).rglob("*") if path.is_file())
        elif stage in LAST_OF_A_UNIT:
            found += (work / stage).glob(LAST_OF_A_UNIT[stage])
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def build_until_killed(stage: str, seconds: float, config: BuildConfig, nursery: Nursery) -> bool:
    """Kill a new build at a random moment of a stage that takes `seconds`; whether it came to that."""
    process = nursery.start(config)
    while not (config.folder / ".build" / stage).is_dir():
        time.sleep(0.0002)
    time.sleep(moments.uniform(0, seconds))
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return nursery.join() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("stage", "trials"),
    [("write", 1)] + [pytest.param(stage, 4, marks=pytest.mark.slow) for stage in STAGES],
)
def test_a_build_that_was_killed_ends_in_the_same_corpus_and_repeats_no_unit(
    stage: str,
    trials: int,
    undisturbed: Callable[[str], Undisturbed],
    nursery: Nursery,
    tmp_path: Path,
) -> None:
    expected = undisturbed(stage)
    while trials:
        config = replace(expected.config, out=tmp_path / f"corpus-{trials}")
        if not build_until_killed(stage, expected.seconds[stage], config, nursery):
            shutil.rmtree(config.folder)
            continue
        published = published_in(config.folder / ".build")
        nursery.start(config)
        assert nursery.join() == 0
        assert open_corpus(config.out).fingerprint == expected.fingerprint
        assert names_in(config.folder) == expected.names
        after = published_in(config.folder / ".build")
        assert {path: after[path] for path in published} == published
        trials -= 1
