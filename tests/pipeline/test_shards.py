from __future__ import annotations

import gc
import pickle
import resource
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline import Corpus, CorpusError, open_corpus
from pipeline.storage.mapped_file import mapped
from tests.corpora import position_of, write_corpus


def test_a_stock_streaming_dataset_reads_the_same_samples_in_the_same_order(
    numbered_corpus: Corpus,
) -> None:
    from streaming import StreamingDataset

    assert len(numbered_corpus.manifest.shards) > 3
    stock = StreamingDataset(
        local=str(numbered_corpus.path / "shards"), shuffle=False, batch_size=1
    )
    theirs = np.stack([sample["tokens"] for sample in stock])
    ours = numbered_corpus.read(np.arange(numbered_corpus.num_samples))
    assert np.array_equal(ours, theirs)
    # And domain by domain, at every granularity, since a domain is a range of those positions.
    for k in (1, 2, 3, 5, 6, 8, 11, 13, 17, 20, 23, 24):
        offsets = numbered_corpus.domains(k=k).ranges.bounds[0]
        for low, high in pairwise(offsets):
            assert np.array_equal(numbered_corpus.read(np.arange(low, high)), theirs[low:high])


def test_any_positions_in_any_order_with_repeats(numbered_corpus: Corpus) -> None:
    positions = np.random.default_rng(0).integers(0, numbered_corpus.num_samples, 500)
    tokens = numbered_corpus.read(positions)
    assert tokens.dtype == np.uint16
    assert np.array_equal(position_of(tokens), positions)
    assert numbered_corpus.read(np.array([], dtype=np.int64)).shape == (0, 8)
    for outside in (-1, numbered_corpus.num_samples):
        with pytest.raises(IndexError, match="positions 0 to 620"):
            numbered_corpus.read(np.array([0, outside]))


@pytest.fixture
def copied(numbered_corpus: Corpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(numbered_corpus.path, tmp_path / "copy"))


def test_a_missing_or_short_shard_is_an_error_that_names_it(copied: Path) -> None:
    shard = copied / "shards" / "shard.00001.mds"
    everything = np.arange(621)
    content = shard.read_bytes()
    shard.write_bytes(content[:-5])
    with pytest.raises(CorpusError, match=r"shard\.00001\.mds has .* bytes; the manifest says"):
        open_corpus(copied).read(everything)
    shard.unlink()
    with pytest.raises(CorpusError, match=r"shard\.00001\.mds is missing"):
        open_corpus(copied).read(everything)


def test_what_could_not_be_mapped_leaves_what_could_readable(copied: Path) -> None:
    corpus = open_corpus(copied)
    starts = np.cumsum([0, *(shard.samples for shard in corpus.manifest.shards)])
    corpus.read(np.arange(starts[0], starts[1]))
    missing = copied / corpus.manifest.shards[2].file
    missing.rename(copied / "away")
    with pytest.raises(CorpusError, match="is missing"):
        corpus.read(np.arange(starts[1], starts[3]))
    (copied / "away").rename(missing)
    positions = np.arange(starts[0], starts[3])
    assert np.array_equal(position_of(corpus.read(positions)), positions)


def test_a_corpus_may_have_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", [600], levels=(1,), split_order=[], shard_bytes=240)
    corpus = open_corpus(folder)
    assert len(corpus.manifest.shards) == 300
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    already_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (already_open + 50, before[1]))
    try:
        tokens = corpus.read(np.arange(600))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert np.array_equal(position_of(tokens), np.arange(600))


def test_a_map_is_read_only_and_gone_with_the_last_array_over_it(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"0123456789")
    piece = mapped(path)[3:5]
    with pytest.raises(ValueError, match="WRITEABLE"):
        piece.setflags(write=True)
    assert piece.tobytes() == b"34"
    assert str(path) in Path("/proc/self/maps").read_text()
    del piece
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()
    path.write_bytes(b"")
    assert mapped(path).shape == (0,)


def test_threads_may_read_one_corpus_while_its_shards_are_mapped(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "c", [2000], levels=(1,), split_order=[], shard_bytes=400)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def right(corpus: Corpus, seed: int) -> bool:
        rng = np.random.default_rng(seed)
        positions = rng.integers(0, corpus.num_samples, (100, 4))
        return all(np.array_equal(position_of(corpus.read(each)), each) for each in positions)

    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(10):
                corpus = open_corpus(folder)
                assert corpus.reader is not None
                assert all(pool.map(right, [corpus] * 4, range(4)))
    finally:
        sys.setswitchinterval(before)


def test_a_corpus_opened_by_a_relative_path_is_read_from_anywhere(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    corpus = open_corpus(copied.name)
    monkeypatch.chdir("/")
    for each in (corpus, pickle.loads(pickle.dumps(corpus))):
        assert np.array_equal(position_of(each.read(np.arange(5))), np.arange(5))
        assert (each.path, each.runs, each.name) == (copied, copied / "runs", copied.name)


def test_a_flipped_bit_in_the_tree_is_found(copied: Path) -> None:
    path = copied / "tree" / "split_order.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"split_order\.npy is damaged: its sha256"):
        open_corpus(copied)


def test_target_sets_by_name(tiny_corpus: Path) -> None:
    corpus = open_corpus(tiny_corpus)
    assert corpus.target_names == ("alpha", "beta")
    target = corpus.target("alpha")
    assert target.train.shape == (24, 32)
    assert target.leaf_histogram.sum() == pytest.approx(1.0)
    assert corpus.heldout.shape == (32, 32)
    with pytest.raises(CorpusError, match="no target set 'gamma'; it has: alpha, beta"):
        corpus.target("gamma")
