"""`braidstream import`: shards that someone else wrote become a corpus, and stay where they are.

Every shard is read once, for checksums and for where its samples lie; what was found is kept in a work
folder, so that an import which was stopped goes on with the next shard. Beside the shards it writes

    manifest.json                    last
    index/blocks.npy                 checksums of the blocks
    index/extents.npy                where samples lie, for samples of varying length
    index/tokenizer.json             where it was given
    tree/, cards/                    the domains: ranges of samples, and their names
    targets/                         where they were given
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict

import numpy as np

from pipeline.corpus.manifest import (
    FORMAT,
    MANIFEST_FILE,
    BlockEntry,
    Counts,
    Manifest,
    RecordSchema,
    SampleSchema,
    ShardEntry,
)
from pipeline.corpus.places import Place, open_place
from pipeline.errors import CorpusError
from pipeline.importing import imported_files as files
from pipeline.importing.found_domains import FoundDomain, FoundShard, find_domains
from pipeline.importing.import_config import ImportConfig
from pipeline.importing.shard_survey import ShardSurvey, survey_shard
from pipeline.samples.mds_records import record_decoder, token_array
from pipeline.storage.blocks import whole_samples
from pipeline.stores.object_store import ObjectFacts
from pipeline.transfer.transfer import Meter


def import_corpus(config: ImportConfig, meter: Meter | None = None) -> Manifest:
    """Make a corpus of the shards under `config.prefix`, without copying or changing them.

    `meter` is told how many bytes have been read.

    Raises:
        CorpusError: The shards are none, or cannot be one corpus; or a corpus is there that was not imported.
        StorageError: The object store cannot be read, or not written to.
    """
    place = open_place(config.prefix)
    listed = place.listed()
    if MANIFEST_FILE in listed:
        _check_may_replace(place)
    domains = find_domains(place, listed)
    columns = dict(domains[0].columns)
    if columns:  # raises for what readers could not decode
        record_decoder(columns, allow_pickle=config.allow_pickle)
    schema = _token_schema(columns)
    if schema is None and (config.separator_id is not None or config.targets):
        raise CorpusError(
            f"the columns are {columns or 'those of tars'}: facts about tokens and target sets belong to "
            "token corpora, MDS shards with one column ndarray:uint16:LENGTH or ndarray:uint32:LENGTH. Leave "
            "the options out."
        )
    tokenizer = files.read_tokenizer(config)
    targets = [files.read_target(target, schema) for target in config.targets if schema is not None]
    block_bytes = whole_samples(config.block_bytes, schema) if schema else config.block_bytes
    surveys = _survey_all(place, domains, listed, schema, block_bytes, config, meter)
    _check(domains, surveys, targets, None if tokenizer is None else tokenizer.vocab_size)
    place.delete(MANIFEST_FILE)
    manifest = _assemble(place, domains, surveys, schema, block_bytes, tokenizer, targets)
    place.write(MANIFEST_FILE, manifest.to_json().encode())
    shutil.rmtree(config.work)
    return manifest


def _token_schema(columns: dict[str, str]) -> SampleSchema | None:
    """The schema of a token corpus: one column, arrays of one length of uint16 or uint32."""
    if len(columns) != 1:
        return None
    ((name, encoding),) = columns.items()
    tokens = token_array(encoding)
    if tokens is None:
        return None
    dtype, length = tokens
    stride = length * np.dtype(dtype).itemsize
    return SampleSchema(tokens_per_sample=length, dtype=dtype, stride_bytes=stride, column=name)


def _check_may_replace(place: Place) -> None:
    """Refuse to replace any manifest.json but that of an earlier import: a built corpus's, or somebody's."""
    try:
        found = json.loads(place.read(MANIFEST_FILE))
        if found["build"].get("imported") is True:
            return
        is_corpus = found["format"] == FORMAT
    except (ValueError, KeyError, TypeError, AttributeError):
        is_corpus = False
    if is_corpus:
        raise CorpusError(
            f"{place.url} is a corpus already, which a build made: open it as it is, with "
            f"open_corpus({place.url!r}), or give another prefix to import from."
        )
    raise CorpusError(
        f"{place.address(MANIFEST_FILE)} is there already and was not written by an import: the import would "
        "replace it. Move it away, or give another prefix."
    )


def _survey_all(
    place: Place,
    domains: Sequence[FoundDomain],
    listed: Mapping[str, ObjectFacts],
    schema: SampleSchema | None,
    block_bytes: int,
    config: ImportConfig,
    meter: Meter | None,
) -> dict[str, ShardSurvey]:
    """Survey every shard that an earlier run has not: by file name."""
    config.work.mkdir(parents=True, exist_ok=True)
    kept = {
        shard.file: config.work / _work_name(shard, listed[shard.file].mark, schema, block_bytes)
        for shard in _shards(domains)
    }
    todo = [shard for shard in _shards(domains) if not kept[shard.file].is_file()]
    if meter is not None:
        total_bytes = sum(shard.bytes for shard in _shards(domains))
        todo_bytes = sum(shard.bytes for shard in todo)
        meter.begin(total_bytes=total_bytes, kept_bytes=total_bytes - todo_bytes)

    def survey(shard: FoundShard) -> None:
        found = survey_shard(place, shard, schema=schema, block_bytes=block_bytes)
        found.save(kept[shard.file])
        if meter is not None:
            meter.advance(shard.bytes)

    with ThreadPoolExecutor(config.connections) as pool:
        try:
            for future in as_completed([pool.submit(survey, shard) for shard in todo]):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {file: ShardSurvey.load(path) for file, path in kept.items()}


def _check(
    domains: Sequence[FoundDomain],
    surveys: dict[str, ShardSurvey],
    targets: Sequence[files.GivenTarget],
    vocab_size: int | None,
) -> None:
    """Refuse what cannot be a corpus, before an earlier one is replaced."""
    for domain in domains:
        if not any(len(surveys[shard.file].extents) for shard in domain.shards):
            raise CorpusError(
                f"the domain {domain.name!r} is empty: its shards hold no samples. Remove them, or name "
                "their members KEY.EXTENSION."
            )
    if vocab_size is None:
        return
    highest = {"the shards hold": max(survey.highest_token for survey in surveys.values())}
    for target in targets:
        parts = (target.train,) if target.test is None else (target.train, target.test)
        highest[f"the target {target.name!r} holds"] = max(int(part.max()) for part in parts)
    for who, token in highest.items():
        if token >= vocab_size:
            raise CorpusError(
                f"{who} the token {token:,}; a vocabulary of {vocab_size:,} ends at {vocab_size - 1:,}. "
                "Give the tokenizer, or the vocabulary's size, that made them."
            )


def _shards(domains: Sequence[FoundDomain]) -> Iterator[FoundShard]:
    return (shard for domain in domains for shard in domain.shards)


def _work_name(shard: FoundShard, mark: str, schema: SampleSchema | None, block_bytes: int) -> str:
    facts = [asdict(shard), mark, None if schema is None else asdict(schema), block_bytes]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest() + ".npz"


def _assemble(
    place: Place,
    domains: Sequence[FoundDomain],
    surveys: dict[str, ShardSurvey],
    schema: SampleSchema | None,
    block_bytes: int,
    tokenizer: files.GivenTokenizer | None,
    targets: Sequence[files.GivenTarget],
) -> Manifest:
    """Write the small files and describe all of it."""
    found = [surveys[shard.file] for shard in _shards(domains)]
    sizes = np.array(
        [sum(len(surveys[shard.file].extents) for shard in domain.shards) for domain in domains]
    )
    names = [domain.name for domain in domains]
    records = None
    if schema is None:
        extents = np.concatenate([survey.extents for survey in found])
        entry = files.write_array(place, "index/extents.npy", extents)
        records = RecordSchema(columns=dict(domains[0].columns), extents=entry)
    checksums = np.concatenate([survey.checksums for survey in found])
    samples = int(sizes.sum())
    indexes = [domain.index for domain in domains if domain.index is not None]
    return Manifest(
        counts=Counts(
            documents=samples,
            tokens=samples * schema.tokens_per_sample if schema else 0,
            padding_tokens=0,
            empty_documents=0,
            duplicate_documents=0,
            heldout_documents=0,
        ),
        sample=schema,
        records=records,
        tokenizer=None if tokenizer is None else files.write_tokenizer(place, tokenizer),
        tree=files.write_tree(place, names, sizes),
        shards=tuple(
            ShardEntry(
                file=shard.file,
                bytes=shard.bytes,
                sha256=survey.sha256,
                samples=len(survey.extents),
                data_offset=survey.data_offset,
                data_bytes=survey.data_bytes,
            )
            for shard, survey in zip(_shards(domains), found, strict=True)
        ),
        blocks=BlockEntry(
            **asdict(files.write_array(place, "index/blocks.npy", checksums)),
            block_bytes=block_bytes,
        ),
        heldout=None,
        targets=tuple(files.write_target(place, target, sizes) for target in targets),
        embedder="none",
        build={"imported": True},
        extras=(
            *files.write_cards(place, names, sizes),
            *(files.describe(name, place.read(name)) for name in indexes),
        ),
        shard_format=domains[0].shard_format,
    )
