"""How fast documents are embedded, and how well the vectors tell kinds of text apart.

    python -m benchmarks.embedding TEXTS --device cuda --documents 20000
    python -m benchmarks.embedding TEXTS --documents 3000 --ways ours-float32,ours-bfloat16,static

TEXTS is a folder of JSON Lines (plain, .gz or .zst; column `text`), one file per kind of text; documents are
taken evenly from all of it. `encode-*` is plain `SentenceTransformer.encode` with its defaults (batches of
32 texts), `ours-*` what a build does, `static` the static model, distilled from MiniLM for these texts. All
ways embed the same texts in one process, in turns, after a warm-up; documents/s is the median of the rounds.
Agreement is the cosine to the vectors of the first way; quality is k-means with k clusters against the names
of the files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import machine_line, table
from benchmarks.texts import texts_by_file
from clustering.embedding.embedder import (
    Dtype,
    EmbedderChoice,
    choose_dtype,
    distill_static,
    minilm_location,
    open_embedder,
)

Embed = Callable[[list[str]], NDArray[np.float32]]
WAYS = ("encode-float32", "encode-bfloat16", "ours-float32", "ours-bfloat16", "static")
WARM_UP = 256
STATIC_SAMPLE = 2_000


def main() -> None:
    """Print the table; with --json, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--documents", type=int, default=3_000)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--k", type=int, default=64, help="clusters; 0 leaves quality out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts, labels = read_texts(options.texts, options.documents)
    ways = {name: load(name, options.device, texts) for name in options.ways.split(",")}
    found = measure(ways, texts, labels, rounds=options.rounds, k=options.k)
    print(report(found, len(texts), options.device, options.k))
    if options.json is not None:
        content = {"machine": machine_line(), "documents": len(texts), "device": options.device}
        options.json.write_text(json.dumps(content | {"ways": found}, indent=1), "utf-8")


def read_texts(folder: Path, documents: int) -> tuple[list[str], NDArray[np.int64]]:
    """About `documents` texts, evenly from every file, and the number of the file of each: int64 (n,)."""
    kinds = [*texts_by_file(folder)]
    step = max(1.0, sum(map(len, kinds)) / documents)
    chosen = [[kind[int(row)] for row in np.arange(0, len(kind), step)] for kind in kinds]
    labels = np.repeat(np.arange(len(kinds)), [len(kind) for kind in chosen])
    return [text for kind in chosen for text in kind], labels


def load(way: str, device: str, texts: list[str]) -> Embed:
    """The function that embeds in this way."""
    kind, _, dtype = way.partition("-")
    if kind == "encode":
        return _plain(device, dtype)
    format_: Dtype = "bfloat16" if dtype == "bfloat16" else "float32"
    if kind == "static":
        format_ = choose_dtype("auto", device, "torch")
    choice = EmbedderChoice(
        model="static" if kind == "static" else "minilm", dtype=format_, backend="torch"
    )
    if not choice.is_static:
        return open_embedder(choice, device=device).embed
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "static"
        sample = texts[:: max(1, len(texts) // STATIC_SAMPLE)]
        distill_static(choice, device=device, texts=sample, folder=folder)
        return open_embedder(choice, device=device, static_folder=folder).embed


def _plain(device: str, dtype: str) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(minilm_location(), device=device, model_kwargs={"dtype": dtype})

    def encode(texts: list[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = model.encode(texts, show_progress_bar=False)
        return vectors.astype(np.float32)

    return encode


def measure(
    ways: dict[str, Embed],
    texts: list[str],
    labels: NDArray[np.int64],
    *,
    rounds: int,
    k: int,
) -> dict[str, dict[str, Any]]:
    """Documents per second of each round, agreement with the first way, NMI and purity, by way."""
    vectors: dict[str, NDArray[np.float32]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for embed in ways.values():
        embed(texts[:: max(1, len(texts) // WARM_UP)])
    for _ in range(rounds):
        for name, embed in ways.items():
            started = time.perf_counter()
            vectors[name] = embed(texts)
            seconds[name].append(time.perf_counter() - started)
            print(f"{name}: {len(texts) / seconds[name][-1]:,.1f} documents/s", flush=True)
    reference = vectors[next(iter(ways))]
    found: dict[str, dict[str, Any]] = {}
    for name in ways:
        found[name] = {"documents_per_second": [len(texts) / each for each in seconds[name]]}
        if vectors[name].shape == reference.shape:
            cosine = (_unit(vectors[name]) * _unit(reference)).sum(axis=1)
            found[name] |= {"cosine_mean": float(cosine.mean()), "cosine_min": float(cosine.min())}
        if k:
            found[name] |= quality(_unit(vectors[name]), labels, k)
    return found


def quality(vectors: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> dict[str, float]:
    """NMI and purity of k clusters against the labels."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    from benchmarks.label_agreement import purity

    clusters = KMeans(n_clusters=k, n_init=4, random_state=0).fit_predict(vectors)
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "purity": purity(labels, clusters.astype(np.int64)),
    }


def report(found: dict[str, dict[str, Any]], documents: int, device: str, k: int) -> str:
    """The table, with what it was measured on."""
    first = median(next(iter(found.values()))["documents_per_second"])
    rows = []
    for name, each in found.items():
        rate = median(each["documents_per_second"])
        cosine = (
            f"{each['cosine_mean']:.5f} / {each['cosine_min']:.5f}"
            if "cosine_mean" in each
            else "-"
        )
        row = [name, f"{rate:,.1f}", f"{rate / first:.2f}", cosine]
        rows.append(row + ([f"{each['nmi']:.3f}", f"{each['purity']:.3f}"] if k else []))
    header = ["way", "documents/s", "of the first", "cosine to the first, mean / least"]
    header += [f"NMI at k = {k}", "purity"] if k else []
    return f"{documents:,} documents, {_device_name(device)}; {machine_line()}\n\n" + table(
        header, rows
    )


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return str(torch.cuda.get_device_name(device))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


if __name__ == "__main__":
    main()
