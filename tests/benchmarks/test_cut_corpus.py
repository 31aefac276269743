"""Synthetic corpora and cut ones: what stock readers see, what is kept, what histograms become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cut_corpus import cut_domains, cut_examples
from benchmarks.synthetic_corpus import SEPARATOR, SyntheticText, synthetic_corpus
from clustering.trees.target_leaves import read_target_leaves, write_target_leaves
from pipeline import Corpus, CorpusError, open_corpus
from pipeline.corpus.manifest import file_entry

TEXT = SyntheticText(
    groups=4, leaves_per_group=4, samples_per_leaf=8, tokens_per_sample=32, vocab_size=256
)
DOCUMENT_TOKENS = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A synthetic corpus whose first target has 12 documents in the leaves 0, 5 and 10, in turn."""
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    manifest = synthetic_corpus(folder, TEXT).manifest
    documents = np.repeat(np.arange(12)[:, None] + 2, DOCUMENT_TOKENS, axis=1)
    documents[:, -1] = SEPARATOR
    train = np.full((8, 32), 1, dtype=np.uint16)
    train.ravel()[: documents.size] = documents.ravel()
    first = manifest.targets[0]
    np.save(folder / first.train.file, train)
    first = replace(first, train=file_entry(folder, first.train.file), train_documents=12)
    leaves = write_target_leaves(folder, first.name, np.tile([0, 5, 10], 4))
    replace(manifest, targets=(first,), extras=(leaves,)).write(folder)
    return open_corpus(folder)


def test_stock_streaming_reads_a_synthetic_corpus(corpus: Corpus) -> None:
    streaming = pytest.importorskip("streaming")
    samples = streaming.StreamingDataset(local=str(corpus.path / "shards"), batch_size=1)
    assert len(samples) == corpus.num_samples == 128
    read = np.stack([samples[index]["tokens"] for index in range(len(samples))])
    np.testing.assert_array_equal(read, corpus.read(np.arange(128)))


def test_domains_are_cut_to_a_number_of_tokens(corpus: Corpus, tmp_path: Path) -> None:
    cut = cut_domains(corpus, tmp_path / "cut", k=4, tokens=6 * 32 + 31)
    assert cut.levels == corpus.levels
    np.testing.assert_array_equal(cut.domains(k=4).sizes, [6, 6, 6, 6])
    whole = {sample.tobytes(): p for p, sample in enumerate(corpus.read(np.arange(128)))}
    kept = np.array([whole[sample.tobytes()] for sample in cut.read(np.arange(24))])
    assert len(set(kept)) == 24
    leaf = np.repeat(np.arange(16), cut.domains(k=16).sizes)
    np.testing.assert_array_equal(kept // TEXT.samples_per_leaf, leaf, "each in its own leaf")
    np.testing.assert_array_equal(cut.target("leaf0").train, corpus.target("leaf0").train)
    np.testing.assert_array_equal(cut.heldout, corpus.heldout)
    larger = cut_domains(corpus, tmp_path / "larger", k=4, tokens=9 * 32)
    assert {s.tobytes() for s in cut.read(np.arange(24))} < {
        s.tobytes() for s in larger.read(np.arange(36))
    }
    again = cut_domains(corpus, tmp_path / "again", k=4, tokens=6 * 32)
    assert again.manifest.shards == cut.manifest.shards


def test_what_is_there_already_is_not_cut_again(corpus: Corpus, tmp_path: Path) -> None:
    first = cut_domains(corpus, tmp_path / "cut", k=4, tokens=64)
    written = (first.path / "manifest.json").stat().st_mtime_ns
    assert cut_domains(corpus, tmp_path / "cut", k=4, tokens=64).fingerprint == first.fingerprint
    assert (first.path / "manifest.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("examples", [1, 5, 12, 100])
def test_examples_are_cut_with_their_histogram(
    corpus: Corpus, tmp_path: Path, examples: int
) -> None:
    cut = cut_examples(corpus, tmp_path / "cut", examples=examples, seed=3)
    target = cut.target("leaf0")
    tokens = target.train.ravel()
    documents = np.unique(tokens[(tokens != SEPARATOR) & (tokens != cut.pad_id)]) - 2
    assert len(documents) == min(examples, 12) == cut.manifest.targets[0].train_documents
    assert (tokens == SEPARATOR).sum() == len(documents)
    expected = np.bincount(np.array([0, 5, 10])[documents % 3], minlength=16) / len(documents)
    np.testing.assert_allclose(target.leaf_histogram, expected)
    np.testing.assert_array_equal(cut.read(np.arange(128)), corpus.read(np.arange(128)))
    larger = cut_examples(corpus, tmp_path / "larger", examples=examples + 3, seed=3)
    assert set(documents) <= set(np.unique(larger.target("leaf0").train.astype(int) - 2))
    if examples == 5:
        other = cut_examples(corpus, tmp_path / "other", examples=5, seed=4).target("leaf0")
        assert not np.array_equal(other.train, target.train), "another seed, other examples"


def test_a_corpus_without_leaves_of_examples_says_what_to_do(
    corpus: Corpus, tmp_path: Path
) -> None:
    assert read_target_leaves(corpus, "leaf0").tolist() == [0, 5, 10] * 4
    plain = synthetic_corpus(tmp_path / "corpus", TEXT)
    with pytest.raises(CorpusError, match="Build it again"):
        read_target_leaves(plain, "leaf0")


def test_a_cut_that_is_there_is_not_taken_for_another(corpus: Corpus, tmp_path: Path) -> None:
    made = cut_domains(corpus, tmp_path / "cut", k=4, tokens=200)
    assert cut_domains(corpus, tmp_path / "cut", k=4, tokens=200).fingerprint == made.fingerprint
    with pytest.raises(CorpusError, match="Name another folder"):
        cut_domains(corpus, tmp_path / "cut", k=16, tokens=200)
    cut_examples(corpus, tmp_path / "few", examples=3)
    with pytest.raises(CorpusError, match="Name another folder"):
        cut_examples(corpus, tmp_path / "few", examples=3, seed=1)
