"""Vectors of short passages of real text, to cluster in benchmarks.

    python -m benchmarks.passage_vectors TEXTS VECTORS.npy --passages 422000

TEXTS is a folder of JSON Lines (plain, .gz or .zst; column `text`). Passages of 60 to 100 characters are cut
at white space, drawn at random from all of them, and embedded with MiniLM in bfloat16 by a process per core.
VECTORS is float16 (passages, 384), of unit norm.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.texts import texts_by_file

PASSAGE = re.compile(r"\S.{60,100}(?!\S)|\S.{60,100}", re.DOTALL)
BLOCK = 4_096
DIMENSIONS = 384
_embed = None


def main() -> None:
    """Cut, draw, embed, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--passages", type=int, default=422_000)
    options = parser.parse_args()
    passages = read_passages(options.texts, options.passages)
    blocks = [passages[begin : begin + BLOCK] for begin in range(0, len(passages), BLOCK)]
    started = time.perf_counter()
    vectors = np.lib.format.open_memmap(
        options.vectors, mode="w+", dtype=np.float16, shape=(len(passages), DIMENSIONS)
    )
    count = 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), _load) as pool:
        for block in pool.imap(_vectors, blocks):
            vectors[count : count + len(block)] = block
            count += len(block)
            rate = count / (time.perf_counter() - started)
            print(f"{count:,} of {len(passages):,}, {rate:,.0f}/s", flush=True)


def read_passages(folder: Path, count: int) -> list[str]:
    """`count` passages of all files, or all if there are fewer, in random order."""
    passages: list[str] = []
    for texts in texts_by_file(folder):
        for text in texts:
            passages += PASSAGE.findall(text)
    order = np.random.default_rng(0).permutation(len(passages))[:count]
    return [passages[number] for number in order]


def _load() -> None:
    import torch

    from clustering.embedding.embedder import EmbedderChoice, open_embedder

    global _embed
    torch.set_num_threads(1)
    choice = EmbedderChoice(model="minilm", dtype="bfloat16", backend="torch")
    _embed = open_embedder(choice, device="cpu").embed


def _vectors(texts: list[str]) -> NDArray[np.float16]:
    assert _embed is not None
    return _embed(texts).astype(np.float16)


if __name__ == "__main__":
    main()
