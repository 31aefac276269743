"""The options of `braidstream build`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from clustering.engines.engine_choice import EngineName, chosen_engine
from clustering.errors import BuildError
from clustering.shards.shards import SHARD_BYTES
from clustering.trees.tree_fit import check_share
from pipeline.storage.blocks import BLOCK_BYTES
from pipeline.storage.cache_settings import CacheSettings
from pipeline.stores.address import is_address, normalized

WORK_FOLDER = ".build"

SORT_BYTES = 2**30
MIN_SORT_BYTES = 2**20
MAX_BLOCK_BYTES = 2**30
"""A shard holds at least one block, and offsets in MDS shards are 32 bits wide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSource:
    """The files of one specialised target set."""

    name: str
    train: str
    """File, folder or glob; small: what the task's owner has."""
    test: str | None = None
    """Held out, for measuring only; without it training can be steered but not judged."""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise BuildError(
                f"a target is called {self.name!r}; its name becomes a file name and may hold letters, "
                "digits, '-' and '_' only. Write --target NAME=TRAIN or --target NAME=TRAIN,TEST."
            )

    def __str__(self) -> str:
        return f"{self.name}={self.train}" + ("" if self.test is None else f",{self.test}")

    @classmethod
    def parse(cls, text: str) -> TargetSource:
        """Read `NAME=TRAIN` or `NAME=TRAIN,TEST`."""
        name, equals, files = text.partition("=")
        parts = files.split(",")
        if not equals or not parts[0] or len(parts) > 2 or not parts[-1]:
            raise BuildError(
                f"--target {text!r} has the wrong form; write NAME=TRAIN or NAME=TRAIN,TEST, "
                "for example --target recipes=recipes.train.jsonl,recipes.test.jsonl."
            )
        return cls(name=name, train=parts[0], test=parts[1] if len(parts) == 2 else None)


def parse_branching(text: str) -> tuple[int, ...]:
    """Read `8,8` or `64,64,64`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BuildError(
            f"--branching is {text!r}; it takes whole numbers with commas, such as 8,8 or 64,64,64."
        ) from None


# How the command line reads the options that are no plain values.
_BRANCHING = PrimitiveConstructorSpec[tuple[int, ...]](
    nargs=1,
    metavar="N,N,...",
    instance_from_str=lambda args: parse_branching(args[0]),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [",".join(map(str, value))],
)
_TARGET = PrimitiveConstructorSpec[TargetSource](
    nargs=1,
    metavar="NAME=TRAIN[,TEST]",
    instance_from_str=lambda args: TargetSource.parse(args[0]),
    is_instance=lambda value: isinstance(value, TargetSource),
    str_from_instance=lambda value: [str(value)],
)


PLACE = PrimitiveConstructorSpec[Path | str](
    nargs=1,
    metavar="FOLDER|URL",
    instance_from_str=lambda args: args[0] if is_address(args[0]) else Path(args[0]),
    is_instance=lambda value: isinstance(value, Path | str),
    str_from_instance=lambda value: [str(value)],
)


def parse_bytes(text: str) -> int:
    """Read `512MiB`, `2GiB`, or a plain number of bytes."""
    number, unit = re.fullmatch(r"(\d*)(.*)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    if not number or unit not in _UNITS:
        raise BuildError(
            f"{text!r} is no amount of memory (--sort-memory, --shard-bytes); write a whole number of bytes, "
            f"or one with a unit: {', '.join(f'2{unit}' for unit in _UNITS if unit)}."
        )
    return int(number) * _UNITS[unit]


_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_BYTES = PrimitiveConstructorSpec[int](
    nargs=1,
    metavar="BYTES|MiB|GiB",
    instance_from_str=lambda args: parse_bytes(args[0]),
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """What to build, from what, and how."""

    corpus: Annotated[str, Positional, arg(metavar="TEXTS")]
    """File, folder or glob of JSON Lines (.jsonl, plain or .gz or .zst), Parquet, plain text
    (.txt, .md: one document per file) or WebDataset tars."""
    out: Annotated[Path | str, PLACE]
    """The corpus folder to write; or s3://bucket/prefix, gs:// or az://, where the corpus is copied to
    from the folder that it is built in (--work)."""
    work: Annotated[Path | str | None, PLACE] = None
    """Where the stages leave their work, which a later build can reuse: a folder, or an s3:// prefix (for
    a cluster whose machines share no folder). By default a folder inside --out; where that is in an object
    store, one of its own for each --out in the user's cache folder, which the corpus is then built in."""
    text_column: str | None = None
    """Name of the column that holds the text; otherwise detected (text, content, ...)."""
    target: UseAppendAction[tuple[Annotated[TargetSource, _TARGET], ...]] = ()
    """A specialised target set, NAME=TRAIN or NAME=TRAIN,TEST; may be given several times.
    Documents equal to one of a target set are dropped from the corpus."""
    id_column: str | None = None
    """Name of a column that tells documents apart, for embeddings that are kept or brought along; otherwise
    a document is called FILE:ROW."""
    on_bad_input: Literal["fail", "skip"] = "fail"
    """What to do with a folder, file or line that cannot be read: stop with an error, or skip and count."""
    max_documents: int | None = None
    """Build from a random sample of this many documents."""
    heldout_share: float = 0.01
    """Share of the documents that is held out for generic validation (2,000 documents at most)."""

    model: str = "minilm"
    """Embedding model: `minilm` (all-MiniLM-L6-v2), `static` (distilled from it, once for this
    machine: 30 times faster, a little coarser), a hub name, or a folder of sentence-transformers or
    model2vec."""
    embeddings: Annotated[Path | str | None, PLACE] = None
    """Folder (or s3:// prefix) of vectors made elsewhere: Arrow or Parquet files with the columns document
    (an id as --id-column has it, or FILE:ROW) and vector; also the embed/ folder in the work of another
    build. --model must then be the model that made them: target sets still go through it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the embedding model; auto takes bfloat16 where the processor computes in it."""
    backend: Literal["torch", "onnx", "openvino"] = "torch"
    """What runs the embedding model; onnx and openvino need their package."""
    device: str = "auto"
    """Where it runs: auto, cpu, cuda, cuda:1, mps."""

    branching: Annotated[tuple[int, ...], _BRANCHING] = (64,)
    """Children per node, level by level: 64 is one level of 64 domains, 64,64 splits each of them into 64
    more. Any number of domains in between is a view, so one level is enough for few domains."""
    min_split: int = 32
    """A node with fewer documents than this is not split: it is its own only child."""
    max_share: float | None = None
    """Most that a domain shall have of its parent's documents, such as 0.2; by default no leaf shall have
    more than five times the mean."""
    fit_documents: int | None = None
    """Documents that the tree is fitted on, a random sample; by default enough for every leaf."""

    tokenizer: str = "train"
    """`train` (a byte-level BPE on this corpus), a tokenizer.json, a folder, or a hub name."""
    vocab_size: int = 8_192
    """Tokens of the tokenizer that `train` makes, special ones included."""
    tokens_per_sample: int = 256
    """Length of a sample: a block of this many tokens."""
    format: Literal["mds", "webdataset"] = "mds"
    """Container of the samples: MDS shards, or tar shards with one .npy per sample (which take 640 to 1,150
    bytes more per sample). Stock mosaicml-streaming and stock webdataset read them."""
    block_bytes: int = BLOCK_BYTES
    """Unit in which a corpus is fetched from an object store; rounded down to whole samples."""

    shard_bytes: Annotated[int, _BYTES] = SHARD_BYTES
    """Size that shards aim at, in whole blocks."""

    workers: int = 1
    """Processes that do the units of a stage side by side; each takes the memory of one, and gets a GPU of
    its own where the model runs on GPUs. The corpus is the same whatever their number."""
    engine: EngineName = "local"
    """Who does the units of a stage: `local`, processes on this machine; or `ray`, all cores and GPUs of a
    Ray cluster, whose nodes must share the folders that are named here (--work may be in an object store
    instead). The corpus is the same."""
    ray_address: str = "auto"
    """The Ray cluster: `auto`, the one that this machine is a node of; or host:port of its head."""
    sort_memory: Annotated[int, _BYTES] = SORT_BYTES
    """Tokens that a process sorts or writes at a time (such as 512MiB or 4GiB); it takes about three times as
    much memory for that."""
    seed: int = 0
    """Decides the held-out documents, the sample, the clustering's start and the order in a leaf."""
    part_documents: int = 4_096
    """Documents per part of the work; a build that is killed loses at most one part."""

    def __post_init__(self) -> None:
        self._require(self.corpus != "", "corpus", "must name a file, folder or glob")
        self._require(
            len(self.branching) > 0 and all(b >= 2 for b in self.branching),
            "branching",
            "needs at least one level, and every level at least 2 children",
        )
        self._require(
            self.fit_documents is None or self.fit_documents >= 1,
            "fit_documents",
            "must be at least 1",
        )
        self._require(self.min_split >= 2, "min_split", "must be at least 2")
        self._require(
            0 <= self.heldout_share < 1, "heldout_share", "must be at least 0 and below 1"
        )
        self._require(self.tokens_per_sample >= 2, "tokens_per_sample", "must be at least 2")
        self._require(
            self.vocab_size >= 258, "vocab_size", "must be at least 258 (256 bytes, 2 special)"
        )
        self._require(
            1 <= self.block_bytes <= MAX_BLOCK_BYTES,
            "block_bytes",
            f"must lie between 1 and {MAX_BLOCK_BYTES:,}",
        )
        self._require(
            1 <= self.shard_bytes <= MAX_BLOCK_BYTES,
            "shard_bytes",
            f"must lie between 1 and {MAX_BLOCK_BYTES:,}",
        )
        self._require(self.workers >= 1, "workers", "must be at least 1")
        chosen_engine(self)
        self._require(
            self.sort_memory >= MIN_SORT_BYTES,
            "sort_memory",
            f"must be at least {MIN_SORT_BYTES:,}",
        )
        self._require(self.part_documents >= 1, "part_documents", "must be at least 1")
        self._require(0 <= self.seed < 2**32, "seed", "must lie between 0 and 2**32 - 1")
        self._require(
            self.max_documents is None or self.max_documents >= 1,
            "max_documents",
            "must be at least 1",
        )
        check_share(self.max_share, self.branching)
        self._require(
            self.backend == "torch" or self.model != "static",
            "backend",
            "runs a transformer, and --model static is none, so leave it out",
        )
        names = [target.name for target in self.target]
        self._require(len(set(names)) == len(names), "target", "must name every target once")

    @property
    def address(self) -> str | None:
        """Where the corpus is copied to; None for a local one."""
        return normalized(str(self.out)) if is_address(str(self.out)) else None

    @property
    def folder(self) -> Path:
        """Where the corpus is built."""
        if self.address is None:
            return Path(self.out)
        if self.work is not None and not is_address(str(self.work)):
            return Path(self.work)
        key = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        return CacheSettings.of().folder / "build" / key

    @property
    def work_place(self) -> Path | str:
        """Where the stages leave their work."""
        if self.work is not None and is_address(str(self.work)):
            return normalized(str(self.work))
        return Path(self.work or self.folder) / WORK_FOLDER

    def _require(self, holds: bool, option: str, rule: str) -> None:
        if not holds:
            value = getattr(self, option)
            if option == "branching":
                value = ",".join(map(str, value))
            raise BuildError(f"--{option.replace('_', '-')} is {value!r}; it {rule}.")

    def record(self) -> dict[str, Any]:
        """The options that shape the result, as plain JSON without paths, for the manifest."""
        return {
            "block_bytes": self.block_bytes,
            "branching": list(self.branching),
            "fit_documents": self.fit_documents,
            "heldout_share": self.heldout_share,
            "max_documents": self.max_documents,
            "max_share": self.max_share,
            "min_split": self.min_split,
            "seed": self.seed,
            "targets": [target.name for target in self.target],
            "text_column": self.text_column,
        }
