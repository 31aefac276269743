from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.corpus import baseline
from clustering.corpus.baseline import distance_counts, distance_quantile, write_digests
from clustering.documents.known_texts import KnownTexts


def test_digests_are_sorted_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "_SORT_BYTES", 800)  # a hundred at a time
    digests = np.random.default_rng(0).integers(0, 2**64, 1234, dtype=np.uint64)
    write_digests(tmp_path / "digests.npy", np.array_split(digests, 7), tmp_path)
    assert np.array_equal(np.load(tmp_path / "digests.npy"), np.sort(digests))
    write_digests(tmp_path / "none.npy", [], tmp_path)
    assert len(np.load(tmp_path / "none.npy")) == 0


def test_columns_of_wider_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    pairs = np.arange(20, dtype=np.uint64)[::-1].reshape(10, 2)
    write_digests(tmp_path / "digests.npy", [pairs[:, 0]], tmp_path)
    assert np.load(tmp_path / "digests.npy").tolist() == list(range(1, 20, 2))


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=30), st.sets(st.integers(0, 30))
)
def test_a_text_is_new_once_and_never_if_it_was_known(
    portions: list[list[int]], known: set[int]
) -> None:
    texts = KnownTexts([np.array(sorted(known), dtype=np.uint64)])
    seen = set(known)
    for portion in portions:
        new = texts.admit(np.array(portion, dtype=np.uint64))
        for digest, is_new in zip(portion, new, strict=True):
            assert is_new == (digest not in seen)
            seen.add(digest)


def test_a_quantile_of_counted_distances_is_that_of_the_distances() -> None:
    distances = np.random.default_rng(0).beta(2, 5, 10_000).astype(np.float32)
    counts = distance_counts(np.array_split(distances, 3))
    assert counts.sum() == 10_000
    for share in (0.01, 0.5, 0.99, 1.0):
        assert distance_quantile(counts, share) == pytest.approx(
            np.quantile(distances, share), abs=0.0021
        )
