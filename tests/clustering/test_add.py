"""Documents added to a corpus that was built: where they go, what stays, what is left out."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import load_npz
from streaming import StreamingDataset

from clustering import add_stages
from clustering.add import AddReport, add
from clustering.add_command import main
from clustering.add_config import AddConfig
from clustering.build import BuildReport, build
from clustering.build_command import print_report
from clustering.cards.cards import read_counts
from clustering.config import BuildConfig, TargetSource
from clustering.corpus.baseline import EMBEDDER_FOLDER, STATIC_MODEL
from clustering.corpus.corpus_models import corpus_tokenizer, recorded_choice
from clustering.embedding.embed_task import EmbedTask
from clustering.embedding.embedder import MINILM_HUB_NAME
from clustering.errors import BuildError, InputError, ModelError
from clustering.inspection.inspection import inspect_corpus
from clustering.work.progress import Progress
from clustering.work.stages import Workspace
from clustering.work.work_store import LocalWork
from pipeline import Corpus, Mixture, MixtureStream, open_corpus
from pipeline.corpus.manifest import Manifest
from tests.clustering.conftest import documents_of, small_config, write_lines, write_model
from trainer.report.names import names_from_corpus


@pytest.fixture
def folder(built: BuildReport, build_config: BuildConfig, tmp_path: Path) -> Path:
    """A copy of the built corpus, without the work of the build."""
    copy = tmp_path / "corpus"
    shutil.copytree(build_config.folder, copy, ignore=shutil.ignore_patterns(".build"))
    return copy


@pytest.fixture(scope="session")
def more_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 new documents of two kinds, one of them twice, an empty one, and 20 that are in the corpus."""
    new = [*documents_of("law", 20, seed=7), *documents_of("space", 10, seed=7)]
    old = documents_of("law", 20)
    path = tmp_path_factory.mktemp("more") / "more.jsonl"
    return write_lines(path, [*new[:12], "   ", *old, *new[12:], new[3]])


def added(folder: Path, *texts: Path, part_documents: int = 8) -> AddReport:
    config = AddConfig(
        corpus=str(folder), texts=tuple(map(str, texts)), part_documents=part_documents
    )
    return add(config, Progress(quiet=True))


def test_new_documents_are_added_and_what_was_there_is_left_out(
    folder: Path, more_texts: Path
) -> None:
    before = Manifest.read(folder)
    report = added(folder, more_texts)
    assert (report.documents, report.known, report.empty) == (30, 21, 1)
    assert report.far_share is not None
    assert not report.has_drifted
    manifest = Manifest.read(folder)
    assert manifest == report.manifest
    assert manifest.version == 2
    assert manifest.earlier == (before.fingerprint,)
    assert manifest.counts.documents == before.counts.documents + 30
    assert manifest.num_samples == before.num_samples + manifest.segments[1].num_samples
    assert not (folder / ".build" / "add").exists()


def test_documents_go_into_leaves_of_their_kind(folder: Path, more_texts: Path) -> None:
    kinds_of_leaf: dict[int, set[str]] = {}
    first = pq.read_table(folder / "tree" / "documents.parquet").to_pylist()
    for row in first:
        kinds_of_leaf.setdefault(row["leaf"], set()).add(row["source"])
    added(folder, more_texts)
    second = pq.read_table(folder / "segments" / "0002" / "tree" / "documents.parquet").to_pylist()
    assert [row["leaf"] for row in second] == sorted(row["leaf"] for row in second)
    lines = [json.loads(line)["text"] for line in more_texts.read_text().splitlines()]
    for row in second:
        kind = "law.jsonl" if "section" in lines[row["row"] - 1] else "space.jsonl"
        assert kind in kinds_of_leaf[row["leaf"]]


def test_samples_hold_the_added_documents_whole_and_stock_reads_them(
    folder: Path, more_texts: Path
) -> None:
    added(folder, more_texts)
    corpus = open_corpus(folder)
    segment = corpus.manifest.segments[1]
    positions = segment.first_sample + np.arange(segment.num_samples)
    tokens = corpus.read(positions)
    stock = StreamingDataset(
        local=str(folder / "segments" / "0002" / "shards"), shuffle=False, batch_size=1
    )
    assert np.array_equal(tokens, [sample["tokens"] for sample in stock])
    tokenizer = corpus_tokenizer(corpus)
    flat = tokens.ravel()[: corpus.manifest.added[0].counts.tokens]
    documents = np.split(flat, np.flatnonzero(flat == tokenizer.separator_id) + 1)[:-1]
    found = {tokenizer.tokenizer.decode(document[:-1].tolist()) for document in documents}
    new = {*documents_of("law", 20, seed=7), *documents_of("space", 10, seed=7)}
    assert found == new


def test_the_corpus_is_no_text_to_add(folder: Path, more_texts: Path) -> None:
    shutil.copy(more_texts, folder.parent)
    assert added(folder, folder.parent).documents == 30
    with pytest.raises(InputError, match=r"cards'.*lies in the corpus folder or its work"):
        added(folder, more_texts, folder / "cards")


def test_held_out_and_target_documents_do_not_get_in_by_the_back_door(
    folder: Path, cooking_target: object, raw_texts: Path, tmp_path: Path
) -> None:
    targets = Path(cooking_target.train), Path(cooking_target.test)  # type: ignore[attr-defined]
    before = Manifest.read(folder).fingerprint
    report = added(folder, *targets, raw_texts)
    assert (report.documents, report.known) == (0, 16 + 240)
    assert Manifest.read(folder).fingerprint == before
    assert not (folder / "segments").exists()


def test_an_addition_changes_no_file_and_two_make_two_versions(
    folder: Path, more_texts: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del before[folder / "manifest.json"]
    first = added(folder, more_texts)
    before |= {
        path: path.read_bytes() for path in (folder / "segments").rglob("*") if path.is_file()
    }
    second = added(folder, write_lines(tmp_path / "code.jsonl", documents_of("code", 25, seed=3)))
    assert {path: path.read_bytes() for path in before} == before
    assert second.manifest.version == 3
    assert second.manifest.earlier[1] == first.manifest.fingerprint
    for version, documents in ((1, -55), (2, -25), (3, 0)):
        corpus = open_corpus(folder, version=version)
        assert corpus.manifest.counts.documents == second.manifest.counts.documents + documents
        stream = MixtureStream(corpus, Mixture.uniform(corpus.domains(level=1)), batch_size=8)
        assert next(stream).tokens.shape == (8, 32)
    again = added(folder, more_texts, tmp_path / "code.jsonl")
    assert again.documents == 0


def test_cards_and_counts_follow(folder: Path, more_texts: Path) -> None:
    added(folder, more_texts)
    old, new = open_corpus(folder, version=1), open_corpus(folder)
    for level in range(len(new.levels)):
        before, after = (
            [
                json.loads(line)
                for line in (corpus.extra(f"cards/level{level}.jsonl") or b"").splitlines()
            ]
            for corpus in (old, new)
        )
        grown = [b["documents"] - a["documents"] for a, b in zip(before, after, strict=True)]
        assert sum(grown) == 30
        assert [card["samples"] for card in after] == new.domains(level=level).sizes.tolist()
        assert (
            sum(card["tokens"] + card["documents"] for card in after) == new.manifest.counts.tokens
        )
        named = {source["source"] for card in after for source in card["sources"]}
        assert "more.jsonl" in named
        assert [card["examples"] for card in before] == [card["examples"] for card in after]


def test_ends_of_line_that_json_leaves_alone_are_no_ends_of_cards(
    cooking_target: TargetSource, tmp_path: Path
) -> None:
    """U+2028 and U+0085 end a line of text, and none of a file."""
    texts = [f"{text} \u2028 and \u0085 so on" for text in documents_of("law", 40)]
    model = str(write_model(tmp_path / "model"))
    write_lines(tmp_path / "a.jsonl", texts)
    config = small_config(tmp_path / "a.jsonl", tmp_path / "out", cooking_target, model=model)
    documents = build(config, Progress(quiet=True)).manifest.counts.documents
    more = write_lines(tmp_path / "more.jsonl", documents_of("law", 10, seed=7))
    add(AddConfig(corpus=str(config.out), texts=(str(more),), model=model), Progress(quiet=True))
    corpus = open_corpus(config.out)
    (card,) = (corpus.extra("cards/level0.jsonl") or b"").splitlines()
    assert json.loads(card)["documents"] == documents + 10
    names_of = names_from_corpus(corpus)
    assert all(names_of(k).keywords for k in corpus.levels)


def test_languages_and_scripts_follow(folder: Path, tmp_path: Path) -> None:
    """A language that is new to the corpus, in letters some of which are."""
    german = [
        f"Der Mieter kündigt dem Vermieter die Wohnung zum {i}. Mai schriftlich." for i in range(12)
    ]
    russian = [
        f"Квартирант обязан уведомить хозяина в письменной форме, номер {i}." for i in range(9)
    ]
    before = open_corpus(folder)
    added(folder, write_lines(tmp_path / "more.jsonl", [*german, *russian]))
    after = open_corpus(folder)
    for name in ("language", "script"):
        (old, old_names), (new, names) = (
            read_counts(one, name) or ((), ()) for one in (before, after)
        )
        assert names[: len(old_names)] == old_names
        grown = dict(zip(names, new.sum(axis=0).tolist()[0], strict=True))
        for known, count in zip(old_names, old.sum(axis=0).tolist()[0], strict=True):
            grown[known] -= count
        if name == "language":
            assert {key: round(count) for key, count in grown.items() if count > 0.5} == {
                "de": 12,
                "ru": 9,
            }
        else:
            assert grown["Cyrillic"] == pytest.approx(
                sum(sum(map(str.isalpha, t)) for t in russian)
            )
    cards = [json.loads(line) for line in (after.extra("cards/level0.jsonl") or b"").splitlines()]
    assert {"de", "ru"} <= set(cards[0]["languages"])
    assert "Cyrillic" in cards[0]["scripts"]


def test_inspect_shows_what_was_added(folder: Path, more_texts: Path) -> None:
    added(folder, more_texts)
    corpus = open_corpus(folder)
    before = inspect_corpus(open_corpus(folder, version=1)).finest.domains
    after = inspect_corpus(corpus).finest.domains
    assert sum(domain.documents for domain in after) == corpus.manifest.counts.documents
    assert sum(domain.documents for domain in before) == corpus.manifest.counts.documents - 30
    assert any(source.name == "more.jsonl" for domain in after for source in domain.sources)


def test_terms_of_large_leaves_are_counted_on_a_sample(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All documents of a kind repeat its fixed words, so a sample that is scaled up misses none."""
    before = open_corpus(folder)
    path = write_lines(tmp_path / "law.jsonl", documents_of("law", 90, seed=11))
    monkeypatch.setattr("clustering.cards.terms.MAX_DOCUMENTS_PER_LEAF", 3)
    report = added(folder, path)
    terms = json.loads(before.extra("tree/terms.json") or b"")
    grown = [
        load_npz(io.BytesIO(corpus.extra("tree/term_counts.npz") or b""))[
            :, terms.index("notify")
        ].sum()
        for corpus in (before, open_corpus(folder))
    ]
    assert grown[1] - grown[0] == pytest.approx(report.documents)


@pytest.mark.parametrize("stops_at", ["write_segment", "publish_version"])
def test_an_addition_that_is_stopped_leaves_the_old_version_and_goes_on_where_it_was(
    folder: Path, more_texts: Path, monkeypatch: pytest.MonkeyPatch, stops_at: str
) -> None:
    before = Manifest.read(folder)

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(add_stages, stops_at, stop)
        with pytest.raises(KeyboardInterrupt):
            added(folder, more_texts)
    assert open_corpus(folder).manifest == before
    report = added(folder, more_texts)
    assert [record.name for record in report.stages if not record.reused] == ["finish"]
    assert open_corpus(folder).manifest.version == 2


def test_an_addition_that_waited_for_another_follows_it(
    folder: Path, more_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one ends between the look at the corpus and the lock: its segment stays as it is."""
    code = write_lines(tmp_path / "code.jsonl", documents_of("code", 25, seed=3))

    def workspace(*args: Any, **options: Any) -> Workspace:
        monkeypatch.undo()
        assert added(folder, more_texts).manifest.version == 2
        return Workspace(*args, **options)

    monkeypatch.setattr("clustering.add.Workspace", workspace)
    assert added(folder, code).manifest.version == 3
    corpus = open_corpus(folder)
    assert corpus.read(np.arange(corpus.num_samples)).shape == (corpus.num_samples, 32)


def test_an_addition_stopped_while_embedding_repeats_no_finished_part(
    folder: Path, more_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    embed = EmbedTask.steps

    def stop_at_the_third(self: EmbedTask, unit: int) -> Iterator[int]:
        made.append(unit)
        if len(made) == 3:
            raise KeyboardInterrupt
        return embed(self, unit)

    monkeypatch.setattr(EmbedTask, "steps", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        added(folder, more_texts)
    added(folder, more_texts)
    assert made == [0, 1, 2, *range(2, 7)]


def test_what_a_killed_addition_left_behind_is_no_obstacle(
    folder: Path, more_texts: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for name in ("segments/0002.partial/shards", "segments/0002/shards", ".build/add/documents"):
        (folder / name).mkdir(parents=True)
        (folder / name / "shard.00000.mds").write_bytes(b"half a sh")
    (folder / ".build" / "add" / "documents" / "part-00000.arrow.partial").write_bytes(b"half")
    (folder / "manifest.json.new").write_bytes(b"{")
    (folder / "manifest.v1.json").write_bytes((folder / "manifest.json").read_bytes())
    fingerprints = {added(each, more_texts).manifest.fingerprint for each in (folder, other)}
    assert len(fingerprints) == 1
    assert sorted(path.name for path in (folder / "segments").iterdir()) == ["0002"]


def test_the_parts_of_the_work_do_not_show_in_the_result(
    folder: Path, more_texts: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    fingerprints = {added(each, more_texts).manifest.fingerprint for each in (folder, other)}
    assert len(fingerprints) == 1
    coarser = tmp_path / "coarser"
    shutil.copytree(other, coarser)
    (coarser / "manifest.v1.json").rename(coarser / "manifest.json")
    assert added(coarser, more_texts, part_documents=1000).manifest.fingerprint in fingerprints


def test_documents_unlike_any_in_the_corpus_are_reported_as_drift(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(0x0400, 0x04FF, 60))) for _ in range(20)]
    arguments = [str(folder), str(write_lines(tmp_path / "noise.jsonl", noise))]
    assert main(arguments) == 0
    assert "the tree may no longer fit, build it again" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "nothing new" in capsys.readouterr().out


def test_the_command_says_what_it_did(
    folder: Path, more_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), str(more_texts)]) == 0
    out = capsys.readouterr().out
    assert "added 30 documents" in out
    assert "21 that were there already, 1 empty" in out
    assert "version 2" in out
    assert "of them are farther from their leaf's centroid" in out
    assert "no longer fit" not in out


@pytest.mark.usefixtures("quick_static")
def test_a_static_model_comes_with_the_corpus(
    build_config: BuildConfig,
    more_texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = replace(build_config, out=tmp_path / "static", model="static", branching=(4,))
    print_report(config, build(config, Progress(quiet=True)))
    assert re.search(r"static-model +1 model +[\d.]+ ", capsys.readouterr().out)
    shutil.rmtree(tmp_path / "static" / ".build")
    assert added(tmp_path / "static", more_texts).documents == 30
    shutil.rmtree(tmp_path / "static" / "embedder")
    (tmp_path / "one").mkdir()
    more = write_lines(tmp_path / "one" / "more.jsonl", documents_of("code", 3, seed=5))
    with pytest.raises(ModelError, match="a static one that was distilled for it, is not in"):
        added(tmp_path / "static", more)


def recorded(folder: Path, name: str) -> Corpus:
    """The corpus, with another embedding model in its manifest."""
    manifest = Manifest.read(folder)
    replace(manifest, embedder=f"{name} (float32, torch)").write(folder)
    return open_corpus(folder)


def test_the_model_of_the_build_may_be_spelt_in_every_way(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / Path(MINILM_HUB_NAME).name
    copy.mkdir(parents=True)
    corpus = open_corpus(folder)
    for model in ("minilm", MINILM_HUB_NAME, str(copy)):
        assert recorded_choice(corpus, model=model).model == model
    for model in ("static", f"another-owner/{copy.name}", str(tmp_path)):
        with pytest.raises(ModelError, match=r"the tree of .* was fitted on"):
            recorded_choice(corpus, model=model)
    (folder / EMBEDDER_FOLDER / STATIC_MODEL).mkdir(parents=True)
    corpus = recorded(folder, f"static from {MINILM_HUB_NAME}")
    assert recorded_choice(corpus, model="static").is_static
    for model in ("minilm", str(copy)):
        with pytest.raises(ModelError, match=r"the tree of .* was fitted on 'static from"):
            recorded_choice(corpus, model=model)


def test_another_model_is_refused(folder: Path, more_texts: Path, tmp_path: Path) -> None:
    from clustering.embedding.embedder import minilm_location

    other = tmp_path / "my-model"
    shutil.copytree(minilm_location(), other)
    config = AddConfig(corpus=str(folder), texts=(str(more_texts),), model=str(other))
    with pytest.raises(ModelError, match=r"--model is 'my-model'; the tree of .* was fitted on"):
        add(config, Progress(quiet=True))


def test_what_cannot_be_added_to_is_refused(folder: Path, more_texts: Path) -> None:
    with pytest.raises(BuildError, match="in an object store; documents are added to a local copy"):
        add(AddConfig(corpus="s3://bucket/corpus", texts=(str(more_texts),)))
    with pytest.raises(BuildError, match="nothing to add was named"):
        AddConfig(corpus=str(folder), texts=())
    manifest = Manifest.read(folder)
    replace(manifest, tree=replace(manifest.tree, centroids=(), parents=())).write(folder)
    with pytest.raises(BuildError, match="was imported"):
        added(folder, more_texts)


def test_a_model_that_did_not_make_the_vectors_of_the_tree_is_named(
    built: BuildReport, build_config: BuildConfig, more_texts: Path, tmp_path: Path
) -> None:
    """A build takes vectors that were made elsewhere without asking who made them."""
    store = LocalWork(build_config.folder / ".build")
    parts = [name for name in store.names("embed/") if name.endswith(".arrow")]
    ids = [id for part in parts for id in store.table(part)["document"].to_pylist()]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 5))
    own = pa.table({"document": ids, "vector": list(vectors)})
    (tmp_path / "own").mkdir()
    pq.write_table(own, tmp_path / "own" / "vectors.parquet")
    out = tmp_path / "corpus"
    build(
        replace(build_config, out=out, target=(), embeddings=tmp_path / "own"), Progress(quiet=True)
    )
    with pytest.raises(ModelError, match=r"vectors of 5 numbers.* minilm, makes some of 384"):
        added(out, more_texts)
    assert open_corpus(out).manifest.version == 1
