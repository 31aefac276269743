"""`braidstream import`: the command line and the closing note."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.importing.import_config import ImportConfig, ImportedTarget
from pipeline.importing.importer import import_corpus
from pipeline.storage.blocks import BLOCK_BYTES
from pipeline.storage.cache_settings import CacheSettings
from pipeline.stores.address import is_address, normalized
from pipeline.transfer.transfer_progress import TransferLine

DESCRIPTION = """Turn existing MDS folders or tar shards, one set per domain, into a corpus without a copy.

  PREFIX/DOMAIN/index.json and shard.*.mds      MDS: one folder per domain
  PREFIX/DOMAIN/*.tar                           tar: one folder per domain, or
  PREFIX/DOMAIN-000000.tar …                    one set of numbered names per domain

Every shard is read once, for checksums. Beside the shards, manifest.json and the folders index/, tree/ and
cards/ are written; PREFIX is then the corpus. The domains are the leaves, in the order of their names;
GROUP/DOMAIN makes a level of the groups. MDS with one column ndarray:uint16:LENGTH or
ndarray:uint32:LENGTH becomes a corpus of tokens, everything else one of records: dicts of columns, or of
the members' extensions to bytes.

  braidstream import s3://bucket/mine
  braidstream import /data/mine --tokenizer tokenizer.json --separator-id 0 --pad-id 1 \\
      --target recipes=/data/recipes/train,/data/recipes/test

An import that was stopped continues with the same command."""


def main(argv: Sequence[str]) -> int:
    """Run `braidstream import` with the given arguments; return the exit code."""
    config = parse(argv)
    with TransferLine("import") as line:
        manifest = import_corpus(config, line)
    levels = ", ".join(map(str, manifest.tree.levels))
    sample = manifest.sample
    kind = f"of {sample.tokens_per_sample} tokens" if sample else "of varying length"
    print(
        f"{manifest.num_samples:,} samples {kind} in {len(manifest.shards):,} shards; domains per level: "
        f"{levels}\ncorpus: {config.prefix}"
    )
    return 0


def parse(argv: Sequence[str]) -> ImportConfig:
    """Read the options."""
    parser = argparse.ArgumentParser(
        prog="braidstream import",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prefix", help="local folder, or s3://, gs:// or az:// prefix, that holds the domains")
    add("--tokenizer", type=Path, help="the tokenizer.json that made the tokens")
    add("--vocab-size", type=int, help="number of token ids, where there is no tokenizer.json")
    add("--separator-id", type=int, help="token that follows every document")
    add("--pad-id", type=int, help="token that fills blocks, masked by losses")
    add(
        "--target",
        action="append",
        default=[],
        type=ImportedTarget.parse,
        metavar="NAME=TRAIN[,TEST]",
        help="a target set for a corpus of tokens: folders or prefixes of MDS shards with the same column, "
        "copied into the corpus; may be given several times. PREFIX/targets is a good place: it is no domain",
    )
    add(
        "--block-bytes",
        type=int,
        default=BLOCK_BYTES,
        help="unit in which the corpus is fetched from an object store (default: %(default)s)",
    )
    add("--allow-pickle", action="store_true", help="accept MDS columns of the encoding pkl")
    add("--connections", type=int, default=8, help="shards read at once (default: %(default)s)")
    add("--work", type=Path, help="work folder (default: the user's cache folder)")
    options = parser.parse_args(list(argv))
    prefix = (
        normalized(options.prefix)
        if is_address(options.prefix)
        else str(Path(options.prefix).absolute())
    )
    key = hashlib.sha256(prefix.encode()).hexdigest()[:16]
    return ImportConfig(
        prefix=prefix,
        block_bytes=options.block_bytes,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        separator_id=options.separator_id,
        pad_id=options.pad_id,
        targets=tuple(options.target),
        allow_pickle=options.allow_pickle,
        # A folder of its own also in one that was given: it is removed at the end, with all that is in it.
        work=(options.work or CacheSettings.of().folder / "import") / key,
        connections=options.connections,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
