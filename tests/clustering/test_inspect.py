"""`braidstream inspect`: any k adds up, foreign text stays text, the page needs nothing but itself."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clustering.errors import BuildError
from clustering.inspect_command import main
from clustering.inspection.inspection import inspect_corpus
from clustering.inspection.page import compact, page_data, render_page
from clustering.inspection.table import domain_table, print_inspection
from pipeline import Corpus, CorpusError, open_corpus
from pipeline.corpus.manifest import Manifest, file_entry
from pipeline.stores.object_store import ObjectStore
from tests.clustering.described import tree_of, write_described
from tests.corpora import write_corpus
from tests.foreign_shards import (
    TOKENS,
    import_folder,
    tokens_of,
    write_mds_texts,
    write_mds_tokens,
)
from tests.servers.store_server import StoreServer

LEAVES = 8
DOCUMENTS_PER_LEAF = 6
LEVELS = (1, 2, LEAVES)
SPLIT_ORDER = [4, 2, 6, 1, 3, 5, 7]
LEAF_SIZES = [3, 5, 2, 0, 7, 4, 1, 6]
KNOWN_TOKENS = {"vocab_size": 1000, "separator_id": 0, "pad_id": 1}
WORDS = ("genome", "satellite", "invoice", "butter", "tensor", "river", "verdict", "violin")
HOSTILE = (
    "</script><script>alert('stolen')</script><img src=https://evil.example/x.png> & \"quotes\""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of eight leaves under two parents, with a hostile document in each leaf."""
    folder = tmp_path_factory.mktemp("inspect") / "corpus"
    histogram = np.array([0.0, 0.7, 0.0, 0.1, 0.0, 0.2, 0.0, 0.0])
    block = np.zeros((3, 8), dtype=np.uint16)
    write_corpus(
        folder,
        LEAF_SIZES,
        levels=LEVELS,
        split_order=SPLIT_ORDER,
        targets={"law": (block, block, histogram)},
    )
    leaf = np.repeat(np.arange(LEAVES), DOCUMENTS_PER_LEAF).astype(np.int64)
    texts = [f"{(WORDS[i] + ' ') * 9}{HOSTILE}" for i in leaf]
    written = write_described(
        folder,
        tmp_path_factory.mktemp("work"),
        tree_of([0, 0], np.repeat([0, 1], 4).tolist(), split_order=SPLIT_ORDER),
        texts=texts,
        leaf=leaf,
        source=leaf % 2,
        source_names=["even<i>.jsonl", "odd.jsonl"],
        tokens=np.arange(1, len(leaf) + 1),
        leaf_offsets=np.cumsum([0, *LEAF_SIZES]).astype(np.int64),
    )
    return name_files(folder, written)


def name_files(folder: Path, names: Sequence[str]) -> Path:
    """Put files into the manifest, as they are now."""
    entries = tuple(file_entry(folder, name) for name in names)
    dataclasses.replace(Manifest.read(folder), extras=entries).write(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return open_corpus(folder)


@pytest.mark.parametrize("k", range(1, LEAVES + 1))
def test_every_k_adds_up(corpus: Corpus, k: int) -> None:
    inspection = inspect_corpus(corpus, k=k)
    layer = inspection.layers[-1]
    assert layer.balance.k == k == len(layer.domains)
    assert sum(domain.documents or 0 for domain in layer.domains) == LEAVES * DOCUMENTS_PER_LEAF
    assert sum(domain.samples for domain in layer.domains) == sum(LEAF_SIZES)
    assert sum(domain.share for domain in layer.domains) == pytest.approx(1)
    assert sum(domain.leaves for domain in layer.domains) == LEAVES
    for domain, first_leaf in zip(layer.domains, corpus.domains(k=k).leaf_bounds, strict=False):
        inside = WORDS[first_leaf : first_leaf + domain.leaves]
        assert set(inside) <= set(domain.keywords)
        assert 1 <= len(domain.examples) <= 3


def test_layers_lead_from_the_first_split_to_the_chosen_k(corpus: Corpus) -> None:
    inspection = inspect_corpus(corpus, k=5)
    assert [layer.balance.name for layer in inspection.layers] == ["level 1", "k = 5"]
    assert [domain.parent for domain in inspection.layers[1].domains] == [0, 0, 0, 1, 1]
    assert [layer.balance.k for layer in inspect_corpus(corpus).layers] == [2, 8]
    assert [layer.balance.name for layer in inspect_corpus(corpus, k=2).layers] == ["level 1"]


def test_balance(corpus: Corpus) -> None:
    level1, leaves = (layer.balance for layer in inspect_corpus(corpus).layers)
    assert level1.largest_share == pytest.approx(18 / 28)
    assert level1.effective == pytest.approx(
        np.exp(-(10 / 28 * np.log(10 / 28) + 18 / 28 * np.log(18 / 28)))
    )
    assert (level1.empty, leaves.empty) == (0, 1)
    assert (level1.source_purity, leaves.source_purity) == (0.5, 1.0)


def test_targets_name_their_largest_domains(corpus: Corpus) -> None:
    (target,) = inspect_corpus(corpus).targets
    assert [(row.domain.index, round(row.share, 2)) for row in target.domains] == [
        (1, 0.7),
        (5, 0.2),
        (3, 0.1),
    ]
    assert target.domains[0].lift == pytest.approx(0.7 / (5 / 28))


def test_a_domain_without_samples_has_no_share_to_be_compared_with(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    inspection = inspect_corpus(corpus)
    assert inspection.targets[0].domains[2].lift is None
    print_inspection(inspection, inspection.finest, rows=8)
    assert "#3 10% (empty) butter" in capsys.readouterr().out
    assert "<span>10%</span><span>empty</span>" in render_page(inspection)


def test_a_document_does_not_steer_the_terminal(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = inspect_corpus(corpus).finest
    first = layer.domains[0]
    example = dataclasses.replace(first.examples[0], text="\x1b]0;title\x07 \x9b31m red\n")
    source = dataclasses.replace(first.sources[0], name="a\x1b[2J.jsonl")
    domain = dataclasses.replace(first, examples=(example,), sources=(source,))
    console = Console(width=120)
    console.print(domain_table(dataclasses.replace(layer, domains=(domain,)), rows=1))
    shown = capsys.readouterr().out
    assert "]0;title 31m red" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}


def test_a_layer_too_fine_to_read_is_summarized(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustering.inspection.inspection.MAX_DESCRIBED", 4)
    inspection = inspect_corpus(corpus)
    assert [len(layer.domains) for layer in inspection.layers] == [2, 0]
    assert inspection.finest.balance.k == 2
    assert "too many to list one by one" in render_page(inspection)


class Page(HTMLParser):
    """Collects what a browser would load, and the text of the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def test_foreign_text_is_data_and_never_markup(corpus: Corpus) -> None:
    page = render_page(inspect_corpus(corpus))
    parsed = Page(page)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 4, "the data, and three of ours"
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert "<script>alert" not in page
    data = json.loads(parsed.scripts[0])
    assert HOSTILE in data["layers"][1]["domains"][0]["examples"][0][0], "it is there as it was"
    assert "even<i>.jsonl" in data["sources"]


def test_the_page_loads_nothing(corpus: Corpus) -> None:
    page = render_page(inspect_corpus(corpus))
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "video", "audio")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(
        a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(|@import", page[: page.index("</style>")])


def test_every_target_leads_to_a_domain(corpus: Corpus) -> None:
    inspection = inspect_corpus(corpus)
    links = {
        (a.get("href") or "")[1:] for _, a in Page(render_page(inspection)).tags if "href" in a
    }
    assert links == {"domains", "targets", "balance", "d1-1", "d1-5", "d1-3"}
    assert len(page_data(inspection)["layers"][1]["domains"]) == LEAVES


def test_the_command_prints_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    for expected in ("Balance", "level 2", "Targets", "genome", "violin"):
        assert expected in out
    assert main([str(folder), "--level", "1"]) == 0
    assert "Domains, level 1" in capsys.readouterr().out
    assert main([str(folder), "--k", "5"]) == 0
    assert "Domains, k = 5" in capsys.readouterr().out


def test_errors_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="both choose a granularity"):
        main([str(folder), "--k", "4", "--level", "1"])
    with pytest.raises(CorpusError, match="choose 1 to 8"):
        main([str(folder), "--k", "9"])
    with pytest.raises(CorpusError, match="braidstream build"):
        main([str(tmp_path)])
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("cards"))
    with pytest.raises(CorpusError, match=r"cards/level1.jsonl is missing"):
        main([str(bare)])
    with pytest.raises(CorpusError, match="without domain cards"):
        main([str(name_files(bare, []))])


def test_a_page_that_cannot_be_written_is_one_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pulled").mkdir()
    with pytest.raises(BuildError, match=r"pulled' is a folder.*pulled/page\.html"):
        main([str(folder), "--html", str(tmp_path / "pulled")])
    assert [path.name for path in tmp_path.rglob("*")] == ["pulled"]
    for place in ("/proc/page.html", str(folder / "manifest.json" / "page.html")):
        with pytest.raises(BuildError, match=r"cannot be written \(.*that you may write to"):
            main([str(folder), "--html", place])


def test_the_page_names_the_options_of_the_build(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "corpus"
    shutil.copytree(folder, changed)
    manifest = Manifest.read(changed)
    dataclasses.replace(manifest, build={"seed": 7, "note": "<b>"}).write(changed)
    page = render_page(inspect_corpus(open_corpus(changed)))
    assert "<dt>seed</dt><dd>7</dd>" in page
    assert "<dt>note</dt><dd>&lt;b&gt;</dd>" in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (950, "950"), (12_345, "12.3k"), (456_789, "457k"), (3.2e9, "3.2B")],
)
def test_compact(value: float, shown: str) -> None:
    assert compact(value) == shown


def test_an_imported_corpus_shows_names_and_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate(["web/en", "code/py", "code/c", "web/de"]):
        write_mds_tokens(tmp_path / name, tokens_of(i, 3 + i))
    import_folder(tmp_path, **KNOWN_TOKENS)
    inspection = inspect_corpus(open_corpus(tmp_path))
    named = [[domain.keywords for domain in layer.domains] for layer in inspection.layers]
    assert named == [[("code",), ("web",)], [("code/c",), ("code/py",), ("web/de",), ("web/en",)]]
    assert [domain.samples for domain in inspection.layers[1].domains] == [5, 4, 6, 3]
    assert [domain.tokens for domain in inspection.layers[0].domains] == [9 * TOKENS, 9 * TOKENS]
    (three,) = (
        layer for layer in inspect_corpus(open_corpus(tmp_path), k=3).layers if layer.balance.k == 3
    )
    assert [domain.keywords for domain in three.domains][-1] == ("web/de", "web/en")
    assert main([str(tmp_path), "--html", str(tmp_path / "domains.html")]) == 0
    assert "code/py" in capsys.readouterr().out
    assert '"place"' not in (tmp_path / "domains.html").read_text("utf-8"), "there are no centroids"


def test_imported_records_have_sizes_in_samples(tmp_path: Path) -> None:
    for name in ("wiki", "books"):
        write_mds_texts(tmp_path / name, name, 30)
    import_folder(tmp_path)
    inspection = inspect_corpus(open_corpus(tmp_path))
    assert [domain.tokens for domain in inspection.finest.domains] == [None, None]
    page = render_page(inspection)
    assert "Vocabulary" not in page
    assert '"samples":30' in page


def test_a_corpus_in_a_bucket_is_inspected_there(
    s3: StoreServer, new_prefix: str, folder: Path, tmp_path: Path
) -> None:
    store = ObjectStore(s3.address(new_prefix))
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path)
    written = tmp_path / "domains.html"
    assert main([s3.address(new_prefix), "--html", str(written)]) == 0
    assert "genome" in written.read_text("utf-8")


def test_the_page_shows_what_newer_cards_say(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "corpus"
    shutil.copytree(folder, changed)
    path = changed / "cards" / "level2.jsonl"
    more = {
        "languages": {"en": 0.75, "und": 0.25},
        "scripts": {"Latin": 1.0},
        "duplicate_share": 0.5,
        "nearest": [{"domain": 7, "cosine": 0.5}],
    }
    rows = [json.loads(line) | more for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    name_files(changed, [entry.file for entry in Manifest.read(changed).extras])
    inspection = inspect_corpus(open_corpus(changed))
    assert inspection.layers[1].domains[0].duplicate_share == pytest.approx(0.5)
    shown = page_data(inspection)["layers"][1]["domains"][0]
    assert shown["languages"] == [["en", 0.75], ["und", 0.25]]
    assert shown["scripts"] == [["Latin", 1.0]]
    assert shown["duplicates"] == 0.5
    assert shown["nearest"] == [[7, 0.5]]
