"""The stream from an S3 server on loopback, beside raw ranged reads and mosaicml-streaming.

    python -m benchmarks.object_storage            about five minutes on two cores
    python -m benchmarks.object_storage --quick    does everything run?

256 MiB of samples of 1 KiB in --domains domains, in SeaweedFS. One pass by the natural mixture with a cold
cache, with that cache warm, and with a cold cache of a quarter of the data; raw reads fetch the same blocks
with as many connections. Each row is measured in a process of its own, for a minute at most.

A cache helps when it holds what is being shuffled: the default window is 256 MiB, all of these data. The last
row of ours therefore shuffles in an eighth of the data, which is at least one block of each domain.

Then a store that sends 2 MB/s per request, and a mixture that jumps to domains never seen before, while a
step of training takes 5 ms.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import isfinite
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from benchmarks.data import write_data
from benchmarks.mixture_jump import Jump, jump
from benchmarks.object_reading import Reading, mosaicml, raw, stream
from benchmarks.table import machine_line, table
from pipeline.stores.object_store import ObjectStore
from pipeline.stream.stream import SHUFFLE_BYTES
from tests.servers.fault_proxy import FaultProxy
from tests.servers.seaweedfs import seaweedfs
from tests.servers.store_server import StoreServer

PREFIX = "corpus"
REQUEST_BYTES_PER_SECOND = 2_000_000

T = TypeVar("T")


def main() -> None:
    """Start a server, measure, print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small data: figures mean nothing")
    parser.add_argument("--domains", type=int, default=64)
    options = parser.parse_args()
    quick, limit = options.quick, 5.0 if options.quick else 60.0
    with (
        tempfile.TemporaryDirectory(prefix="braidstream-bench-") as folder,
        served(folder) as (
            server,
            work,
        ),
    ):
        data = write_data(work, options.domains, 65_536 if quick else 262_144)
        address = server.address(PREFIX)
        upload(data.corpus, address)
        size = data.flat.nbytes
        readings = {
            "raw obstore": in_new_process(raw, address),
            "braidstream, cold cache": in_new_process(
                stream, address, work / "cache", 2 * size, SHUFFLE_BYTES, limit
            ),
            "braidstream, warm cache": in_new_process(
                stream, address, work / "cache", 2 * size, SHUFFLE_BYTES, limit
            ),
            "braidstream, cache of a quarter": in_new_process(
                stream, address, work / "small", size // 4, SHUFFLE_BYTES, limit
            ),
            "the same, shuffling in an eighth": in_new_process(
                stream, address, work / "smaller", size // 4, size // 8, limit
            ),
            "mosaicml-streaming, 2 workers": in_new_process(mosaicml, address, work / "mosaicml"),
        }
        with FaultProxy(server) as proxy:
            use(proxy.store)
            proxy.bytes_per_second = REQUEST_BYTES_PER_SECOND
            jumped = in_new_process(
                jump, address, work / "jump", 2.0 if quick else 20.0, REQUEST_BYTES_PER_SECOND
            )
    print(machine_line(), "\n")
    print(reading_table(readings))
    print(jump_table(jumped))


@contextmanager
def served(folder: str) -> Iterator[tuple[StoreServer, Path]]:
    """An S3 server and a folder for everything else."""
    work, state = Path(folder) / "work", Path(folder) / "server"
    work.mkdir()
    state.mkdir()
    with seaweedfs(state) as server:
        use(server)
        yield server, work


def use(server: StoreServer) -> None:
    """Let the clients of this process and of new ones find the store."""
    os.environ.update(server.environment)
    os.environ["S3_ENDPOINT_URL"] = server.endpoint  # mosaicml-streaming's name for it


def upload(corpus: Path, address: str) -> None:
    """The corpus, manifest last."""
    store = ObjectStore(address)
    paths = [path for path in corpus.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.name == "manifest.json"):
        store.write(path.relative_to(corpus).as_posix(), path)


def in_new_process(function: Callable[..., T], *arguments: object) -> T:
    """Nothing is left over from the measurement before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def reading_table(readings: dict[str, Reading]) -> str:
    """Rates of each way to read, and what they are of raw reads."""
    limit = readings["raw obstore"].fetched / readings["raw obstore"].seconds
    rows = []
    for name, reading in readings.items():
        fetched, used = reading.fetched / reading.seconds, reading.used / reading.seconds
        rows.append(
            [
                name,
                f"{reading.seconds:.2f}",
                f"{reading.share:.0%}",
                f"{fetched / 1e6:,.0f}",
                f"{used / 1e6:,.0f}",
                f"{fetched / limit:.2f}",
                f"{reading.wait_seconds:.2f}",
                f"{reading.hit_rate:.1%}",
            ]
        )
    header = [
        "",
        "seconds",
        "of the pass",
        "MB/s fetched",
        "MB/s of samples",
        "÷ raw",
        "seconds waited",
        "hit rate",
    ]
    return table(header, rows)


def jump_table(jumped: Jump) -> str:
    """The jump in one row."""
    row = [
        f"{jumped.rate_before:,.0f}/s",
        f"{jumped.first_batch_seconds:.2f} s",
        f"{jumped.wait_seconds:.2f} s",
        f"{jumped.recovery_seconds:.2f} s" if isfinite(jumped.recovery_seconds) else "not in time",
        f"{jumped.fetched / 2**20:,.0f} MiB",
        f"{jumped.fetch_seconds:.2f} s",
    ]
    header = ["batches before", "first batch after", "waited", "recovered after", "fetched by then"]
    return table([*header, "which takes at least"], [row])


if __name__ == "__main__":
    main()
