"""The small files that an import writes beside shards which stay where they are, one function each."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.manifest import FileEntry, SampleSchema, TargetEntry, TokenizerEntry, TreeEntry
from pipeline.corpus.places import Place, open_place
from pipeline.errors import CorpusError
from pipeline.importing.found_domains import find_domains
from pipeline.importing.import_config import ImportConfig, ImportedTarget
from pipeline.importing.shard_survey import check_sha256
from pipeline.samples.mds_records import token_array


def write_file(place: Place, name: str, content: bytes) -> FileEntry:
    """Write a file and describe it."""
    place.write(name, content)
    return describe(name, content)


def describe(name: str, content: bytes) -> FileEntry:
    """The entry of a file that is there already."""
    return FileEntry(file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_array(place: Place, name: str, values: NDArray[Any]) -> FileEntry:
    """Write an `.npy` file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return write_file(place, name, file.getvalue())


class NamedDomain(NamedTuple):
    """A domain of one level."""

    begin: int
    """Its first leaf."""
    end: int
    """One past its last leaf."""
    name: str


def named_levels(names: Sequence[str]) -> list[list[NamedDomain]]:
    """The levels of the tree over leaves with these names, sorted part by part; from the root down.

    Names that all have two parts, `GROUP/DOMAIN`, make a level of their groups.
    """
    leaves = [NamedDomain(leaf, leaf + 1, name) for leaf, name in enumerate(names)]
    levels = [[NamedDomain(0, len(names), "")], leaves]
    group_of = [name.partition("/")[0] for name in names]
    sizes = Counter(group_of)
    if all(name.count("/") == 1 for name in names) and 1 < len(sizes) < len(names):
        groups = zip(accumulate(sizes.values()), sizes.items(), strict=True)
        levels.insert(1, [NamedDomain(end - n, end, name) for end, (name, n) in groups])
    return levels


def write_tree(place: Place, names: Sequence[str], sizes: NDArray[np.int64]) -> TreeEntry:
    """The tree over named domains of `sizes` (k,) samples.

    Coarser views split off one domain after the other, groups first: names do not say what is alike.
    """
    levels = named_levels(names)
    groups = [domain.begin for domain in levels[1][1:]]
    others = sorted(set(range(1, len(names))) - set(groups))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    split_order = np.array([*groups, *others], dtype=np.int64)
    return TreeEntry(
        levels=tuple(map(len, levels)),
        leaf_offsets=write_array(place, "tree/leaf_offsets.npy", offsets),
        split_order=write_array(place, "tree/split_order.npy", split_order),
        centroids=(),
        parents=(),
        empty_leaves=int((sizes == 0).sum()),
    )


def write_cards(
    place: Place, names: Sequence[str], sizes: NDArray[np.int64]
) -> tuple[FileEntry, ...]:
    """A card per domain and level with what is known of it: its name and its size."""
    entries = []
    for level, domains in enumerate(named_levels(names)):
        cards = [
            {
                "domain": number,
                "leaves": [domain.begin, domain.end],
                "keywords": [domain.name] if domain.name else [],
                "samples": int(sizes[domain.begin : domain.end].sum()),
            }
            for number, domain in enumerate(domains)
        ]
        lines = [json.dumps(card, ensure_ascii=False, sort_keys=True) + "\n" for card in cards]
        entries.append(write_file(place, f"cards/level{level}.jsonl", "".join(lines).encode()))
    return tuple(entries)


class GivenTokenizer(NamedTuple):
    """What is known of the tokens."""

    content: bytes
    """Of tokenizer.json, or of a file that says the vocabulary's size."""
    vocab_size: int
    separator_id: int
    pad_id: int
    source: str | None
    """Name of the tokenizer.json that it was read from; None of a vocabulary's size alone."""


def read_tokenizer(config: ImportConfig) -> GivenTokenizer | None:
    """What the options say of the tokens; None when nothing, `CorpusError` when that cannot be."""
    if config.separator_id is None or config.pad_id is None:
        return None
    vocab_size = config.vocab_size
    if config.tokenizer is not None:
        try:
            content = config.tokenizer.read_bytes()
            vocab_size = vocab_size or _vocab_size(json.loads(content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{str(config.tokenizer)!r} is no tokenizer.json ({type(error).__name__}: {error}). Give the "
                "file that the tokenizers library saves."
            ) from error
    else:
        content = json.dumps({"vocab_size": vocab_size}).encode()
    assert vocab_size is not None, "the config asks for one of the two"
    for name, token in (("separator", config.separator_id), ("pad", config.pad_id)):
        if not 0 <= token < vocab_size:
            raise CorpusError(
                f"--{name}-id is {token}; with a vocabulary of {vocab_size:,}, tokens run from 0 to "
                f"{vocab_size - 1:,}."
            )
    source = config.tokenizer.name if config.tokenizer else None
    return GivenTokenizer(content, vocab_size, config.separator_id, config.pad_id, source)


def write_tokenizer(place: Place, given: GivenTokenizer) -> TokenizerEntry:
    """Copy it into the corpus."""
    # Not beside the shards, where somebody's own may lie.
    file = "index/tokenizer.json" if given.source else "index/vocabulary.json"
    entry = write_file(place, file, given.content)
    return TokenizerEntry(
        **asdict(entry),
        vocab_size=given.vocab_size,
        separator_id=given.separator_id,
        pad_id=given.pad_id,
        source=given.source or "unknown",
    )


class GivenTarget(NamedTuple):
    """A target set, read."""

    name: str
    train: NDArray[Any]
    """Shape (n, tokens_per_sample)."""
    test: NDArray[Any] | None


def read_target(target: ImportedTarget, schema: SampleSchema) -> GivenTarget:
    """Its samples; `CorpusError` when they are not like the corpus's."""
    test = None if target.test is None else _read_tokens(target.test, schema)
    return GivenTarget(target.name, _read_tokens(target.train, schema), test)


def write_target(place: Place, target: GivenTarget, sizes: NDArray[np.int64]) -> TargetEntry:
    """Write a target set into the corpus as arrays.

    Imported domains have no centroids, so its histogram is that of the corpus: importance sampling towards it
    is natural sampling.
    """
    name, train, test = target
    return TargetEntry(
        name=name,
        train=write_array(place, f"targets/{name}.train.npy", train),
        test=None if test is None else write_array(place, f"targets/{name}.test.npy", test),
        histogram=write_array(place, f"targets/{name}.histogram.npy", sizes / sizes.sum()),
        train_documents=len(train),
        test_documents=0 if test is None else len(test),
    )


def _read_tokens(where: str, schema: SampleSchema) -> NDArray[Any]:
    """All samples of all MDS shards under `where`: (n, tokens_per_sample)."""
    place = open_place(where)
    wanted = (schema.dtype, schema.tokens_per_sample)
    parts = []
    for domain in find_domains(place, place.listed()):
        encodings = list(domain.columns.values())
        if len(encodings) != 1 or token_array(encodings[0]) != wanted:
            raise CorpusError(
                f"the target {where!r} has the columns {dict(domain.columns)}; it must have one column like "
                f"the corpus's, ndarray:{schema.dtype}:{schema.tokens_per_sample}. Write it again."
            )
        for shard in domain.shards:
            content = place.read(shard.file)
            check_sha256(place, shard, hashlib.sha256(content).hexdigest())
            assert shard.samples is not None
            data = content[len(content) - shard.samples * schema.sample_bytes :]
            dtype = np.dtype(schema.dtype).newbyteorder("<")
            parts.append(np.frombuffer(data, dtype).reshape(shard.samples, -1))
    return np.concatenate(parts)


def _vocab_size(tokenizer: dict[str, Any]) -> int:
    vocabulary = tokenizer["model"]["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    added = (token["id"] for token in tokenizer.get("added_tokens", []))
    return 1 + max(map(int, [*ids, *added]))
