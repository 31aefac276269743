from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.build import BuildReport
from clustering.config import BuildConfig
from clustering.embedding.embedding_parts import publish_vectors
from clustering.errors import BuildError, InputError
from clustering.suggest_command import main
from clustering.trees.suggest import Granularity, fitted_vectors, suggest, survey
from clustering.work.work_store import LocalWork, RemoteWork
from tests.servers.store_server import StoreServer


def kinds(number: int, count: int, *, groups: int = 0) -> NDArray[np.float16]:
    """Vectors of so many kinds, in random order; the kinds of a group are like each other."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(number, 24))
    if groups:
        own += 2 * rng.normal(size=(groups, 24))[np.arange(number) % groups]
    points = own[rng.integers(number, size=count)]
    points += 0.15 * rng.normal(size=points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


def row(k: int, *, stability: float, explained: float, passes: float | None = 1.0) -> Granularity:
    return Granularity(k=k, stability=stability, explained=explained, tokens=100, passes=passes)


def test_as_many_domains_as_there_are_kinds() -> None:
    rows = survey(kinds(16, 4_000), corpus_tokens=None, train_tokens=None)
    found = suggest(rows)
    assert found.k == 16
    assert found.branching == (64,)
    assert next(each for each in rows if each.k == 16).stability > 0.9


def test_all_vectors_of_the_halves_are_counted() -> None:
    counted: list[int] = []
    survey(kinds(8, 3_000), corpus_tokens=None, train_tokens=None, advance=counted.append)
    assert sum(counted) == fitted_vectors(3_000)


def test_a_small_corpus_stops_before_domains_repeat_too_much() -> None:
    vectors = kinds(64, 6_000, groups=4)  # else nothing but chance decides about few domains
    rows = survey(vectors, corpus_tokens=1_000_000, train_tokens=8_000_000)
    found = suggest(rows)
    assert found.k < suggest(survey(vectors, corpus_tokens=None, train_tokens=None)).k
    assert "passes" in found.reason


def test_unstable_domains_are_not_recommended() -> None:
    found = suggest(
        (
            row(2, stability=0.3, explained=0.1),
            row(4, stability=0.8, explained=0.3),
            row(8, stability=0.4, explained=0.5),
        )
    )
    assert found.k == 4
    assert "another sample" in found.reason


def test_too_few_vectors_are_an_error() -> None:
    with pytest.raises(BuildError, match="too few"):
        survey(kinds(4, 100), corpus_tokens=None, train_tokens=None)


def test_vectors_that_are_all_equal_are_an_error() -> None:
    equal = np.repeat(kinds(4, 1), 600, axis=0)
    with pytest.raises(BuildError, match="600 vectors are all but equal"):
        survey(equal, corpus_tokens=None, train_tokens=None)


def test_the_command_reads_parts_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = kinds(16, 2_000)
    store = LocalWork(tmp_path / "work")
    for part, begin in enumerate(range(0, 2_000, 500)):
        ids = [f"{number}" for number in range(begin, begin + 500)]
        publish_vectors(store, f"embed/part-{part:05}.arrow", ids, vectors[begin : begin + 500])
    page = tmp_path / "page" / "suggest.html"
    assert main([str(tmp_path / "work"), "--corpus-tokens", "100000000", "--html", str(page)]) == 0
    assert "k = 16" in capsys.readouterr().out
    assert "Start from 16 domains" in page.read_text()
    with pytest.raises(
        BuildError, match=r"page' is a folder; it takes the name of the page's file"
    ):
        main([str(tmp_path / "work"), "--html", str(page.parent)])


@pytest.mark.parametrize("name", ["b.arrow", "c.arrow"])
def test_vectors_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    store = LocalWork(tmp_path)
    vectors = kinds(4, 100)
    publish_vectors(store, "a.arrow", ["a"] * 100, vectors)
    if name == "b.arrow":
        vectors[7, 3] = np.nan
        message = r"b.arrow: the vector in row 7 has the norm nan"
    else:
        vectors = vectors[:, :5]
        message = r"c.arrow: vectors of 5 numbers, and of 24 in the files before"
    publish_vectors(store, name, ["b"] * 100, vectors)
    with pytest.raises(InputError, match=message):
        main(["--embeddings", str(tmp_path)])


def test_vectors_may_be_in_a_bucket(s3: StoreServer, new_prefix: str) -> None:
    address = s3.address(new_prefix)
    publish_vectors(RemoteWork(address), "embed/a.arrow", ["a"] * 100, kinds(4, 100))
    with pytest.raises(BuildError, match="100 vectors are too few"):
        main(["--embeddings", address])


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_is_none_is_refused(seed: str) -> None:
    with pytest.raises(BuildError, match=rf"--seed is {seed}; it must lie between 0"):
        main(["corpus", "--seed", seed])


def test_a_folder_without_embeddings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no embeddings"):
        main([str(tmp_path)])
    with pytest.raises(
        BuildError, match=r"there is no folder '.*/nowhere': give one that `braidstream"
    ):
        main([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("groups", "advice"), [(8, "has this view.*--k 8"), (16, "--branching 64")]
)
def test_what_the_corpus_has_is_not_built_again(
    built: BuildReport,
    build_config: BuildConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    groups: int,
    advice: str,
) -> None:
    assert built.manifest.tree.levels[-1] == 12
    shutil.copytree(build_config.out, tmp_path / "corpus")
    store = LocalWork(tmp_path / "corpus" / ".build")
    store.remove("embed/")
    ids = [f"{number}" for number in range(2_000)]
    publish_vectors(store, "embed/part-00000.arrow", ids, kinds(groups, 2_000))
    assert main([str(tmp_path / "corpus"), "--corpus-tokens", "100000000"]) == 0
    assert re.search(rf"k = {groups}:.*{advice}", capsys.readouterr().out, re.DOTALL)
