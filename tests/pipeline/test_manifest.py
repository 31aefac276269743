from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from pipeline import Corpus, CorpusError, open_corpus
from pipeline.corpus.manifest import FileEntry, Manifest, parse_manifest


def test_reading_returns_what_was_written(numbered_corpus: Corpus, tmp_path: Path) -> None:
    numbered_corpus.manifest.write(tmp_path)
    again = Manifest.read(tmp_path)
    assert again == numbered_corpus.manifest
    assert again.fingerprint == numbered_corpus.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_no_manifest_means_no_corpus(numbered_corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(numbered_corpus.path, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"is not a corpus: it has no manifest\.json"):
        open_corpus(tmp_path / "copy")


def test_a_file_is_no_corpus(numbered_corpus: Corpus, tmp_path: Path) -> None:
    manifest = numbered_corpus.path / "manifest.json"
    with pytest.raises(
        CorpusError, match=rf"is a file; .*holds its manifest.json: '{manifest.parent}'"
    ):
        open_corpus(manifest)
    (tmp_path / "other.json").touch()
    with pytest.raises(CorpusError, match=r"is a file; .*holds its manifest\.json\.$"):
        open_corpus(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format="other"), "not the manifest of a Braidstream corpus"),
        (
            lambda m: m.update(format_version=4),
            "format version 4; this Braidstream reads the versions 2 and 3",
        ),
        (lambda m: m.update(format_version=3), "does not match its own fingerprint"),
        (lambda m: m.update(embedder="edited"), "does not match its own fingerprint"),
        (lambda m: m.update(unknown=1), r"unknown fields \['unknown'\]"),
        (lambda m: m.pop("shards"), "Manifest is incomplete"),
        (lambda m: m["shards"][0].update(samples="many"), "samples should be a whole number"),
        (lambda m: m["shards"][0].update(samples=-1), "samples should be a whole number"),
        (lambda m: m.update(shards={}), "shards should be a list"),
        (lambda m: m["sample"].update(dtype="float64"), "tokens are stored as 'float64'"),
        (lambda m: m["shards"][0].update(file="../elsewhere"), "inside its own folder"),
        (lambda m: m["shards"][0].update(file="/etc/passwd"), "inside its own folder"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    numbered_corpus: Corpus, edit: object, message: str
) -> None:
    content = json.loads((numbered_corpus.path / "manifest.json").read_text())
    edit(content)  # type: ignore[operator]
    with pytest.raises(CorpusError, match=message):
        parse_manifest(json.dumps(content).encode(), where="manifest.json")


def test_half_a_manifest_is_refused(numbered_corpus: Corpus) -> None:
    content = (numbered_corpus.path / "manifest.json").read_bytes()
    with pytest.raises(CorpusError, match="is no JSON"):
        parse_manifest(content[: len(content) // 2], where="manifest.json")


def test_a_manifest_with_a_flipped_bit_is_refused(
    numbered_corpus: Corpus, tmp_path: Path, chance: random.Random
) -> None:
    content = (numbered_corpus.path / "manifest.json").read_bytes()
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / "manifest.json").write_bytes(damaged)
        with pytest.raises(CorpusError):
            open_corpus(tmp_path)


@pytest.mark.parametrize("file", ["", "/abs", "a/../../b", "..", "a\\b"])
def test_files_outside_the_folder_cannot_even_be_named(file: str) -> None:
    with pytest.raises(CorpusError, match="inside its own folder"):
        FileEntry(file=file, bytes=0, sha256="")
