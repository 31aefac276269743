"""Samples per second of the stream beside its limit and its peers, at several numbers of domains.

    python benchmarks/stream.py                  # k = 64, 4096, 262144
    python benchmarks/stream.py --k 64 --seconds 10

Every loader serves batches of 32 samples of 1 KiB from local disk, drawn from one Dirichlet mixture over
k domains, in one process without workers, one after the other in this run:

  gather      numpy fancy indexing into one flat memory map at random positions: the limit
  braidstream MixtureStream over MDS shards
  mosaicml    StreamingDataset with one Stream and proportion per domain, batched by DataLoader
  webdataset  RandomMix of one WebDataset tar per domain, batched

Data are written once per k into a temporary folder (about 0.4 GB at k = 262,144). A peer that needs one
file set per domain is skipped at the k where that takes longer than --patience to prepare or to start;
the table says so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline import Mixture, MixtureStream, open_corpus
from tests.corpora import write_corpus

SAMPLE_TOKENS, BATCH = 512, 32
LOADERS = ("gather", "braidstream", "mosaicml", "webdataset")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--k", type=int, nargs="+", default=[64, 4096, 262_144])
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each loader")
    parser.add_argument("--rounds", type=int, default=3, help="turns that the fast loaders take")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds a loader may take to start"
    )
    parser.add_argument("--loader", choices=LOADERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loader:
        print(json.dumps(measure(options.loader, options.data, options.seconds)))
        return
    rows = []
    for k in options.k:
        with tempfile.TemporaryDirectory(prefix="braidstream-bench-") as folder:
            data = prepare(Path(folder), k)
            rows.append(row(k, data, options.seconds, options.rounds, options.patience))
    print_table(rows)


def prepare(folder: Path, k: int) -> Path:
    """A corpus of k domains of uneven sizes, at least 256 MiB in all, and its flat copy."""
    rng = np.random.default_rng(0)
    sizes = 1 + rng.multinomial(max(262_144, k) - k + k // 4, rng.dirichlet(np.full(k, 1.0)))
    corpus = folder / "corpus"
    print(f"k = {k:,}: writing {sizes.sum():,} samples …", file=sys.stderr)
    write_corpus(
        corpus, sizes.tolist(), levels=(1, k), split_order=list(range(1, k)), tokens_per_sample=512
    )
    opened = open_corpus(corpus)
    flat = np.lib.format.open_memmap(
        folder / "flat.npy", mode="w+", dtype=np.uint16, shape=(opened.num_samples, SAMPLE_TOKENS)
    )
    for start in range(0, opened.num_samples, 8192):
        positions = np.arange(start, min(start + 8192, opened.num_samples))
        flat[positions] = opened.read(positions)
    flat.flush()
    np.save(folder / "weights.npy", rng.dirichlet(np.full(k, 1.0)))
    return folder


def row(k: int, data: Path, seconds: float, rounds: int, patience: float) -> dict[str, object]:
    """Each loader in processes of its own, in turns, so that drift of the machine hits all alike."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in LOADERS}
    notes: dict[str, str] = {}
    for turn in range(rounds):
        for name in LOADERS:
            if name in notes or (turn and name in ("mosaicml", "webdataset")):
                continue
            command = [sys.executable, __file__, "--loader", name, "--data", str(data)]
            try:
                done = subprocess.run(
                    [*command, "--seconds", str(seconds)],
                    capture_output=True,
                    text=True,
                    timeout=patience + seconds,
                    check=True,
                )
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
            except subprocess.TimeoutExpired:
                notes[name] = f"no batch in {patience:.0f} s"
            except subprocess.CalledProcessError as error:
                notes[name] = error.stderr.strip().splitlines()[-1][:80]
            print(f"  {name}: {notes.get(name) or results[name][-1]}", file=sys.stderr)
    return {"k": k, "notes": notes, **results}


def measure(loader: str, data: Path, seconds: float) -> dict[str, float]:
    """Samples per second after a warm-up, seconds to the first batch, peak memory."""
    started = time.perf_counter()
    batches: Iterator[object] = BATCHES[loader](data, np.load(data / "weights.npy"))
    next(batches)
    first_batch = time.perf_counter() - started
    warm_until = time.perf_counter() + min(1.0, seconds / 4)
    while time.perf_counter() < warm_until:
        next(batches)
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for _ in range(16):
            next(batches)
        count += 16
    return {
        "rate": count * BATCH / elapsed,
        "first_batch_seconds": first_batch,
        "memory_mb": memory_mb(),
    }


def memory_mb() -> float:
    """Resident memory of this process without mapped files, which the kernel may drop at any time."""
    status = Path("/proc/self/status").read_text()
    return (
        int(dict(line.split(":", 1) for line in status.splitlines())["RssAnon"].split()[0]) / 1024
    )


def gather(data: Path, weights: np.ndarray) -> Iterator[object]:
    flat = np.load(data / "flat.npy", mmap_mode="r")
    rng = np.random.default_rng(0)
    offsets = open_corpus(data / "corpus").domains(level=1).offsets
    while True:  # positions cost nothing here: the limit is the copy alone
        domains = rng.choice(len(weights), (2048, BATCH), p=weights)
        sizes = offsets[domains + 1] - offsets[domains]
        for positions in offsets[domains] + (rng.random(domains.shape) * sizes).astype(np.int64):
            yield flat[positions]


def braidstream(data: Path, weights: np.ndarray) -> Iterator[object]:
    corpus = open_corpus(data / "corpus")
    mixture = Mixture.from_weights(corpus.domains(level=1), weights)
    return iter(MixtureStream(corpus, mixture, batch_size=BATCH))


def mosaicml(data: Path, weights: np.ndarray) -> Iterator[object]:
    from streaming import MDSWriter, Stream, StreamingDataset
    from torch.utils.data import DataLoader

    corpus = open_corpus(data / "corpus")
    offsets = corpus.domains(level=1).offsets
    streams = []
    for domain, weight in enumerate(weights):
        folder = data / "mds" / str(domain)
        if not (folder / "index.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            with MDSWriter(out=str(folder), columns={"tokens": "ndarray:uint16:512"}) as writer:
                for tokens in corpus.read(np.arange(offsets[domain], offsets[domain + 1])):
                    writer.write({"tokens": tokens})
        streams.append(Stream(local=str(folder), proportion=float(weight)))
    dataset = StreamingDataset(
        streams=streams, batch_size=BATCH, shuffle=True, epoch_size=10_000_000
    )
    while True:
        yield from DataLoader(dataset, batch_size=BATCH)


def webdataset(data: Path, weights: np.ndarray) -> Iterator[object]:
    import webdataset as wds

    corpus = open_corpus(data / "corpus")
    offsets = corpus.domains(level=1).offsets
    datasets = []
    (data / "tar").mkdir(exist_ok=True)
    for domain in range(len(weights)):
        path = data / "tar" / f"{domain}.tar"
        if not path.exists():
            with tarfile.open(path, "w") as tar:
                samples = corpus.read(np.arange(offsets[domain], offsets[domain + 1]))
                for number, tokens in enumerate(samples):
                    info = tarfile.TarInfo(f"{number:08d}.bin")
                    info.size = tokens.nbytes
                    tar.addfile(info, io.BytesIO(tokens.tobytes()))
        datasets.append(wds.WebDataset(str(path), shardshuffle=False).repeat().shuffle(16))
    mixed = wds.RandomMix(datasets, probs=list(weights))
    batch = []
    for sample in mixed:
        batch.append(np.frombuffer(sample["bin"], dtype=np.uint16))
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []


BATCHES: dict[str, Callable[[Path, np.ndarray], Iterator[object]]] = {
    "gather": gather,
    "braidstream": braidstream,
    "mosaicml": mosaicml,
    "webdataset": webdataset,
}


def print_table(rows: list[dict[str, object]]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, commit {commit}"
    )
    print(
        "samples/s: median over turns (ours / gather from the same turn); "
        "our seconds to the first batch; our memory without mapped files\n"
    )
    print(
        "| k | gather | braidstream | ours ÷ gather | mosaicml | webdataset | first batch | memory |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for result in rows:
        rates = {name: [one["rate"] for one in result[name]] for name in LOADERS}
        ratios = [
            ours / limit for ours, limit in zip(rates["braidstream"], rates["gather"], strict=True)
        ]
        cells = [
            f"{np.median(rates[name]):,.0f}" if rates[name] else result["notes"].get(name, "-")
            for name in LOADERS
        ]
        first = np.median([one["first_batch_seconds"] for one in result["braidstream"]])
        memory = np.median([one["memory_mb"] for one in result["braidstream"]])
        spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"| {result['k']:,} | {cells[0]} | {cells[1]} | {spread} | {cells[2]} | {cells[3]} "
            f"| {first:.3f} s | {memory:.0f} MB |"
        )


if __name__ == "__main__":
    main()
