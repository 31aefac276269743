"""One pass over a corpus in an object store: raw, by the stream, by mosaicml-streaming."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import BATCH
from pipeline import Mixture, MixtureStream, open_corpus
from pipeline.corpus.manifest import parse_manifest
from pipeline.storage.blocks import BlockGrid
from pipeline.storage.cache_settings import CONNECTIONS
from pipeline.stores.object_store import ObjectStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What one pass took."""

    seconds: float
    share: float = 1.0
    """Of the pass; less than 1 where the time was up."""
    fetched: int
    """Bytes that came from the store."""
    used: int
    """Bytes of samples that were handed out."""
    wait_seconds: float = 0.0
    hit_rate: float = 0.0


def raw(address: str) -> Reading:
    """Every block once, with the client library itself, nothing checked and nothing kept."""
    from obstore.store import from_url

    content = ObjectStore(address).read("manifest.json")
    manifest = parse_manifest(content, where=address)
    assert manifest.blocks is not None
    grid = BlockGrid(manifest.shards, manifest.blocks.block_bytes)
    client = from_url(address, client_options={"allow_http": True})

    def read(block: int) -> int:
        extent = grid.extent(block)
        name = manifest.shards[extent.shard].file
        return len(client.get_range(name, start=extent.begin, end=extent.end))

    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        fetched = sum(pool.map(read, range(grid.num_blocks)))
    return Reading(seconds=time.perf_counter() - started, fetched=fetched, used=fetched)


def stream(
    address: str, cache: Path, cache_bytes: int, shuffle_bytes: int, seconds: float
) -> Reading:
    """One pass by the natural mixture, or as much as `seconds` allow; opening counts."""
    started = time.perf_counter()
    corpus = open_corpus(address, cache=cache, cache_bytes=cache_bytes)
    mixture = Mixture.natural(corpus.domains(k=corpus.num_leaves))
    batches = MixtureStream(corpus, mixture, batch_size=BATCH, shuffle_bytes=shuffle_bytes)
    whole_pass = corpus.num_samples // BATCH
    while batches.step < whole_pass and time.perf_counter() - started < seconds:
        next(batches)
    statistics = corpus.statistics
    return Reading(
        seconds=time.perf_counter() - started,
        share=batches.step / whole_pass,
        fetched=statistics.bytes_fetched,
        used=statistics.bytes_used,
        wait_seconds=statistics.wait_seconds,
        hit_rate=statistics.hit_rate,
    )


def mosaicml(address: str, local: Path) -> Reading:
    """The same shards as one StreamingDataset, which knows no domains here, with two workers."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    started = time.perf_counter()
    dataset = StreamingDataset(
        remote=f"{address}/shards", local=str(local), batch_size=BATCH, shuffle=True
    )
    for stream in dataset.streams:
        stream._downloader.clean_up()  # else the workers race for one client
    used = 0
    for batch in DataLoader(dataset, batch_size=BATCH, num_workers=2):
        used += batch["tokens"].nbytes
    fetched = sum(path.stat().st_size for path in local.rglob("*.mds"))
    return Reading(seconds=time.perf_counter() - started, fetched=fetched, used=used)
