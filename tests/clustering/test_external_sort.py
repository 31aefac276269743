from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clustering.work.external_sort import ExternalSort, in_order

DTYPE = np.dtype([("leaf", np.int32), ("key", np.uint64), ("document", np.int64)])
HUGE = np.uint64(2**64 - 1)


def records_of(leaf: NDArray[np.int_], key: NDArray[np.uint64]) -> NDArray[np.void]:
    records = np.empty(len(leaf), DTYPE)
    records["leaf"], records["key"] = leaf, key
    records["document"] = np.arange(len(leaf))[::-1]
    return records


def reference(records: NDArray[np.void]) -> NDArray[np.void]:
    return np.sort(records, order=["leaf", "key", "document"])


def sorted_by(
    folder: Path, records: NDArray[np.void], memory_bytes: int, portion: int
) -> Iterator[NDArray[np.void]]:
    sort = ExternalSort(folder / "sort", DTYPE, memory_bytes=memory_bytes)
    for begin in range(0, len(records), portion):
        sort.add(records[begin : begin + portion])
    return sort.chunks()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(0, 600),
    leaves=st.sampled_from([1, 3, 1_000_000]),
    keys=st.sampled_from([1, 2, 2**63]),
    memory_bytes=st.sampled_from([1, 1_000, 10_000, 10**7]),
    portion=st.integers(1, 700),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_agrees_with_sorting_in_memory(
    tmp_path: Path,
    count: int,
    leaves: int,
    keys: int,
    memory_bytes: int,
    portion: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    records = records_of(
        rng.integers(-leaves, leaves, count), HUGE - rng.integers(0, keys, count, dtype=np.uint64)
    )
    chunks = [np.empty(0, DTYPE), *sorted_by(tmp_path, records, memory_bytes, portion)]
    assert np.concatenate(chunks).tolist() == reference(records).tolist()


@pytest.mark.parametrize("shape", ["equal", "ascending", "descending", "random"])
def test_no_chunk_is_larger_than_the_memory_given(tmp_path: Path, shape: str) -> None:
    count, memory_bytes = 50_000, 100_000
    key = {
        "equal": np.zeros(count, np.uint64),
        "ascending": np.arange(count, dtype=np.uint64),
        "descending": np.arange(count, dtype=np.uint64)[::-1],
        "random": np.random.default_rng(0).integers(0, 2**63, count, dtype=np.uint64),
    }[shape]
    records = records_of(np.zeros(count, np.int64), key)
    if shape == "equal":
        records["document"] = 0
    chunks = list(sorted_by(tmp_path, records, memory_bytes, portion=7_000))
    assert max(chunk.nbytes for chunk in chunks) <= memory_bytes
    assert np.concatenate(chunks).tolist() == reference(records).tolist()


def test_ties_of_the_first_field_alone_are_ordered_by_the_others() -> None:
    records = records_of(np.array([2, 1, 2, 1]), np.array([5, 9, 5, 3], np.uint64))
    assert in_order(records).tolist() == [(1, 3, 0), (1, 9, 2), (2, 5, 1), (2, 5, 3)]


MEMORY_OF_A_SORT = """
import sys
from pathlib import Path
import numpy as np
from clustering.work.external_sort import ExternalSort
from tests.processes import peak_bytes
dtype = np.dtype([("key", np.uint64), ("document", np.int64)])
rng = np.random.default_rng(0)
before = peak_bytes()
total = 0
sort = ExternalSort(Path(sys.argv[1]), dtype, memory_bytes=16 * 2**20)
for begin in range(0, int(sys.argv[2]), 100_000):
    records = np.empty(100_000, dtype)
    records["key"] = rng.integers(0, 2**63, 100_000) if sys.argv[3] == "random" else 7
    records["document"] = np.arange(begin, begin + 100_000)
    sort.add(records)
for chunk in sort.chunks():
    total += len(chunk)
assert total == int(sys.argv[2])
print(peak_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("keys", ["random", "equal"])
def test_memory_stays_bounded_when_there_are_far_more_records(tmp_path: Path, keys: str) -> None:
    command = [sys.executable, "-c", MEMORY_OF_A_SORT, str(tmp_path / "sort"), "4000000", keys]
    grown = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert int(grown.stdout) < 40 * 2**20, "the records take 61"
