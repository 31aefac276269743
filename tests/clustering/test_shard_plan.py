"""Which documents go into which shards."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.shards.leaf_order import KEY, keys_name
from clustering.shards.shard_plan import UNITS, plan_shards
from clustering.work.external_sort import ExternalSort
from clustering.work.work_store import LocalWork


def test_borders_of_units_keep_no_keys_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalWork(tmp_path)
    keys = np.zeros(4_000, dtype=KEY)
    keys["document"], keys["length"] = np.arange(4_000), 10
    store.publish_array(keys_name(0), keys)
    held: list[weakref.ref[NDArray[Any]]] = []
    alive: list[int] = []
    chunks = ExternalSort.chunks

    def counted(self: ExternalSort) -> Iterator[NDArray[Any]]:
        for chunk in chunks(self):
            held.append(weakref.ref(chunk))
            yield chunk
            alive.append(sum(each() is not None for each in held))

    monkeypatch.setattr(ExternalSort, "chunks", counted)
    plan_shards(store, num_runs=1, num_leaves=1, unit_tokens=1_000, sort_bytes=20_000)
    assert len(alive) > 5
    assert max(alive) == 1
    units = store.array(UNITS)
    assert units["first"]["document"].tolist() == list(range(0, 4_000, 100))
    assert units["last"]["document"].tolist() == list(range(99, 4_000, 100))
