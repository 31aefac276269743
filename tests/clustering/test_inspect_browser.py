"""The inspection page in a real Chromium: maps, drilling down and back, keys, search, a phone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clustering.inspect_command import main
from clustering.inspection.inspection import inspect_corpus
from clustering.inspection.page import write_page
from pipeline import open_corpus
from pipeline.corpus.manifest import Manifest, file_entry
from tests.browser import CHROMIUM, Tab, open_page
from tests.clustering.described import tree_of, write_described
from tests.corpora import write_corpus

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

BRANCHING = 24
LEAVES = BRANCHING**2
SHOWN = "(document.querySelector('#shown h2')?.textContent ?? '')"
PATH = "document.getElementById('path').textContent"
ROWS = "[...document.querySelectorAll('#list .row')].map((row) => row.getAttribute('href'))"
TIP = "tip.hidden ? '' : tip.textContent"
HOSTILE = "</script><script>alert('stolen')</script><img src=https://evil.example/x.png> &amp;"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 24 domains with 24 leaves each; one document per leaf, with a word of its own in it."""
    folder = tmp_path_factory.mktemp("browser")
    random = np.random.default_rng(0)
    sizes = random.integers(1, 9, LEAVES)
    first = np.arange(1, BRANCHING) * BRANCHING
    rest = np.setdiff1d(np.arange(1, LEAVES), first)
    corpus = write_corpus(
        folder / "corpus",
        sizes.tolist(),
        levels=(1, BRANCHING, LEAVES),
        split_order=[*first.tolist(), *rest.tolist()],
    )
    texts = [f"{f'group{letters(i // 24)} word{letters(i)} ' * 9}{HOSTILE}" for i in range(LEAVES)]
    written = write_described(
        corpus,
        folder / "work",
        tree_of([0] * BRANCHING, np.repeat(range(BRANCHING), BRANCHING).tolist(), split_order=[]),
        texts=texts,
        leaf=np.arange(LEAVES),
        source=np.zeros(LEAVES, dtype=np.int64),
        source_names=["all.jsonl"],
        tokens=sizes * 8,
        leaf_offsets=np.cumsum([0, *sizes]).astype(np.int64),
    )
    centers = np.repeat(random.normal(size=(BRANCHING, 4)), BRANCHING, axis=0)
    leaves = centers + 0.2 * random.normal(size=(LEAVES, 4))
    np.save(corpus / "tree" / "centroids.level2.npy", leaves.astype(np.float32))
    manifest = Manifest.read(corpus)
    changed = file_entry(corpus, "tree/centroids.level2.npy")
    tree = dataclasses.replace(manifest.tree, centroids=(*manifest.tree.centroids[:-1], changed))
    extras = tuple(file_entry(corpus, name) for name in written)
    dataclasses.replace(manifest, tree=tree, extras=extras).write(corpus)
    write_page(inspect_corpus(open_corpus(corpus)), folder / "domains.html")
    return folder / "domains.html"


def letters(number: int) -> str:
    """A word for a number: keywords have no digits."""
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:04}")


@pytest.fixture
def tab(page: Path, tmp_path: Path) -> Iterator[Tab]:
    """The page on a desktop; whatever the browser complains of fails the test."""
    with open_page(page, tmp_path / "profile") as tab:
        tab.resize(1280, 900)
        yield tab
        assert tab.complaints == []


def click_on(tab: Tab, selector: str) -> None:
    """Bring an element into view and click on its middle."""
    x, y = tab.value(
        f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
        "found.scrollIntoView({ block: 'center' }); const box = found.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    tab.click(x, y)


def test_drilling_down_and_the_way_back(tab: Tab) -> None:
    assert tab.value(SHOWN) == "Domains"
    click_on(tab, ".tile[href='#d0-3']")
    tab.until("mapped.id === 'd0-3'")
    assert "groupaaad" in tab.value(SHOWN)
    click_on(tab, "#list .row")
    tab.until("mapped.id === 'd1-72'")
    assert "corpus#3" in tab.value(PATH)
    assert tab.value("treemap.hidden && centroids.hidden"), "a leaf has nothing inside"
    tab.value("history.back()")
    tab.until(f"{SHOWN}.startsWith('#3')")
    assert tab.value(ROWS) == [f"#d1-{leaf}" for leaf in range(72, 96)]
    tab.value("history.back()")
    tab.until(f"{SHOWN} === 'Domains'")


def test_an_address_opens_its_domain(page: Path, tmp_path: Path) -> None:
    with open_page(page, tmp_path / "one", fragment="#d1-100") as tab:
        assert tab.value(SHOWN).startswith("#100")
        assert tab.value("document.title").startswith("#100")
        assert tab.value("document.activeElement.tagName") != "INPUT"
    with open_page(page, tmp_path / "two", fragment="#balance") as tab:
        assert tab.value(SHOWN) == "Domains"


def test_areas_are_tokens(tab: Tab) -> None:
    assert "Area: tokens" in tab.value("treemap.textContent")
    assert "area: tokens" in tab.value("centroids.textContent")
    tiles = tab.value(
        "[...document.querySelectorAll('.tile')].map((tile) =>"
        "[tile.node.tokens, parseFloat(tile.style.width) * parseFloat(tile.style.height)])"
    )
    tokens, areas = np.array(tiles).T
    assert len(tiles) == BRANCHING
    np.testing.assert_allclose(areas / areas.sum(), tokens / tokens.sum(), rtol=1e-3)
    inner = tab.value("[...document.querySelectorAll('.tile i')].map((part) => part.node.tokens)")
    assert sum(inner) == tokens.sum()


def test_dots_lie_inside_the_map_and_names_apart(tab: Tab) -> None:
    dots = tab.value(
        "[...document.querySelectorAll('.dot circle')].map((dot) =>"
        "['cx', 'cy', 'r'].map((name) => Number(dot.getAttribute(name))))"
    )
    x, y, r = np.array(dots).T
    frame = "document.querySelector('#centroids .map')"
    width, height = tab.value(f"[{frame}.clientWidth, {frame}.clientHeight]")
    assert len(dots) == LEAVES
    assert (x - r >= 0).all()
    assert (x + r <= width).all()
    assert (y - r >= 0).all()
    assert (y + r <= height).all()
    names = tab.value(
        "[...document.querySelectorAll('#centroids text')].map((name) =>"
        "(({ x, y, width, height }) => [x, y, x + width, y + height])(name.getBBox()))"
    )
    assert len(names) >= BRANCHING / 2
    for i, (left, top, right, bottom) in enumerate(names):
        for other in names[:i]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]


def test_maps_are_explored_with_the_keyboard(tab: Tab) -> None:
    for figure in ("treemap", "centroids"):
        links = f"document.querySelectorAll('#{figure} a[tabindex=\"0\"]')"
        assert tab.value(f"{links}.length") == 1, "one tab stop"
        tab.value(f"{links}[0].focus()")
        assert " tokens: " in tab.value(TIP)
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            tab.press(key)
        assert tab.value(f"{links}.length") == 1
        assert tab.value(f"document.activeElement === {links}[0]")
        tab.press("ArrowRight")
        tab.press("ArrowLeft")
        tab.press("ArrowDown")
        assert tab.value(TIP) == tab.value("document.activeElement.getAttribute('aria-label')")
        chosen = tab.value("document.activeElement.getAttribute('href')")
        tab.press("Enter")
        tab.until(f"`#${{mapped.id}}` === '{chosen}'")
        tab.until("document.activeElement === document.querySelector('#shown h2')")
        tab.value("history.back()")
        tab.until(f"{SHOWN} === 'Domains'")


def test_a_dot_is_chosen_by_coming_near_it(tab: Tab) -> None:
    tab.value("location.hash = '#d0-5'")
    tab.until(f"{SHOWN}.startsWith('#5')")
    x, y = tab.value(
        "(() => { const map = centroids.querySelector('.map'); map.scrollIntoView({ block: 'center' });"
        "const dots = [...map.querySelectorAll('.dot')].sort((a, b) => b.center[1] - a.center[1]);"
        "const box = dots[0].getBoundingClientRect(); return [box.x + box.width / 2, box.bottom + 3]; })()"
    )
    tab.click(x, y)
    tab.until("mapped.id.startsWith('d1-')")


def test_search_finds_domains_of_all_levels(tab: Tab) -> None:
    tab.press("/")
    assert tab.value("document.activeElement.id") == "search"
    tab.type("groupaaah")
    tab.until("location.hash.startsWith('#find=')")
    assert tab.value("matches.textContent") == "25 of 600 domains match"
    assert tab.value(ROWS)[0] == "#d0-7"
    assert set(tab.value(ROWS)[1:]) < {f"#d1-{leaf}" for leaf in range(168, 192)}
    tab.type(" wordabii")  # of a leaf whose document is no example of #7, nor its word a keyword
    tab.until(f"{ROWS}.length === 1")
    assert tab.value("document.querySelectorAll('#centroids .dot:not(.faded)').length") == 1
    assert tab.value("document.querySelectorAll('.tile:not(.faded)').length") == 1
    assert tab.value("document.querySelector('mark').textContent") == "groupaaah"
    click_on(tab, "#list .row")
    tab.until(f"{SHOWN}.startsWith('#188')")
    tab.value("history.back()")
    tab.until("search.value === 'groupaaah wordabii'")
    assert tab.value(ROWS) == ["#d1-188"]
    tab.value("history.back()")
    tab.until(f"{SHOWN} === 'Domains'")
    assert tab.value("document.querySelectorAll('.faded').length") == 0


def test_a_broken_address_shows_the_domains(page: Path, tmp_path: Path) -> None:
    with open_page(page, tmp_path / "profile", fragment="#find=%E0%A4%A") as tab:
        assert tab.complaints == []
        assert tab.value("document.querySelectorAll('.tile').length") == BRANCHING


def test_foreign_text_stays_text(tab: Tab) -> None:
    tab.value("location.hash = '#d1-9'")
    tab.until(f"{SHOWN}.startsWith('#9')")
    assert HOSTILE in tab.value("document.querySelector('.card pre').textContent")
    assert tab.value("document.images.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(tab: Tab, dark: bool) -> None:
    tab.resize(375, 812, dark=dark)
    tab.until("document.querySelector('#treemap svg, #treemap .tile') !== null")
    for fragment in ("#domains", "#d0-2", "#d1-50", "#find=groupaaac"):
        tab.value(f"location.hash = '{fragment}'")
        tab.until(f"location.hash === '{fragment}'")
        tab.until("queryOf(location.hash) !== null || location.hash === `#${mapped.id}`")
        assert tab.value("document.documentElement.scrollWidth") <= 375
        tiles = "[...document.querySelectorAll('.tile')]"
        right = f"{tiles}.map((tile) => tile.offsetLeft + tile.offsetWidth)"
        assert tab.value(f"Math.max(0, ...{right})") <= 376
    assert contrast(tab, "#list .size") > 4.5
    assert contrast(tab, "#list .chips span") > 4.5


def contrast(tab: Tab, selector: str) -> float:
    """WCAG contrast of an element's text against the first background behind it that is opaque."""
    colors = tab.value(
        f"(() => {{ let at = document.querySelector('{selector}'); const ink = getComputedStyle(at).color;"
        "while (getComputedStyle(at).backgroundColor === 'rgba(0, 0, 0, 0)') at = at.parentElement;"
        "return [ink, getComputedStyle(at).backgroundColor]; })()"
    )
    light = []
    for color in colors:
        channels = np.array([float(part) for part in color[4:-1].split(",")]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_cards_are_drawn_when_they_are_looked_at(tab: Tab) -> None:
    assert tab.value("document.querySelectorAll('pre').length") == 0
    assert tab.value("document.querySelectorAll('.row').length") == BRANCHING
    tab.value("location.hash = '#find=group'")
    tab.until("document.querySelectorAll('.row').length === 20")
    click_on(tab, "#list button")
    tab.until("document.querySelectorAll('.row').length === 40")


def test_the_command_writes_the_page(page: Path, tmp_path: Path) -> None:
    written = tmp_path / "new" / "domains.html"
    assert main([str(page.parent / "corpus"), "--k", "5", "--html", str(written)]) == 0
    with open_page(written, tmp_path / "profile") as tab:
        assert tab.complaints == []
        assert tab.value(ROWS) == [f"#d0-{domain}" for domain in range(5)]
        assert tab.value("document.querySelectorAll('.dot').length") == 5
        tab.value("location.hash = '#d0-3'")
        tab.until(f"{SHOWN}.startsWith('#3')")
        assert "near the centers of its largest parts" in tab.value("shown.textContent")


def test_a_domain_says_how_it_is_written_and_what_is_near_its_center(tab: Tab) -> None:
    """Its documents are markup; the browser knows no language of that name."""
    tab.value("location.hash = '#d0-3'")
    tab.until(f"{SHOWN}.startsWith('#3')")
    text = tab.value("shown.textContent")
    assert "Languagescode 100%" in text
    assert "near the center," in text
