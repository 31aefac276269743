"""A corpus, opened: its tree, its samples, its target sets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import Manifest, TokenizerEntry
from pipeline.corpus.segments import current_name
from pipeline.corpus.versions import read_version
from pipeline.corpus.view import DomainTree, View
from pipeline.errors import CorpusError
from pipeline.samples.records import RecordReader
from pipeline.samples.shards import BlockReader, MappedReader, SampleReader
from pipeline.storage.blocks import BlockGrid
from pipeline.storage.cache_settings import CacheSettings
from pipeline.storage.ranges import DomainRanges
from pipeline.storage.remote import CachedBlocks, RemoteStorage
from pipeline.storage.storage import Blocks, FetchStatistics, LocalStorage, Storage, read_array
from pipeline.stores.address import is_address
from pipeline.stores.object_store import ObjectStore
from pipeline.transfer.pull import fetch_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSet:
    """Examples of the task that the mixture is steered towards."""

    name: str
    train: NDArray[Any]
    """Shape (n, tokens_per_sample): what steering may look at."""
    train_documents: int
    """How many documents fill `train`."""
    test: NDArray[Any]
    """Shape (m, tokens_per_sample): for measuring only; m may be 0."""
    leaf_histogram: NDArray[np.float64]
    """Shape (num_leaves,): share of the train tokens whose nearest leaf this is; sums to 1."""


class Corpus:
    """A corpus, opened. Open one with `open_corpus`."""

    def __init__(
        self,
        address: str,
        cache: CacheSettings,
        *,
        allow_pickle: bool = False,
        version: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.address = address
        """Folder or URL, as it was given."""
        self.cache = cache
        self._allow_pickle = allow_pickle
        self._store = ObjectStore(address) if is_address(address) else None
        self._folder = Path(address).expanduser().absolute()
        """Of a local corpus, wherever the process goes on working."""
        if self._store is None:
            self._storage: Storage = LocalStorage(self._folder)
        else:
            self._storage = RemoteStorage(self._store, cache.folder)
        self.manifest = read_version(
            self._read_manifest, address, version=version, fingerprint=fingerprint
        )
        self.fingerprint = self.manifest.fingerprint
        self._tree = DomainTree(
            corpus_fingerprint=self.fingerprint,
            levels=self.manifest.tree.levels,
            leaves=self._leaves(),
            split_order=read_array(self._storage, self.manifest.tree.split_order),
        )

    def _read_manifest(self, name: str) -> Manifest:
        if self._store is None:
            return Manifest.read(self._folder, name)
        return fetch_manifest(self._store, name)

    def _leaves(self) -> DomainRanges:
        """Where the samples of each leaf lie; `CorpusError` when the shards hold more or fewer."""
        offsets = []
        for segment in self.manifest.segments:
            inside = read_array(self._storage, segment.leaf_offsets)
            if (
                inside[-1] != segment.num_samples
                or len(inside) != self.manifest.tree.levels[-1] + 1
            ):
                raise CorpusError(
                    f"the shards of {self.address} from {segment.shards[0].file} on hold "
                    f"{segment.num_samples:,} samples, {segment.leaf_offsets.file} says {inside[-1]:,} in "
                    f"{len(inside) - 1:,} leaves: the corpus is damaged; fetch or build it again."
                )
            offsets.append(segment.first_sample + inside)
        return DomainRanges(np.stack(offsets))

    @cached_property
    def reader(self) -> SampleReader:
        """Samples by position, for loops that plan ahead."""
        manifest = self.manifest
        if manifest.sample is None:
            return RecordReader(
                self._storage, self.blocks, self.grid, manifest, allow_pickle=self._allow_pickle
            )
        if self.blocks is None:
            return MappedReader(self._storage, manifest.shards, manifest.sample)
        return BlockReader(self.blocks, self.grid, manifest.sample)

    @cached_property
    def grid(self) -> BlockGrid:
        """The blocks that the shards are transferred in."""
        return BlockGrid(self.manifest.shards, self.manifest.blocks.block_bytes)

    @cached_property
    def blocks(self) -> Blocks | None:
        """The block cache of a corpus in an object store; None for a local one, which is mapped."""
        if self._store is None:
            return None
        checksums = [read_array(self._storage, part.blocks) for part in self.manifest.segments]
        num_blocks = np.cumsum([len(blocks) for blocks in checksums]).tolist()
        return CachedBlocks(
            self._store,
            self.grid,
            np.concatenate(checksums),
            fingerprint=self.fingerprint,
            settings=self.cache,
            earlier=dict(zip(self.manifest.earlier, num_blocks, strict=False)),
        )

    @property
    def statistics(self) -> FetchStatistics:
        """What reading from an object store has cost this process; zeros for a local corpus."""
        return self.blocks.statistics if self.blocks else FetchStatistics()

    @property
    def path(self) -> Path:
        """The corpus folder, absolute; `CorpusError` for a corpus in an object store."""
        if self._store is not None:
            raise CorpusError(
                f"{self.address} is no local folder, which this needs. Copy the corpus first: "
                f"braidstream pull {self.address} FOLDER"
            )
        return self._folder

    @property
    def name(self) -> str:
        """Last part of the address."""
        return (
            self._folder.resolve().name
            if self._store is None
            else self.address.rstrip("/").rsplit("/", 1)[-1]
        )

    @property
    def num_samples(self) -> int:
        """Samples in the shards."""
        return self.manifest.num_samples

    @property
    def num_leaves(self) -> int:
        """Domains at the finest granularity."""
        return self._tree.num_leaves

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of domains per level, from the root (1) to the leaves."""
        return self._tree.levels

    @property
    def tokens_per_sample(self) -> int:
        """Length of every sample, in tokens; `CorpusError` for a corpus of records."""
        if self.manifest.sample is None:
            raise self._no_tokens()
        return self.manifest.sample.tokens_per_sample

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included."""
        return self._tokenizer.vocab_size

    @property
    def separator_id(self) -> int:
        """Token that follows every document."""
        return self._tokenizer.separator_id

    @property
    def pad_id(self) -> int:
        """Token that fills the last block; losses mask it."""
        return self._tokenizer.pad_id

    def domains(self, *, level: int | None = None, k: int | None = None) -> View:
        """The corpus as the domains of one level, or as any number `k` of domains.

        Level 0 is the whole corpus, level 1 the first split, the last level the leaves. Raises
        `CorpusError` when there is no such level or k.
        """
        return self._tree.view(level=level, k=k)

    def read(self, positions: NDArray[np.int64]) -> Any:
        """The samples at `positions` (n,), in that order.

        Of a token corpus an array (n, tokens_per_sample), uint16 or uint32; of any other a list of n.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < self.num_samples):
            raise IndexError(
                f"positions run from {positions.min()} to {positions.max()}; this corpus has the "
                f"positions 0 to {self.num_samples - 1}."
            )
        return self.reader.copy(self.reader.handles(positions))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the specialised target sets."""
        return tuple(target.name for target in self.manifest.targets)

    def target(self, name: str) -> TargetSet:
        """Load one target set; `CorpusError` lists the names when there is none of this name."""
        for entry in self.manifest.targets:
            if entry.name == name:
                train = read_array(self._storage, entry.train)
                test = read_array(self._storage, entry.test) if entry.test else train[:0]
                histogram = read_array(self._storage, entry.histogram)
                return TargetSet(
                    name=name,
                    train=train,
                    train_documents=entry.train_documents,
                    test=test,
                    leaf_histogram=histogram,
                )
        have = ", ".join(self.target_names) or "none"
        raise CorpusError(
            f"this corpus has no target set {name!r}; it has: {have}. "
            f"Add one with `braidstream build … --target {name}=train.jsonl,test.jsonl`."
        )

    def extra(self, name: str) -> bytes | None:
        """Content of a file for people, such as `cards/level1.jsonl`; None when the corpus has none.

        It may be a newer one, written when documents were added.
        """
        current = current_name(self.manifest, name)
        for entry in self.manifest.extras:
            if entry.file == current:
                return self._storage.read(entry)
        return None

    @property
    def runs(self) -> Path:
        """Where runs on this corpus go by default: into its folder, else into one of its name here."""
        return self.path / "runs" if self._store is None else Path("runs") / self.name

    @cached_property
    def heldout(self) -> NDArray[Any]:
        """Generic validation blocks in natural proportions: (n, tokens_per_sample); n may be 0."""
        if self.manifest.heldout is None:
            return np.empty((0, self.tokens_per_sample), dtype=np.uint16)
        return read_array(self._storage, self.manifest.heldout)

    def centroids(self, level: int) -> NDArray[np.float32]:
        """Unit-norm centroids of a level below the root: float32 (levels[level], dim)."""
        files = self.manifest.tree.centroids
        if not 1 <= level <= len(files):
            raise CorpusError(
                f"centroids exist for the levels 1 to {len(files)}, not {level}."
                if files
                else "this corpus has no centroids: its domains were not made by clustering."
            )
        return read_array(self._storage, files[level - 1])

    @property
    def _tokenizer(self) -> TokenizerEntry:
        if self.manifest.records is not None:
            raise self._no_tokens()
        if self.manifest.tokenizer is None:
            raise CorpusError(
                f"{self.address} says nothing of a tokenizer: its samples came from elsewhere, and with "
                "them must come the vocabulary and the special tokens: import it again with --separator-id, "
                "--pad-id, and --tokenizer or --vocab-size."
            )
        return self.manifest.tokenizer

    def _no_tokens(self) -> CorpusError:
        return CorpusError(
            f"{self.address} holds records of varying length, not token blocks, which this needs. "
            "`braidstream build` makes token blocks of text."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the corpus for itself."""
        address = str(self._folder) if self._store is None else self.address
        return _reopen, (address, self.cache, self._allow_pickle, self.fingerprint)

    def __repr__(self) -> str:
        levels = " → ".join(map(str, self.levels))
        return f"Corpus({self.address!r}, samples={self.num_samples:,}, domains={levels})"


def open_corpus(
    address: str | os.PathLike[str],
    *,
    version: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
    connections: int | None = None,
    allow_pickle: bool = False,
) -> Corpus:
    """Open the corpus at `address`: a folder, or s3://, gs://, az://, https:// and the prefix it lies under.

    The newest version, unless `version` asks for an earlier one: 1 is the corpus as it was built, and
    `braidstream add` makes the next one. A version never changes. In a folder's name, ~ is the home folder.

    Local shards are mapped. Shards in an object store are read a block at a time through a cache on disk,
    which all processes of this machine share: `cache` is its folder (default: BRAIDSTREAM_CACHE, else
    `braidstream` in XDG_CACHE_HOME or ~/.cache), `cache_bytes` the most it may hold of this corpus,
    `connections` the number of requests under way at once. Endpoint, region and credentials come from each
    cloud's own environment variables and configuration files. `allow_pickle` reads MDS columns of the
    encoding `pkl`, which runs whatever code the data names; without it they are refused. Raises `CorpusError`
    that says what is missing or damaged.
    """
    settings = CacheSettings.of(cache, cache_bytes, connections)
    return Corpus(os.fspath(address), settings, allow_pickle=allow_pickle, version=version)


def check_corpus(value: object) -> None:
    """Raise `TypeError` for what is no corpus: most often its folder or address."""
    if not isinstance(value, Corpus):
        raise TypeError(
            f"{value!r} is no Corpus. Open one first: corpus = open_corpus(FOLDER or address)."
        )


def _reopen(address: str, cache: CacheSettings, allow_pickle: bool, fingerprint: str) -> Corpus:
    """The same version again, whatever was added since."""
    return Corpus(address, cache, allow_pickle=allow_pickle, fingerprint=fingerprint)
