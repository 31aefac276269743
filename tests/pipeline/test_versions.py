from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pipeline import Corpus, CorpusError, Mixture, MixtureStream, StateError, open_corpus
from pipeline.corpus.manifest import FileEntry, Manifest, file_entry, parse_manifest
from pipeline.transfer.transfer import checked_files
from tests.corpora import add_segment, position_of, write_corpus

FIRST = [30, 0, 170, 41, 9, 50]
SECOND = [0, 12, 90, 0, 1, 33]
THIRD = [5, 0, 0, 20, 8, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of six leaves and one segment."""
    return write_corpus(
        tmp_path / "corpus", FIRST, levels=(1, 3, 6), block_bytes=160, shard_bytes=2000
    )


@pytest.fixture
def grown(folder: Path) -> Path:
    """The same after two additions."""
    add_segment(folder, SECOND, shard_bytes=1000)
    return add_segment(folder, THIRD)


def stream_of(corpus: Corpus, k: int = 4) -> MixtureStream:
    """A stream whose shuffle windows are a few blocks."""
    mixture = Mixture.uniform(corpus.domains(k=k))
    return MixtureStream(corpus, mixture, batch_size=12, seed=1, shuffle_bytes=2000)


def test_leaves_grow_by_what_was_added(grown: Path) -> None:
    corpus = open_corpus(grown)
    assert corpus.manifest.version == 3
    assert corpus.domains(k=6).sizes.tolist() == np.sum([FIRST, SECOND, THIRD], axis=0).tolist()
    assert corpus.num_samples == sum(FIRST) + sum(SECOND) + sum(THIRD)
    assert corpus.manifest.counts.documents == corpus.num_samples


def test_every_sample_is_read_as_stock_reads_the_folders_one_after_the_other(grown: Path) -> None:
    from streaming import StreamingDataset

    parts = [grown, grown / "segments" / "0002", grown / "segments" / "0003"]
    stock = [
        sample["tokens"]
        for part in parts
        for sample in StreamingDataset(local=str(part / "shards"), shuffle=False, batch_size=1)
    ]
    corpus = open_corpus(grown)
    assert np.array_equal(corpus.read(np.arange(corpus.num_samples)), stock)


def test_the_samples_of_a_domain_are_those_of_its_leaves_in_every_segment(grown: Path) -> None:
    corpus = open_corpus(grown)
    leaf = np.concatenate([np.repeat(np.arange(6), sizes) for sizes in (FIRST, SECOND, THIRD)])
    for k in range(1, 7):
        view = corpus.domains(k=k)
        for domain in range(k):
            positions = view.positions(np.array(domain), np.arange(view.sizes[domain]))
            low, high = view.leaf_bounds[domain : domain + 2]
            assert positions.tolist() == np.flatnonzero((leaf >= low) & (leaf < high)).tolist()


def test_a_pass_of_the_stream_shows_every_sample_of_all_segments_once(grown: Path) -> None:
    corpus = open_corpus(grown)
    stream = stream_of(corpus, k=3)
    view = stream.view
    largest = int(view.sizes.max())
    seen: dict[int, list[int]] = {domain: [] for domain in range(view.k)}
    for _ in range(2 * largest * view.k // 12):
        batch = next(stream)
        assert np.array_equal(position_of(batch.tokens), batch.positions)
        for domain, position in zip(batch.domains, batch.positions, strict=True):
            seen[int(domain)].append(int(position))
    for domain, positions in seen.items():
        size = int(view.sizes[domain])
        assert set(Counter(positions[:size]).values()) == {1}
        assert (view.domains_at(np.array(positions)) == domain).all()


def test_a_stream_resumes_exactly_over_several_segments(grown: Path) -> None:
    stream = stream_of(open_corpus(grown))
    for _ in range(17):
        next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [next(stream).positions.tolist() for _ in range(40)]
    again = stream_of(open_corpus(grown))
    again.load_state_dict(state)
    assert [next(again).positions.tolist() for _ in range(40)] == expected


def test_adding_changes_no_file_that_an_earlier_version_names(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    first = Manifest.read(folder)
    add_segment(folder, SECOND)
    for path, content in before.items():
        if path.name != "manifest.json":
            assert path.read_bytes() == content
    assert open_corpus(folder, version=1).manifest == first


@pytest.mark.usefixtures("quick_loaders")
def test_readers_of_an_earlier_version_are_not_disturbed(folder: Path) -> None:
    undisturbed = stream_of(open_corpus(folder))
    expected = [next(undisturbed).positions.tolist() for _ in range(60)]
    stream = stream_of(open_corpus(folder))
    found = [next(stream).positions.tolist() for _ in range(10)]
    add_segment(folder, SECOND)
    found += [next(stream).positions.tolist() for _ in range(10)]
    state = stream.state_dict()
    add_segment(folder, THIRD)
    again = stream_of(open_corpus(folder, version=1))
    again.load_state_dict(state)
    found += [next(again).positions.tolist() for _ in range(10)]
    # Worker processes that start now open the version of the process that starts them.
    loader = DataLoader(again, batch_size=None, num_workers=2, multiprocessing_context="forkserver")
    for batch, _ in zip(loader, range(30), strict=False):
        found.append(batch.positions.tolist())
    assert found == expected


def test_a_state_of_an_earlier_version_names_the_version_to_open(folder: Path) -> None:
    state = stream_of(open_corpus(folder)).state_dict()
    add_segment(folder, SECOND)
    with pytest.raises(StateError, match=r"open its version 1, with open_corpus\(…, version=1\)"):
        stream_of(open_corpus(folder)).load_state_dict(state)


def test_a_version_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CorpusError, match="has version 1 only; there is no version 2"):
        open_corpus(folder, version=2)
    add_segment(folder, SECOND)
    with pytest.raises(CorpusError, match="the versions 1 to 2; there is no version 0"):
        open_corpus(folder, version=0)
    (folder / "manifest.v1.json").unlink()
    with pytest.raises(CorpusError, match=r"has no manifest\.v1\.json"):
        open_corpus(folder, version=1)


def test_a_corpus_as_it_was_built_is_of_format_2_and_one_that_was_added_to_of_format_3(
    folder: Path,
) -> None:
    built = json.loads((folder / "manifest.json").read_text())
    assert built["format_version"] == 2
    assert "added" not in built
    add_segment(folder, SECOND)
    grown = json.loads((folder / "manifest.json").read_text())
    assert (grown["format_version"], len(grown["added"])) == (3, 1)
    assert (folder / "manifest.v1.json").read_text() == json.dumps(
        built, indent=1, sort_keys=True, ensure_ascii=False
    )


def test_new_files_take_the_place_of_old_ones_in_the_new_version_only(folder: Path) -> None:
    add_segment(folder, SECOND, new={"cards/level1.jsonl": b"second"})
    add_segment(folder, THIRD, new={"cards/level1.jsonl": b"third"})
    assert open_corpus(folder).extra("cards/level1.jsonl") == b"third"
    assert open_corpus(folder, version=2).extra("cards/level1.jsonl") == b"second"
    assert open_corpus(folder, version=1).extra("cards/level1.jsonl") is None


@pytest.mark.parametrize(
    ("sizes", "says"), [(THIRD, "33 in 6 leaves"), ([*SECOND[:-2], sum(SECOND[-2:])], "136 in 5")]
)
def test_a_segment_that_does_not_fit_its_leaves_is_refused(
    grown: Path, sizes: list[int], says: str
) -> None:
    manifest = Manifest.read(grown)
    second, third = manifest.added
    np.save(grown / second.leaf_offsets.file, np.cumsum([0, *sizes]))
    second = replace(second, leaf_offsets=file_entry(grown, second.leaf_offsets.file))
    replace(manifest, added=(second, third)).write(grown)
    with pytest.raises(CorpusError, match=rf"hold 136 samples, segments/0002/.* says {says}"):
        open_corpus(grown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 99}, "so that the first has none"),
        ({"shards": 0}, "a segment of 0 shards"),
        ({"follows": "the one before"}, "follows version 'the one before', which is none"),
    ],
)
def test_a_segment_that_cannot_be_is_refused(
    grown: Path, change: dict[str, object], message: str
) -> None:
    content = json.loads((grown / "manifest.json").read_text())
    content["added"][0].update(change)
    with pytest.raises(CorpusError, match=message):
        parse_manifest(json.dumps(content).encode(), where="manifest.json")


@pytest.mark.parametrize("name", ["manifest.v1.json", "manifest.v12.json", "manifest.json.partial"])
def test_no_file_of_a_corpus_can_pass_for_one_of_its_manifests(grown: Path, name: str) -> None:
    manifest = Manifest.read(grown)
    forged = replace(manifest, extras=(FileEntry(file=name, bytes=1, sha256="0" * 64),))
    with pytest.raises(CorpusError, match="a name that is kept for the copying itself"):
        checked_files(forged)
