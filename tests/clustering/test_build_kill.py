"""`kill -9` at random moments of every stage: the rerun makes the same corpus, repeats no finished unit.

A build is killed in one stage after the other, and each time goes on with what is there. Where a kill landed
is read from what it left; `make test-slow` prints a table of that.
"""

from __future__ import annotations

import random
import shutil
import signal
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import pytest

from clustering.add_config import AddConfig
from clustering.config import BuildConfig, TargetSource
from pipeline import CorpusError, open_corpus
from tests.clustering.conftest import (
    KINDS,
    documents_of,
    small_config,
    write_lines,
    write_model,
)
from tests.clustering.nursery import Nursery
from tests.clustering.observer import CLEANING, Event, Kill, Orders, read_journal

STAGES = [
    "targets",
    "read",
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
"""Of a build, in its order; an addition has some of them."""
NOT_IN_ADDITIONS = {"targets", "embed-targets", "describe"}
LAST_OF_A_UNIT = {
    "read": "unit-*.json",
    "embed": "part-*.arrow",
    "assign": "part-*.arrow",
    "tokenize": "part-*.arrow",
    "order": "run-*.arrow",
    "write": "unit-*.json",
    "describe": "part-*.arrow",
}
"""What a unit publishes last, with its number, in the stages that have several."""
WAYS = ["moment", "rename", "after rename", "event"]
"""To choose when to kill: from outside at a moment of the stage's time, or from inside before an event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A build or an addition, what it comes to when nobody kills it, and what it then does when."""

    config: BuildConfig | AddConfig
    fingerprint: str
    names: set[str]
    """Every file that it leaves."""
    events: list[Event]

    @property
    def stages(self) -> list[str]:
        """In order."""
        adds = isinstance(self.config, AddConfig)
        return [stage for stage in STAGES if not (adds and stage in NOT_IN_ADDITIONS)]

    def in_folder(self, folder: Path) -> BuildConfig | AddConfig:
        """The same in a new place; for an addition, with the corpus that it adds to."""
        if isinstance(self.config, BuildConfig):
            return replace(self.config, out=folder)
        shutil.copytree(Path(self.config.corpus).with_name("before"), folder)
        return replace(self.config, corpus=str(folder))

    def kill(self, stage: str, way: str, chance: random.Random) -> Kill:
        """A kill of a stage, by chance."""
        events = [event for event in self.events if event.stage == stage]
        if way == "moment":
            times = [event.seconds for event in events]
            moment = chance.uniform(times[0], times[-1])
            number = bisect_right(times, moment) - 1
            return Kill(stage=stage, number=number, later=moment - times[number])
        if way == "event":
            return Kill(stage=stage, number=chance.randrange(len(events)))
        renames = sum(event.event == "os.rename" for event in events)
        return Kill(stage=stage, at=way, number=chance.randrange(max(1, renames)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a build that was killed has left in its work."""

    stage: str
    """The first that is not finished."""
    finished: set[tuple[str, int]]
    """Units, with their stage."""
    stamps: dict[Path, tuple[int, int]]
    """Of every file of finished stages and units, what publishing it again would change."""
    unpublished: bool
    """Whether there are files in the scratch folder."""

    @classmethod
    def of(cls, work: Path, stages: Sequence[str]) -> Left:
        """Look at it."""
        done = [(work / stage / "done.json").is_file() for stage in [*stages, CLEANING]]
        current = [*stages, CLEANING][done.index(False)] if work.is_dir() else CLEANING
        ends = {
            stage: list((work / stage).glob(pattern)) for stage, pattern in LAST_OF_A_UNIT.items()
        }
        found = [path for paths in ends.values() for path in paths]
        for stage, is_done in zip(stages, done, strict=False):
            found += [path for path in (work / stage).rglob("*") if path.is_file() and is_done]
        return cls(
            stage=current,
            finished={
                (s, int(path.stem.split("-")[1])) for s, paths in ends.items() for path in paths
            },
            stamps={path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found},
            unpublished=any(path.is_file() for path in (work / "scratch").rglob("*")),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Landing:
    """Where a kill landed."""

    stage: str
    units: int
    """In progress."""
    unpublished: bool
    """A file was written, or being written, and not yet published."""
    kept: int
    """Finished units of all stages."""


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
        folder / "built",
        cooking_target,
        model=str(write_model(folder / "model")),
        device="cpu",
        tokens_per_sample=16,
        block_bytes=256,
        shard_bytes=1_024,
        part_documents=16,
    )


Undisturbed = Callable[[BuildConfig | AddConfig], Job]


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery) -> Undisturbed:
    """Does a job that nobody kills."""

    def do(config: BuildConfig | AddConfig) -> Job:
        folder = folder_of(config)
        journal = folder.with_suffix(".journal")
        assert nursery.run(config, Orders(journal=journal, folder=folder)) == 0
        return Job(
            config=config,
            fingerprint=open_corpus(folder).fingerprint,
            names=names_in(folder),
            events=read_journal(journal),
        )

    return do


@pytest.fixture(scope="module")
def building(undisturbed: Undisturbed, small_build: BuildConfig) -> Job:
    return undisturbed(small_build)


@pytest.fixture(scope="module")
def adding(
    undisturbed: Undisturbed, building: Job, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """120 new documents and 40 old ones, in 8 files, to a corpus without the work of its build."""
    folder = tmp_path_factory.mktemp("adding")
    (folder / "texts").mkdir()
    for kind in KINDS:
        texts = [*documents_of(kind, 30, seed=9), *documents_of(kind, 10)]
        for begin in (0, 20):
            write_lines(folder / "texts" / f"{kind}-{begin}.jsonl", texts[begin : begin + 20])
    ignore = shutil.ignore_patterns(".build")
    for name in ("before", "after"):
        shutil.copytree(folder_of(building.config), folder / name, ignore=ignore)
    assert isinstance(building.config, BuildConfig)
    return undisturbed(
        AddConfig(
            corpus=str(folder / "after"),
            texts=(str(folder / "texts"),),
            model=building.config.model,
            device="cpu",
            part_documents=16,
        )
    )


def folder_of(config: BuildConfig | AddConfig) -> Path:
    return config.folder if isinstance(config, BuildConfig) else Path(config.corpus)


def work_of(config: BuildConfig | AddConfig) -> Path:
    work = folder_of(config) / ".build"
    return work if isinstance(config, BuildConfig) else work / "add"


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def do_with_kills(
    nursery: Nursery, job: Job, kills: Iterable[Kill], folder: Path, *, workers: int = 1
) -> list[Landing]:
    """Do a job that is killed and begun again until nobody kills it: it ends as if nothing had been.

    Returns where the kills landed.
    """
    config = replace(job.in_folder(folder / "corpus"), workers=workers)
    work = work_of(config)
    landings: list[Landing] = []
    left = Left.of(work, job.stages)
    for kill in [*kills, None]:
        if kill is not None and (work / kill.stage / "done.json").exists():
            continue  # the kill before came late
        journal = folder / f"{len(landings)}.journal"
        orders = Orders(journal=journal, folder=folder_of(config), kill=kill)
        code = nursery.run(config, orders)
        assert code in (0, -signal.SIGKILL), f"killed before: {landings}"
        events = read_journal(journal)
        before, left = left, Left.of(work, job.stages)
        units = {
            word: {(e.stage, int(e.name)) for e in events if e.event == word}
            for word in ("begin", "end")
        }
        assert not units["begin"] & before.finished
        if left.stage != CLEANING:
            assert {path: left.stamps[path] for path in before.stamps} == before.stamps
        if code == 0:
            break
        if isinstance(config, BuildConfig) and left.stage not in ("finish", CLEANING):
            with pytest.raises(CorpusError, match="not a corpus"):
                open_corpus(config.folder)
        landings.append(
            Landing(
                stage=left.stage,
                units=len(units["begin"] - units["end"]),
                unpublished=left.unpublished,
                kept=len(left.finished),
            )
        )
    assert code == 0
    assert open_corpus(folder_of(config)).fingerprint == job.fingerprint
    assert names_in(folder_of(config)) == job.names
    return landings


def test_a_build_that_is_killed_again_and_again_repeats_no_unit(
    nursery: Nursery, building: Job, chance: random.Random, tmp_path: Path
) -> None:
    kills = [
        building.kill(stage, way, chance) for stage, way in zip(STAGES, cycle(WAYS), strict=False)
    ]
    landings = do_with_kills(nursery, building, kills, tmp_path)
    assert len(landings) >= 12


def test_an_addition_that_is_killed_again_and_again_repeats_no_unit(
    nursery: Nursery, adding: Job, chance: random.Random, tmp_path: Path
) -> None:
    kills = [adding.kill(stage, "rename", chance) for stage in ("read", "embed", "write", "finish")]
    landings = do_with_kills(nursery, adding, kills, tmp_path)
    assert [landing.stage for landing in landings] == ["read", "embed", "write", "finish"]


def test_an_addition_that_is_killed_while_it_cleans_up_is_no_obstacle(
    nursery: Nursery, adding: Job, chance: random.Random, tmp_path: Path
) -> None:
    landings = do_with_kills(nursery, adding, [adding.kill(CLEANING, "event", chance)], tmp_path)
    assert [landing.stage for landing in landings] == [CLEANING]


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_kills_in_every_stage(
    nursery: Nursery,
    building: Job,
    adding: Job,
    undisturbed: Undisturbed,
    small_build: BuildConfig,
    chance: random.Random,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    static = replace(small_build, model="static", out=tmp_path / "static")
    undisturbed(replace(static, out=tmp_path / "first"))  # later ones find the token vectors
    rounds = [
        ("build", building, building.stages, 1, 4),
        ("build, static", undisturbed(static), ["static-model", "embed", "embed-targets"], 1, 2),
        ("build, 2 workers", building, list(LAST_OF_A_UNIT), 2, 2),
        ("add", adding, [*adding.stages, CLEANING], 1, 2),
        ("add, 2 workers", adding, ["read", "embed", "write"], 2, 1),
    ]
    for name, job, stages, workers, wanted in rounds:
        landings: dict[str, list[Landing]] = defaultdict(list)
        for turn in range(2 * wanted):
            if all(len(landings[stage]) >= wanted for stage in stages):
                break
            kills = [
                job.kill(stage, WAYS[(number + turn) % len(WAYS)], chance)
                for number, stage in enumerate(stages)
            ]
            folder = tmp_path / f"{name}-{turn}"
            folder.mkdir()
            for landing in do_with_kills(nursery, job, kills, folder, workers=workers):
                landings[landing.stage].append(landing)
            shutil.rmtree(folder)
        with capsys.disabled():
            print_table(name, landings)
        assert all(len(landings[stage]) >= wanted for stage in stages)


def print_table(name: str, landings: dict[str, list[Landing]]) -> None:
    print(f"\n{name:<20} kills  in a unit  before a rename  units kept")
    for stage, there in landings.items():
        numbers = (
            len(there),
            sum(at.units > 0 for at in there),
            sum(at.unpublished for at in there),
        )
        print("  {:<18} {:5}  {:9}  {:15}".format(stage, *numbers), end="")
        print(f"  {sum(at.kept for at in there):10}")
