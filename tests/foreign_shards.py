"""Shards as other people write them, with the stock writers, for imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import Manifest
from pipeline.importing.import_config import ImportConfig
from pipeline.importing.importer import import_corpus

TOKENS = 16


def text_of(name: str, number: int) -> str:
    """A text of its own for every sample of every domain, of 10 to 2,000 characters."""
    return f"{name} {number} " + "ü" * (number * 7919 % 1000)


def write_mds_texts(folder: Path, name: str, count: int) -> Path:
    """MDS with two columns in several shards."""
    from streaming import MDSWriter

    columns = {"text": "str", "number": "int"}
    with MDSWriter(out=str(folder), columns=columns, hashes=["sha256"], size_limit=8192) as writer:
        for i in range(count):
            writer.write({"text": text_of(name, i), "number": i})
    return folder


def tokens_of(seed: int, count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 1000, (count, TOKENS)).astype(np.uint16)


def write_mds_tokens(folder: Path, tokens: NDArray[np.uint16], **options: Any) -> Path:
    """MDS with one column of token blocks in several shards."""
    from streaming import MDSWriter

    columns = {"ids": f"ndarray:uint16:{tokens.shape[1]}"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=2048, **options) as writer:
        for row in tokens:
            writer.write({"ids": row})
    return folder


def write_tars(folder: Path, name: str, count: int, per_shard: int = 17) -> Path:
    """Tars with two members per sample, and times that make tarfile write extended headers."""
    from webdataset import TarWriter

    folder.mkdir(parents=True)
    for shard, begin in enumerate(range(0, count, per_shard)):
        with TarWriter(str(folder / f"{shard:06}.tar")) as tar:
            for i in range(begin, min(begin + per_shard, count)):
                tar.write({"__key__": f"{name}/{i:05}", "txt": text_of(name, i), "cls": i % 7})
    return folder


def import_folder(folder: Path, **options: Any) -> Manifest:
    """Import with a work folder beside the data."""
    work = folder.with_name(folder.name + ".work")
    return import_corpus(ImportConfig(prefix=str(folder), work=work, **options))
