"""Shards that stock writers wrote become a corpus, in place."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Mixture, MixtureStream, open_corpus
from pipeline.corpus.manifest import Manifest
from pipeline.errors import CorpusError, StorageError
from pipeline.import_command import main, parse
from pipeline.importing import importer as importer_module
from pipeline.importing import shard_survey
from pipeline.importing.import_config import ImportedTarget
from pipeline.storage.blocks import BlockGrid, block_checksum
from pipeline.stores.object_store import ObjectStore
from tests.foreign_shards import (
    TOKENS,
    import_folder,
    text_of,
    tokens_of,
    write_mds_texts,
    write_mds_tokens,
    write_tars,
)
from tests.servers.fault_proxy import FaultProxy
from tests.servers.store_server import StoreServer

KNOWN_TOKENS = {"vocab_size": 1000, "separator_id": 0, "pad_id": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def token_domains(data: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Three domains of token blocks, by name."""
    domains = {
        name: tokens_of(i, size) for i, (name, size) in enumerate([("a", 150), ("b", 9), ("c", 90)])
    }
    for name, tokens in domains.items():
        write_mds_tokens(data / name, tokens)
    return domains


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_tokens_are_those_of_the_stock_streaming_dataset(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]]
) -> None:
    from streaming import StreamingDataset

    manifest = import_folder(data, **KNOWN_TOKENS)
    corpus = open_corpus(data)
    assert manifest.sample is not None
    assert (manifest.sample.column, corpus.tokens_per_sample) == ("ids", TOKENS)
    assert (corpus.vocab_size, corpus.separator_id, corpus.pad_id) == (1000, 0, 1)
    view = corpus.domains(level=1)
    assert view.sizes.tolist() == [150, 9, 90]
    for number, name in enumerate(token_domains):
        dataset = StreamingDataset(local=str(data / name), shuffle=False, batch_size=1)
        stock = np.stack([dataset[i]["ids"] for i in range(len(dataset))])
        ours = corpus.read(view.positions(np.array(number), np.arange(view.sizes[number])))
        np.testing.assert_array_equal(ours, stock)


def test_an_import_adds_files_and_changes_none(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]]
) -> None:
    before = contents(data)
    manifest = import_folder(data)
    after = contents(data)
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert {name.partition("/")[0] for name in new} == {"manifest.json", "index", "tree", "cards"}
    assert {entry.file: entry.sha256 for entry in manifest.files} == {
        name: digest for name, digest in after.items() if name != "manifest.json"
    }
    assert not data.with_name("data.work").exists()


def test_a_stream_mixes_imported_domains(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]]
) -> None:
    import_folder(data)
    corpus = open_corpus(data)
    mixture = Mixture.from_weights(corpus.domains(level=1), np.array([0.0, 1.0, 1.0]))
    stream = MixtureStream(corpus, mixture, batch_size=32, seed=0)
    batch = next(iter(stream))
    everything = np.concatenate(list(token_domains.values()))
    np.testing.assert_array_equal(batch.tokens, everything[batch.positions])
    assert set(batch.domains.tolist()) == {1, 2}


@pytest.mark.parametrize("write", [write_mds_texts, write_tars], ids=["mds", "tars"])
def test_records_keep_all_their_columns(
    data: Path, write: Callable[[Path, str, int], Path]
) -> None:
    for name, size in (("wiki", 40), ("books", 25)):
        write(data / name, name, size)
    manifest = import_folder(data, block_bytes=1000)
    corpus = open_corpus(data)
    assert corpus.domains(level=1).sizes.tolist() == [25, 40]
    samples = corpus.read(np.arange(65))
    names = [("books", i) for i in range(25)] + [("wiki", i) for i in range(40)]
    if manifest.shard_format == "mds":
        assert samples == [{"text": text_of(name, i), "number": i} for name, i in names]
    else:
        assert samples == [
            {"__key__": f"{name}/{i:05}", "txt": text_of(name, i).encode(), "cls": b"%d" % (i % 7)}
            for name, i in names
        ]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # webdataset leaves tars open
def test_tar_samples_are_those_of_stock_webdataset(data: Path) -> None:
    import webdataset

    write_tars(data / "wiki", "wiki", 40)
    import_folder(data)
    ours = open_corpus(data).read(np.arange(40))
    tars = sorted(map(str, (data / "wiki").glob("*.tar")))
    stock = list(webdataset.WebDataset(tars, shardshuffle=False))
    gc.collect()
    for sample in stock:
        del sample["__url__"]
        sample.pop("__local_path__", None)
    assert ours == stock


def test_numbered_tars_in_one_folder_are_sets(data: Path) -> None:
    for name in ("wiki", "books"):
        write_tars(data / "tmp", name, 30)
        for path in sorted((data / "tmp").glob("*.tar")):
            path.rename(data / f"{name}-{path.name}")
        (data / "tmp").rmdir()
    import_folder(data)
    corpus = open_corpus(data)
    assert corpus.domains(level=1).sizes.tolist() == [30, 30]
    assert [sample["__key__"] for sample in corpus.read(np.array([0, 30]))] == [
        "books/00000",
        "wiki/00000",
    ]


def test_blocks_are_checksummed_as_they_are_fetched(data: Path) -> None:
    write_mds_texts(data / "a", "a", 60)
    write_mds_tokens(data.with_name("tokens") / "b", tokens_of(0, 200))
    for folder, block_bytes in ((data, 999), (data.with_name("tokens"), 100)):
        manifest = import_folder(folder, block_bytes=block_bytes)
        grid = BlockGrid(manifest.shards, manifest.blocks.block_bytes)
        stored = np.load(folder / manifest.blocks.file)
        assert len(stored) == grid.num_blocks > 10
        for number in range(grid.num_blocks):
            shard, begin, end = grid.extent(number)
            content = (folder / manifest.shards[shard].file).read_bytes()[begin:end]
            assert block_checksum(content) == stored[number]


def test_shards_of_many_parts_are_read_in_parts(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        write_mds_texts(data / name, name, 60)
        write_tars(data.with_name("tars") / name, name, 60, per_shard=60)
        write_mds_tokens(data.with_name("tokens") / name, tokens_of(1, 100))
    folders = (data, data.with_name("tars"), data.with_name("tokens"))
    whole = [import_folder(folder).fingerprint for folder in folders]
    monkeypatch.setattr(shard_survey, "PART_BYTES", 1 << 10)
    assert [import_folder(folder).fingerprint for folder in folders] == whole


def test_two_parts_in_a_name_make_two_levels(data: Path) -> None:
    for i, name in enumerate(["web/en", "web-old/en", "code/py", "code/c", "web/de"]):
        write_mds_tokens(data / name, tokens_of(i, 3 + i))
    import_folder(data)
    corpus = open_corpus(data)
    assert corpus.levels == (1, 3, 5)
    assert corpus.domains(level=2).sizes.tolist() == [6, 5, 7, 3, 4]
    assert corpus.domains(level=1).sizes.tolist() == [11, 10, 4]
    lines = (data / "cards" / "level1.jsonl").read_text("utf-8").splitlines()
    cards = [json.loads(line) for line in lines]
    assert [card["keywords"] for card in cards] == [["code"], ["web"], ["web-old"]]
    assert [card["samples"] for card in cards] == [11, 10, 4]


def test_one_domain_is_a_corpus_too(data: Path) -> None:
    write_mds_tokens(data, tokens_of(0, 5))
    import_folder(data)
    corpus = open_corpus(data)
    assert corpus.levels == (1, 1)
    np.testing.assert_array_equal(corpus.read(np.arange(5)), tokens_of(0, 5))


def test_targets_and_the_tokenizer_come_into_the_corpus(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1200)}, unk_token="w0"))
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_mds_tokens(data / "targets" / "med" / "train", tokens_of(7, 150))
    write_mds_tokens(tmp_path / "test", tokens_of(8, 4))
    config = parse(
        [
            str(data),
            *("--tokenizer", str(tmp_path / "tokenizer.json"), "--separator-id", "1200"),
            *("--pad-id", "0", "--work", str(tmp_path / "work")),
            *("--target", f"med={data}/targets/med/train,{tmp_path}/test"),
        ]
    )
    importer_module.import_corpus(config)
    corpus = open_corpus(data)
    assert corpus.vocab_size == 1201
    assert corpus.num_leaves == 3, "targets are no domain"
    target = corpus.target("med")
    np.testing.assert_array_equal(target.train, tokens_of(7, 150))
    np.testing.assert_array_equal(target.test, tokens_of(8, 4))
    np.testing.assert_allclose(target.leaf_histogram, np.array([150, 9, 90]) / 249)


def test_an_import_that_was_stopped_reads_no_shard_twice(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, read = importer_module.survey_shard, []

    def stopped(place: Any, shard: Any, **options: Any) -> Any:
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(shard.file)
        return survey(place, shard, **options)

    def counted(place: Any, shard: Any, **options: Any) -> Any:
        read.append(shard.file)
        return survey(place, shard, **options)

    monkeypatch.setattr(importer_module, "survey_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        import_folder(data, connections=1)
    assert not (data / "manifest.json").exists()
    monkeypatch.setattr(importer_module, "survey_shard", counted)
    manifest = import_folder(data)
    assert sorted(read) == sorted(shard.file for shard in manifest.shards)


def test_a_shard_that_was_written_anew_is_read_anew(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]]
) -> None:
    tokens = {"separator_id": 0, "pad_id": 1}
    before = import_folder(data)
    with pytest.raises(CorpusError, match="a vocabulary of 3 ends at 2"):
        import_folder(data, vocab_size=3, **tokens)
    assert open_corpus(data).fingerprint == before.fingerprint  # what was there is still there
    shard = data / before.shards[0].file
    content = bytearray(shard.read_bytes())
    content[-2:] = bytes(2) if any(content[-2:]) else b"\1\0"
    shard.write_bytes(content)
    after = import_folder(data)
    assert after.shards[0].sha256 == hashlib.sha256(content).hexdigest()


def test_domains_that_are_links_to_folders_are_imported(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    write_mds_tokens(tmp_path / "elsewhere", tokens_of(5, 5))
    before = import_folder(data).tree.levels[-1]
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "linked" / "again").symlink_to(data)  # a circle
    assert import_folder(data).tree.levels[-1] == before + 1


def test_a_folder_that_cannot_be_listed_ends_an_import(without_rights: Path) -> None:
    (without_rights / "data" / "closed").mkdir(parents=True)
    (without_rights / "data" / "closed").chmod(0)
    with pytest.raises(
        CorpusError, match=r"closed cannot be listed \(Permission denied\), so what"
    ):
        import_folder(Path("data"))


def test_importing_again_gives_the_same_corpus_and_takes_new_domains(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]]
) -> None:
    first = import_folder(data)
    assert import_folder(data).fingerprint == first.fingerprint
    write_mds_tokens(data / "d", tokens_of(5, 5))
    assert import_folder(data).tree.levels == (1, 4)


def test_a_corpus_that_was_built_is_not_replaced(data: Path) -> None:
    from tests.corpora import write_corpus

    write_corpus(data, [3, 4], levels=(1, 2))
    (data / ".build" / "write" / "shards").mkdir(parents=True)
    (data / ".build" / "write" / "shards" / "shard.00000.mds").touch()  # a build has no index there
    before = contents(data)
    with pytest.raises(CorpusError, match=r"is a corpus already, which a build made: open it"):
        import_folder(data)
    assert contents(data) == before


def test_somebodys_manifest_is_not_replaced(data: Path) -> None:
    write_mds_tokens(data / "a", tokens_of(0, 5))
    (data / "manifest.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"was not written by an import.*Move it away"):
        import_folder(data)
    assert (data / "manifest.json").read_text() == "[]"


def test_an_import_into_a_bucket_opens_from_there(
    s3: StoreServer, new_prefix: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wiki", "books"):
        write_mds_texts(data / name, name, 30)
    store = ObjectStore(s3.address(new_prefix))
    for path in data.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(data).as_posix(), path)
    assert (
        main([s3.address(new_prefix), "--work", str(tmp_path / "work"), "--block-bytes", "4096"])
        == 0
    )
    assert "60 samples of varying length" in capsys.readouterr().out
    corpus = open_corpus(s3.address(new_prefix), cache=tmp_path / "cache")
    local = import_folder(data, block_bytes=4096)
    assert corpus.fingerprint == local.fingerprint
    order = np.random.default_rng(0).permutation(60)
    assert corpus.read(order) == open_corpus(data).read(order)


def test_a_prefix_is_listed_once(
    s3: StoreServer,
    fault_proxy: Callable[[StoreServer], FaultProxy],
    new_prefix: str,
    data: Path,
    token_domains: dict[str, np.ndarray[Any, Any]],
    tmp_path: Path,
) -> None:
    store = ObjectStore(s3.address(new_prefix))
    for name in contents(data):
        store.write(name, data / name)
    proxy = fault_proxy(s3)
    main([s3.address(new_prefix), "--work", str(tmp_path / "work")])
    listings = [r for r in proxy.requests if r.method == "GET" and new_prefix not in r.path]
    assert len(listings) == 1, "the name of what is listed is in the query"


def test_a_tokenizer_beside_the_shards_stays_as_it_is(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    (data / "tokenizer.json").write_text('{"model": {"vocab": {"mine": 0}}}')
    given = tmp_path / "tokenizer.json"
    given.write_text('{"model": {"vocab": {"a": 0, "b": 999}}}')
    before = contents(data)
    import_folder(data, tokenizer=given, separator_id=0, pad_id=1)
    after = contents(data)
    assert {name: after[name] for name in before} == before
    assert open_corpus(data).vocab_size == 1000


def test_a_corpus_that_does_not_know_its_tokens_names_all_that_an_import_takes(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    import_folder(data)
    with pytest.raises(CorpusError, match="--separator-id, --pad-id, and --tokenizer or --vocab-"):
        _ = open_corpus(data).vocab_size
    ids = ["--separator-id", "0", "--pad-id", "1"]
    given = tmp_path / "tokenizer.json"
    given.write_text('{"model": {"vocab": {"a": 0, "b": 999}}}')
    for vocabulary in (["--tokenizer", str(given)], ["--vocab-size", "1000"]):
        assert main([str(data), *ids, *vocabulary]) == 0
        assert open_corpus(data).vocab_size == 1000


def test_what_lies_in_the_work_folder_that_was_given_stays_there(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine").write_text("kept")
    assert main([str(data), "--work", str(tmp_path / "work")]) == 0
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mine"]
    before = contents(data)
    assert main([str(data), "--work", str(data)]) == 0
    assert contents(data) == before


# What cannot be imported


def mixed_formats(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    write_tars(data / "b", "b", 3)


def both_in_one_folder(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    write_tars(data / "b", "b", 3)
    (data / "b" / "000000.tar").rename(data / "a" / "000000.tar")


def other_columns(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    write_mds_tokens(data / "b", tokens_of(0, 3))


def no_index(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    (data / "a" / "index.json").unlink()


def broken_index(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    (data / "a" / "index.json").write_text('{"shards": [{}]}')


def compressed_mds(data: Path) -> None:
    write_mds_tokens(data / "a", tokens_of(0, 3), compression="zstd")


def compressed_tar(data: Path) -> None:
    write_tars(data / "a", "a", 3)
    (data / "a" / "000000.tar").rename(data / "a" / "000000.tar.gz")


def missing_shard(data: Path) -> None:
    write_mds_texts(data / "a", "a", 30)
    (data / "a" / "shard.00001.mds").unlink()


def short_shard(data: Path) -> None:
    path = write_mds_texts(data / "a", "a", 30) / "shard.00001.mds"
    path.write_bytes(path.read_bytes()[:-1])


def flipped_bit(data: Path) -> None:
    path = write_mds_texts(data / "a", "a", 30) / "shard.00001.mds"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def wrong_number_of_samples(data: Path) -> None:
    path = write_mds_tokens(data / "a", tokens_of(0, 3)) / "index.json"
    path.write_text(path.read_text().replace('"samples": 3', '"samples": 2'))


def empty_domain(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    write_mds_texts(data / "b", "b", 0)
    (data / "b" / "shard.00000.mds").touch()


def no_utf8_name(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3).rename(os.fsdecode(os.fsencode(data) + b"/caf\xe9\xff"))


def tar_without_samples(data: Path) -> None:
    write_tars(data / "a", "a", 1)
    (data / "b").mkdir()
    tarfile.open(data / "b" / "0.tar", "w").close()


def no_tar(data: Path) -> None:
    (data / "a").mkdir(parents=True)
    (data / "a" / "0.tar").write_bytes(b"no tar at all" * 100)


def tar_cut_in_a_member(data: Path) -> None:
    path = write_tars(data / "a", "a", 3) / "000000.tar"
    path.write_bytes(path.read_bytes()[:1600])


def tar_with_a_damaged_header(data: Path) -> None:
    path = write_tars(data / "a", "a", 9) / "000000.tar"
    with tarfile.open(path) as tar:
        begin = tar.getmembers()[7].offset
    content = bytearray(path.read_bytes())
    content[begin] ^= 1
    path.write_bytes(content)


def tars_in_one_file(data: Path) -> None:
    first, second = sorted(write_tars(data / "a", "a", 30).iterdir())
    first.write_bytes(first.read_bytes() + second.read_bytes())
    second.unlink()


def tar_cut_between_members(data: Path) -> None:
    path = write_tars(data / "a", "a", 1) / "000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content.rstrip(b"\0")) // 512 * 512 + 512])


def pickles(data: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(data / "a"), columns={"x": "pkl"}) as writer:
        writer.write({"x": object})


def our_folder(data: Path) -> None:
    write_mds_texts(data / "tree", "a", 3)


def nothing(data: Path) -> None:
    data.mkdir()
    (data / "notes.txt").write_text("hello")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (mixed_formats, "'a' holds mds shards, 'b' webdataset: a corpus has one format"),
        (both_in_one_folder, "'a' holds MDS shards and tar shards"),
        (other_columns, "a corpus has one set of columns"),
        (no_index, "a/index.json is missing, though there are MDS shards beside it"),
        (broken_index, "a/index.json is no index of MDS shards"),
        (compressed_mds, r"only compressed \(zstd\).*MDSWriter\(compression=None\)"),
        (compressed_tar, "000000.tar.gz is compressed"),
        (missing_shard, "shard.00001.mds is missing, though its index.json lists it"),
        (short_shard, r"shard.00001.mds has [\d,]+ bytes, its index.json says"),
        (flipped_bit, "shard.00001.mds cannot be imported: its sha256 is"),
        (wrong_number_of_samples, "it says 3 samples, its index 2"),
        (empty_domain, "the domain 'b' is empty"),
        (tar_without_samples, "the domain 'b' is empty"),
        (no_tar, "0.tar cannot be imported"),
        (tar_cut_in_a_member, "000000.tar cannot be imported: unexpected end of data"),
        (tar_with_a_damaged_header, "neither a member nor its end"),
        (tars_in_one_file, "neither a member nor its end"),
        (tar_cut_between_members, "it has no end mark, as if it had been cut off"),
        (pickles, "'x' holds pickles.*--allow-pickle"),
        (no_utf8_name, "the name .*udcff.* is refused: names are UTF-8"),
        (our_folder, "a folder 'tree', where the import writes"),
        (nothing, "holds no shards: none of its 1 files"),
    ],
)
def test_what_cannot_be_a_corpus_is_one_clear_error(
    data: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(data)
    before = contents(data)
    with pytest.raises(CorpusError, match=message):
        import_folder(data)
    assert not (data / "manifest.json").exists()
    assert contents(data).items() >= before.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vocab-size", "10"], "give --separator-id and --pad-id"),
        (["--separator-id", "1", "--pad-id", "2"], "either --tokenizer or --vocab-size"),
        (["--vocab-size", "500", "--separator-id", "1", "--pad-id", "2"], "hold the token 9"),
        (["--vocab-size", "5000", "--separator-id", "1", "--pad-id", "5000"], "--pad-id is 5000"),
        (["--block-bytes", "0"], "must be at least 1"),
        (["--target", "a"], "NAME=TRAIN"),
        (["--target", "a/b=c"], "letters, digits"),
        (["--target", "a=b", "--target", "a=c"], "every name may be given once"),
        (["--target", "a=nowhere"], "'nowhere' is no folder"),
    ],
)
def test_impossible_options(data: Path, tmp_path: Path, options: list[str], message: str) -> None:
    write_mds_tokens(data / "a", tokens_of(0, 100))
    with pytest.raises(CorpusError, match=message):
        main([str(data), "--work", str(tmp_path / "work"), *options])
    assert not (data / "manifest.json").exists()


def test_a_target_without_samples_is_refused(data: Path, tmp_path: Path) -> None:
    write_mds_tokens(data / "a", tokens_of(0, 100))
    full = str(write_mds_tokens(tmp_path / "full", tokens_of(1, 5)))
    empty = str(write_mds_tokens(tmp_path / "empty", tokens_of(1, 0)))
    Path(empty, "shard.00000.mds").touch()
    for target in (
        ImportedTarget(name="med", train=empty),
        ImportedTarget(name="med", train=full, test=empty),
    ):
        with pytest.raises(CorpusError, match=r"'empty' is empty: .* Write its samples, or leave"):
            import_folder(data, targets=(target,))
        assert not (data / "manifest.json").exists()


def test_a_target_beyond_the_vocabulary_or_damaged_is_refused(data: Path, tmp_path: Path) -> None:
    write_mds_tokens(data / "a", tokens_of(0, 100))
    folder = write_mds_tokens(tmp_path / "t", tokens_of(1, 50) + np.uint16(4000), hashes=["sha256"])
    targets = (ImportedTarget(name="far", train=str(folder)),)
    with pytest.raises(CorpusError, match=r"'far' holds the token 4,9\d\d; .* ends at 999"):
        import_folder(data, targets=targets, **KNOWN_TOKENS)
    shard = folder / "shard.00000.mds"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorpusError, match=r"shard\.00000\.mds cannot be imported: its sha256 is"):
        import_folder(data, targets=targets)


def test_facts_about_tokens_do_not_fit_records(data: Path) -> None:
    write_mds_texts(data / "a", "a", 3)
    with pytest.raises(CorpusError, match="belong to token corpora"):
        import_folder(data, **KNOWN_TOKENS)


def test_pickles_are_imported_with_leave_but_not_opened_without(data: Path) -> None:
    pickles(data)
    import_folder(data, allow_pickle=True)
    corpus = open_corpus(data)
    with pytest.raises(CorpusError, match="'x' holds pickles"):
        corpus.read(np.array([0]))


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is no folder"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(StorageError, match="user name, password"):
        main(["s3://key:secret@bucket/prefix"])


def test_the_manifest_of_an_import_can_be_copied(
    data: Path, token_domains: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    manifest = import_folder(data)
    for entry in manifest.files:
        target = tmp_path / "copy" / entry.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / entry.file, target)
    shutil.copy(data / "manifest.json", tmp_path / "copy")
    copy = open_corpus(tmp_path / "copy")
    assert Manifest.read(tmp_path / "copy") == manifest
    assert copy.read(np.arange(3)).shape == (3, TOKENS)
