from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from clustering import build_stages
from clustering.add import add
from clustering.add_config import AddConfig
from clustering.build import BuildReport, build
from clustering.build_command import main, parse
from clustering.config import WORK_FOLDER, BuildConfig, TargetSource
from clustering.documents.input_files import LocalFile
from clustering.documents.readers import read_documents
from clustering.documents.records import BadInput
from clustering.embedding.embedding_parts import publish_vectors
from clustering.errors import BuildError, InputError, ModelError
from clustering.work.progress import Progress
from clustering.work.stages import Workspace
from clustering.work.work_store import open_work
from pipeline import Corpus, cli, open_corpus
from tests.clustering.conftest import KINDS, documents_of, write_lines, write_model
from tests.foreign_shards import import_folder, write_mds_texts
from tests.servers.store_server import StoreServer

QUIET = Progress(quiet=True)


@pytest.fixture(scope="session")
def corpus(built: BuildReport, build_config: BuildConfig) -> Corpus:
    return open_corpus(build_config.out)


@pytest.fixture
def copy_of_build(built: BuildReport, build_config: BuildConfig, tmp_path: Path) -> BuildConfig:
    """A finished build that a test may change."""
    shutil.copytree(build_config.out, tmp_path / "corpus")
    return replace(build_config, out=tmp_path / "corpus")


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def done_again(report: BuildReport) -> list[str]:
    return [record.name for record in report.stages if not record.reused]


def test_counts_add_up(built: BuildReport, corpus: Corpus) -> None:
    counts = built.manifest.counts
    assert counts.duplicate_documents == 1, "the one that a target set holds"
    assert counts.documents + counts.heldout_documents == 239
    assert counts.heldout_documents == 12
    assert corpus.num_samples * 32 == counts.tokens + counts.padding_tokens
    provenance = pq.read_table(corpus.path / "tree" / "documents.parquet")
    assert provenance.num_rows == counts.documents
    assert sum(provenance["tokens"].to_pylist()) + counts.documents == counts.tokens


def test_the_shards_hold_every_document_once_in_leaf_order(corpus: Corpus, raw_texts: Path) -> None:
    tokens = corpus.read(np.arange(corpus.num_samples)).reshape(-1)
    tokens = tokens[tokens != corpus.pad_id]
    tokenizer = Tokenizer.from_file(str(corpus.path / "tokenizer.json"))
    ends = np.flatnonzero(tokens == corpus.separator_id)
    found = [tokenizer.decode(part.tolist()) for part in np.split(tokens, ends + 1)[:-1]]
    found = [text.removesuffix("<|endoftext|>") for text in found]
    provenance = pq.read_table(corpus.path / "tree" / "documents.parquet").to_pylist()
    by_place = {
        (path.name, document.row): document.text
        for path in raw_texts.iterdir()
        for document in read_documents(
            LocalFile(path=path, name=path.name), text_column=None, bad=BadInput()
        )
    }
    assert found == [by_place[row["source"], row["row"]] for row in provenance]
    assert [row["leaf"] for row in provenance] == sorted(row["leaf"] for row in provenance)


def test_domains_are_kinds_of_text(corpus: Corpus) -> None:
    provenance = pq.read_table(corpus.path / "tree" / "documents.parquet").to_pylist()
    bounds = corpus.domains(level=1).leaf_bounds
    kinds: dict[int, set[str]] = {}
    for row in provenance:
        domain = int(np.searchsorted(bounds, row["leaf"], "right")) - 1
        kinds.setdefault(domain, set()).add(row["source"])
    assert sorted(map(sorted, kinds.values())) == sorted([f"{kind}.jsonl"] for kind in KINDS)
    target = corpus.target("cooking")
    shares = corpus.domains(level=1).sum_leaves(target.leaf_histogram)
    assert kinds[int(shares.argmax())] == {"cooking.jsonl"}
    assert shares.max() == pytest.approx(1)


def test_targets_and_heldout_are_token_blocks(corpus: Corpus) -> None:
    target = corpus.target("cooking")
    for blocks in (target.train, target.test, corpus.heldout):
        assert blocks.shape[1] == 32
        assert blocks.dtype == np.uint16
        padding = blocks.reshape(-1) == corpus.pad_id
        assert (np.flatnonzero(padding) >= blocks.size - 32).all()
    assert (target.train == corpus.separator_id).sum() == 8
    assert (target.test == corpus.separator_id).sum() == 8
    assert (corpus.heldout == corpus.separator_id).sum() == 12


def test_every_file_is_in_the_manifest(built: BuildReport, corpus: Corpus) -> None:
    text = (corpus.path / "manifest.json").read_text("utf-8")
    files = [p.relative_to(corpus.path).as_posix() for p in corpus.path.rglob("*") if p.is_file()]
    ours = [f for f in files if not f.startswith(".build/") and f != "manifest.json"]
    assert [f for f in ours if f'"{f}"' not in text] == []


def test_a_stock_streaming_dataset_reads_the_same_samples_in_the_same_order(corpus: Corpus) -> None:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(corpus.path / "shards"), shuffle=False, batch_size=1)
    stock = np.stack([dataset[i]["tokens"] for i in range(len(dataset))])
    np.testing.assert_array_equal(stock, corpus.read(np.arange(corpus.num_samples)))


def test_a_second_build_does_nothing(built: BuildReport, build_config: BuildConfig) -> None:
    again = build(build_config, QUIET)
    assert again.nothing_to_do
    assert again.manifest == built.manifest


@pytest.mark.parametrize("pattern", ["", "**/*.json*"])
def test_a_corpus_among_its_texts_is_not_read(
    build_config: BuildConfig, copy_of_build: BuildConfig, raw_texts: Path, pattern: str
) -> None:
    shutil.copytree(raw_texts, copy_of_build.folder.parent, dirs_exist_ok=True)
    texts = copy_of_build.folder.parent / pattern
    (copy_of_build.folder / "more.jsonl").write_text("no JSON")
    config = replace(copy_of_build, corpus=str(texts))
    assert build(config, QUIET).nothing_to_do
    with pytest.raises(InputError, match=r"lies in the corpus folder or its work, .* Move the"):
        build(replace(config, corpus=str(config.folder / "cards")), QUIET)


def test_another_folder_gets_the_same_fingerprint(
    built: BuildReport, build_config: BuildConfig, tmp_path: Path
) -> None:
    other = build(replace(build_config, out=tmp_path / "other"), QUIET)
    assert other.manifest.fingerprint == built.manifest.fingerprint


Change = Callable[[BuildConfig], BuildConfig]
PACKED = ["plan", "write", "finish"]
ORDERED = ["order", "plan", "write", "describe", "finish"]
FITTED = ["fit", "assign", *ORDERED]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: replace(c, tokens_per_sample=16), PACKED),
        (lambda c: replace(c, format="webdataset"), PACKED),
        (lambda c: replace(c, block_bytes=1 << 16), PACKED),
        (lambda c: replace(c, branching=(2, 2)), FITTED),
        (lambda c: replace(c, vocab_size=300), ["tokenizer", "tokenize", *ORDERED]),
        (lambda c: replace(c, device="cpu"), []),
    ],
    ids=["tokens_per_sample", "format", "block_bytes", "branching", "vocab_size", "device"],
)
def test_another_option_repeats_only_what_it_affects(
    copy_of_build: BuildConfig, built: BuildReport, change: Change, expected: list[str]
) -> None:
    report = build(change(copy_of_build), QUIET)
    assert done_again(report) == expected
    assert open_corpus(copy_of_build.out).fingerprint == report.manifest.fingerprint
    if expected:
        back = build(copy_of_build, QUIET)
        assert back.manifest.fingerprint == built.manifest.fingerprint


def test_a_corpus_of_tars_holds_the_same_samples(
    copy_of_build: BuildConfig, corpus: Corpus
) -> None:
    build(replace(copy_of_build, format="webdataset", block_bytes=10_000), QUIET)
    tars = open_corpus(copy_of_build.out)
    every = np.arange(corpus.num_samples)
    np.testing.assert_array_equal(tars.read(every), corpus.read(every))
    assert tars.levels == corpus.levels
    assert tars.manifest.shard_format == "webdataset"
    assert tars.manifest.blocks.block_bytes == 9 * 1024, "whole samples of 1,024 bytes"


def test_another_target_costs_no_embedding_of_the_corpus(copy_of_build: BuildConfig) -> None:
    report = build(replace(copy_of_build, target=()), QUIET)
    assert "embed" not in done_again(report)
    assert open_corpus(copy_of_build.out).target_names == ()
    assert not list((copy_of_build.out / "targets").iterdir())


def test_a_lost_shard_folder_is_put_together_again(
    copy_of_build: BuildConfig, built: BuildReport
) -> None:
    shutil.rmtree(copy_of_build.out / "shards")
    report = build(copy_of_build, QUIET)
    assert done_again(report) == ["finish"]
    assert report.manifest.fingerprint == built.manifest.fingerprint


def test_what_is_nowhere_is_refused_before_anything_is_done_again(
    copy_of_build: BuildConfig,
) -> None:
    nowhere = "/no/such/place"
    with pytest.raises(ModelError, match=f"the tokenizer '{nowhere}' cannot be loaded"):
        build(replace(copy_of_build, branching=(2, 2), tokenizer=nowhere), QUIET)
    with pytest.raises(ModelError, match=f"--model is '{nowhere}'"):
        build(replace(copy_of_build, model=nowhere), QUIET)
    assert build(copy_of_build, QUIET).nothing_to_do


def test_a_model_that_only_finished_stages_need_may_be_gone(
    copy_of_build: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(choice: object) -> None:
        raise ModelError("gone")

    monkeypatch.setattr(build_stages, "check_model", gone)
    report = build(replace(copy_of_build, tokens_per_sample=16), QUIET)
    assert done_again(report) == PACKED


def test_a_tokenizer_saved_anew_in_its_folder_is_another_one(
    copy_of_build: BuildConfig, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "tokenizer"
    config = replace(copy_of_build, tokenizer=str(folder))
    for words in (["[UNK]", "the"], ["[UNK]", "the", "in"]):
        model = WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)).save_pretrained(folder)
        assert done_again(build(config, QUIET)) == ["tokenizer", "tokenize", *ORDERED]
        assert build(config, QUIET).nothing_to_do


def test_a_model_saved_anew_in_its_folder_is_another_one(
    copy_of_build: BuildConfig, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    config = replace(copy_of_build, model=str(folder))
    assert done_again(build(config, QUIET))[0] == "embed"
    (folder / ".cache").write_text("not of the model")
    assert build(config, QUIET).nothing_to_do
    os.utime(folder / "modules.json")
    assert done_again(build(config, QUIET))[0] == "embed"
    vectors = config.folder / ".build" / "embed" / "part-00000.arrow"
    before = vectors.read_bytes()
    write_model(folder, seed=1)
    assert done_again(build(config, QUIET))[0] == "embed"
    assert vectors.read_bytes() != before


def test_targets_keep_the_order_of_the_command_when_a_build_goes_on(
    copy_of_build: BuildConfig,
) -> None:
    (known,) = copy_of_build.target
    config = replace(copy_of_build, target=(known, replace(known, name="before")))
    first = build(config, QUIET)
    shutil.rmtree(config.out / "shards")
    again = build(config, QUIET)
    assert done_again(again) == ["finish"]
    assert open_corpus(config.out).target_names == (known.name, "before")
    assert again.manifest.fingerprint == first.manifest.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, workers=2),
        lambda c: replace(c, sort_memory=1 << 20),
    ],
    ids=["workers", "sort_memory"],
)
def test_how_the_work_is_cut_changes_no_byte(
    built: BuildReport, build_config: BuildConfig, tmp_path: Path, change: Change
) -> None:
    other = build(replace(change(build_config), out=tmp_path / "other"), QUIET)
    assert other.manifest.fingerprint == built.manifest.fingerprint


def test_groups_of_shards_are_cut_where_one_writer_would_cut(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    small = replace(build_config, block_bytes=1 << 18, shard_bytes=1 << 18, tokens_per_sample=2)
    texts = tmp_path / "texts.jsonl"
    write_lines(texts, [f"{i} " * 3_600 for i in range(100)])
    vectors = np.random.default_rng(0).normal(size=(100, 4))
    rows = [f"texts.jsonl:{row}" for row in range(1, 101)]
    publish_vectors(open_work(str(tmp_path / "vectors")), "all.arrow", rows, vectors)
    given = {"corpus": str(texts), "embeddings": tmp_path / "vectors", "target": ()}
    small = replace(small, vocab_size=300, **given)
    one = build(replace(small, out=tmp_path / "one", sort_memory=1 << 30), QUIET)
    many = build(replace(small, out=tmp_path / "many", sort_memory=1 << 20), QUIET)
    assert len(many.manifest.shards) > 4
    assert len(list((tmp_path / "many" / ".build" / "write").glob("unit-*.json"))) > 1
    assert many.manifest.fingerprint == one.manifest.fingerprint


def test_embeddings_of_another_build_give_the_same_corpus(
    built: BuildReport, build_config: BuildConfig, tmp_path: Path
) -> None:
    embeddings = build_config.folder / ".build" / "embed"
    config = replace(build_config, out=tmp_path / "corpus", embeddings=embeddings)
    assert build(config, QUIET).manifest.fingerprint == built.manifest.fingerprint
    wrong = replace(config, out=tmp_path / "wrong", model=str(write_model(tmp_path / "small")))
    with pytest.raises(ModelError, match=r"vectors of 384 numbers, but --model .*/small"):
        build(wrong, QUIET)


def test_vectors_in_a_bucket_that_were_made_anew_are_others(
    s3: StoreServer, new_prefix: str, tmp_path: Path
) -> None:
    store = open_work(s3.address(new_prefix))
    texts = write_lines(tmp_path / "a.jsonl", documents_of("law", 8))
    config = BuildConfig(corpus=str(texts), out=tmp_path / "out", embeddings=s3.address(new_prefix))
    for seed, repeats in ((0, "targets"), (1, "embed")):
        vectors = np.random.default_rng(seed).normal(size=(8, 4))
        publish_vectors(store, "a.arrow", [f"a.jsonl:{row}" for row in range(1, 9)], vectors)
        assert done_again(build(config, QUIET))[0] == repeats
        assert build(config, QUIET).nothing_to_do


def test_work_in_an_object_store_gives_the_same_corpus(
    built: BuildReport, build_config: BuildConfig, s3: StoreServer, new_prefix: str, tmp_path: Path
) -> None:
    config = replace(build_config, out=tmp_path / "corpus", work=s3.address(new_prefix))
    assert build(config, QUIET).manifest.fingerprint == built.manifest.fingerprint
    assert build(config, QUIET).nothing_to_do
    assert "embed/part-00003.arrow" in open_work(s3.address(new_prefix)).names("embed/")


def arguments(config: BuildConfig, out: Path) -> list[str]:
    """The command line of `build_config`."""
    return [
        config.corpus,
        *("--out", str(out)),
        *("--target", str(config.target[0])),
        *("--dtype", "float32", "--branching", "4,3", "--min-split", "8"),
        *("--vocab-size", "400", "--tokens-per-sample", "32"),
        *("--heldout-share", "0.05", "--part-documents", "64", "--workers", "1"),
    ]


def test_the_command_line_is_the_config(build_config: BuildConfig) -> None:
    assert parse(arguments(build_config, build_config.out)) == build_config


def test_a_glob_that_the_shell_took_apart(
    raw_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = sorted(map(str, raw_texts.glob("*.jsonl")))
    assert cli.main(["build", *texts, "--out", str(tmp_path / "c")]) == 2
    assert re.search(r"code.jsonl' and then .*cooking.jsonl.*Quote a glob", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        parse(["texts", "--out", "c", "--banching", "8"])
    assert "--banching" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_continues(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "build", *arguments(build_config, tmp_path / "c")],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # Whoever starts the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "c" / ".build" / "embed").is_dir() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert (
        stderr.strip().splitlines()[-1]
        == "interrupted; the same command continues where it stopped."
    )
    assert "Traceback" not in stderr


def test_the_command_reports_and_then_has_nothing_to_do(
    copy_of_build: BuildConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(copy_of_build, copy_of_build.out)
    assert main([*command, "--tokens-per-sample", "16"]) == 0
    shown = capsys.readouterr()
    assert "227 documents" in shown.out
    assert "1 duplicates" in shown.out
    assert "write: " in shown.err
    report = json.loads((copy_of_build.out / "build_report.json").read_text("utf-8"))
    assert report["fingerprint"] == open_corpus(copy_of_build.out).fingerprint
    assert {"name", "units", "seconds", "peak_memory_bytes"} <= set(report["stages"][0])
    assert main([*command, "--tokens-per-sample", "16"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*command, "--min-split", "1000"]) == 0
    shown = capsys.readouterr()
    assert "leaves: 1 where --branching 4,3 allows 12; " in shown.out
    assert "few documents" not in shown.out
    assert main([*command, "--branching", "20"]) == 0
    assert re.search(
        r"few documents: about 11 for each of the 20 .* --branching 8 or 16",
        capsys.readouterr().out,
    )


def test_skipped_input_is_reported(copy_of_build: BuildConfig, tmp_path: Path) -> None:
    source = tmp_path / "bad.jsonl"
    write_lines(source, documents_of("space", 40))
    source.write_text(source.read_text("utf-8") + "{broken\n", "utf-8")
    report = build(
        replace(copy_of_build, corpus=str(source), target=(), on_bad_input="skip"), QUIET
    )
    assert report.skipped_input == 1
    assert "line 41" in report.examples_of_skipped[0]


def test_what_does_not_fit_the_memory_lies_in_the_work(
    build_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run empties that; the system's folder may be memory, and keeps what a killed build leaves."""
    model, more = write_model(tmp_path / "model"), tmp_path / "more.jsonl"
    config = replace(build_config, out=tmp_path / "out", model=str(model))
    places = []

    class Watched(tempfile.TemporaryDirectory[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            places.append(Path(self.name))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Watched)
    build(config, QUIET)
    write_lines(more, documents_of("law", 10, seed=7))
    add(AddConfig(corpus=str(config.out), texts=(str(more),), model=str(model)), QUIET)
    assert places
    assert all(place.is_relative_to(config.folder / ".build") for place in places)


def test_a_tiny_corpus_without_heldout(build_config: BuildConfig, tmp_path: Path) -> None:
    source = tmp_path / "tiny"
    source.mkdir()
    (source / "only.txt").write_text("One short document.", "utf-8")
    config = replace(build_config, corpus=str(source), out=tmp_path / "c", target=())
    build(config, QUIET)
    corpus = open_corpus(config.out)
    assert corpus.levels == (1, 1, 1)
    assert len(corpus.heldout) == 0
    assert corpus.num_samples >= 1


def test_a_folder_with_something_else_in_it_is_left_alone(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "targets").mkdir()
    with pytest.raises(BuildError, match="Give a new or empty folder"):
        build(replace(build_config, out=tmp_path), QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["targets"]


def test_an_imported_corpus_is_left_alone(build_config: BuildConfig, tmp_path: Path) -> None:
    write_mds_texts(tmp_path / "shards", "wiki", 30)
    import_folder(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(BuildError, match=r"was imported; its shards are yours.*Give a new folder"):
        build(replace(build_config, out=tmp_path), QUIET)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("manifest", ["mine", "[]", '{"domains": 43}', '{"format": "other"}'])
def test_a_manifest_of_something_else_makes_no_corpus_of_its_folder(
    build_config: BuildConfig, tmp_path: Path, manifest: str
) -> None:
    (tmp_path / "data" / "targets").mkdir(parents=True)
    (tmp_path / "data" / "manifest.json").write_text(manifest)
    with pytest.raises(BuildError, match="holds files, but no corpus and no unfinished build"):
        build(replace(build_config, out=tmp_path / "data"), QUIET)
    assert (tmp_path / "data" / "manifest.json").read_text() == manifest


@pytest.mark.parametrize("option", ["out", "work"])
def test_two_builds_never_share_a_folder(
    build_config: BuildConfig, tmp_path: Path, option: str
) -> None:
    config = replace(build_config, out=tmp_path / "out", work=tmp_path / "work")
    with (
        Workspace(tmp_path / option / ".build", QUIET).locked(),
        pytest.raises(BuildError, match=rf"another build is at work in '.*/{option}'"),
    ):
        build(config, QUIET)


def test_folders_that_share_their_work_each_get_what_is_asked_for(
    copy_of_build: BuildConfig, built: BuildReport, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (copy_of_build.folder / ".build").rename(tmp_path / "work" / ".build")
    one = replace(copy_of_build, work=tmp_path / "work")
    other = replace(one, out=tmp_path / "other", branching=(2, 2))
    assert build(one, QUIET).nothing_to_do
    fine = build(other, QUIET).manifest
    assert done_again(build(replace(one, branching=(2, 2)), QUIET)) == ["finish"]
    assert open_corpus(one.folder).fingerprint == fine.fingerprint != built.manifest.fingerprint
    assert build(other, QUIET).nothing_to_do


def test_a_corpus_that_was_added_to_is_not_replaced_until_it_is_damaged(
    copy_of_build: BuildConfig, built: BuildReport, tmp_path: Path
) -> None:
    more = write_lines(tmp_path / "more.jsonl", documents_of("space", 5, seed=7))
    grown = add(AddConfig(corpus=str(copy_of_build.out), texts=(str(more),)), QUIET)
    again = build(copy_of_build, QUIET)
    assert again.nothing_to_do
    assert again.manifest == grown.manifest
    before = files_of(copy_of_build.folder)
    with pytest.raises(
        BuildError,
        match=r"holds version 2 of a corpus, with 5 documents that were added.*other --out",
    ):
        build(replace(copy_of_build, branching=(2, 2)), QUIET)
    assert files_of(copy_of_build.folder) == before
    assert build(copy_of_build, QUIET).nothing_to_do
    (copy_of_build.folder / "manifest.json").write_text("{}")
    mended = build(copy_of_build, QUIET)
    assert done_again(mended) == ["finish"]
    assert mended.manifest.fingerprint == built.manifest.fingerprint


def test_a_folder_that_cannot_be_written_to(
    build_config: BuildConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", build_config.corpus, "--model", "static", "--out"]
    assert cli.main([*arguments, "/proc/corpus"]) == 2
    assert re.search(
        r"cannot write to '/proc/corpus.*that you may write to", capsys.readouterr().err
    )


@pytest.mark.parametrize("train", ["", " \n"])
def test_an_empty_target_is_refused(build_config: BuildConfig, tmp_path: Path, train: str) -> None:
    path = write_lines(tmp_path / "t.jsonl", [train])
    config = replace(
        build_config, out=tmp_path / "c", target=(TargetSource(name="t", train=str(path)),)
    )
    with pytest.raises(BuildError, match="train part of target 't'"):
        build(config, QUIET)
    work = config.out / WORK_FOLDER
    assert not list(work.glob("read/*")), "the corpus may take hours to read"
    path.write_text('{"words": 1}\n{"words": 2}\n')
    with pytest.raises(BuildError, match="0 read, all of them empty or seen before, and 2 skipped"):
        build(replace(config, on_bad_input="skip"), QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--branching", "8,x"], "--branching is '8,x'"),
        (["--branching", "4,1"], "--branching is '4,1'; .* at least 2 children"),
        (["--max-share", "3"], "--max-share is 3; .* at most 1"),
        (["--max-share", "0.01"], "above 0.015625 .one of 64 equal children"),
        (["--model", "static", "--backend", "onnx"], "--backend is 'onnx'; .* leave it out"),
        (["--heldout-share", "1.5"], "--heldout-share is 1.5"),
        (["--target", "recipes"], "NAME=TRAIN"),
        (["--target", "a/b=x"], "letters, digits"),
        (["--target", "a=x", "--target", "a=y"], "every target once"),
        (["--vocab-size", "100"], "at least 258"),
        (["--workers", "0"], "--workers is 0; it must be at least 1"),
        (["--sort-memory", "lots"], "'lots' is no amount of memory"),
        (["--sort-memory", "1KiB"], "--sort-memory is 1024; it must be at least 1,048,576"),
        (["--shard-bytes", "0"], "--shard-bytes is 0; it must lie between 1 and"),
        (["--block-bytes", "0"], "--block-bytes is 0; it must lie between 1 and"),
    ],
)
def test_impossible_options(options: list[str], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        parse(["texts", "--out", "corpus", *options])
