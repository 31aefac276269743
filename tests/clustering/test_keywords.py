"""Keywords: what tells a domain apart, without the words of its language and the format of its kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.keywords import Keywords
from clustering.cards.terms import (
    count_terms,
    documents_per_leaf,
    find_terms,
    sum_leaves,
    terms_of,
)

ENGLISH = ["the", "of", "and", "is", "which"]
GERMAN = ["der", "und", "ist", "nicht", "welche"]
SUBJECTS = [
    ["genome", "variant", "protein"],
    ["satellite", "antenna", "orbit"],
    ["invoice", "payment", "tax"],
    ["oven", "flour", "butter"],
    ["mieter", "vermieter", "wohnung"],
    ["ritter", "burg", "schwert"],
    ["geige", "flöte", "trommel"],
]
MARKUP = ["assistant", "user"]


def documents(leaf: int, count: int, rng: np.random.Generator, markup: bool) -> list[str]:
    """Texts of four of five words of a language, two of three of a subject, and the markup in all."""
    common = GERMAN if leaf >= 4 else ENGLISH
    return [
        " ".join(
            [
                *rng.choice(common, 4, replace=False),
                *rng.choice(SUBJECTS[leaf], 2, replace=False),
                *(MARKUP * 8 if markup else []),
            ]
        )
        for _ in range(count)
    ]


def keywords_of(
    subjects: Sequence[int], bounds: Sequence[int], markup: Sequence[int] = ()
) -> list[list[str]]:
    """Keywords of ranges of leaves; `subjects` says what each leaf is about."""
    rng = np.random.default_rng(0)
    texts = [text for leaf in subjects for text in documents(leaf, 60, rng, leaf in markup)]
    counts, terms = counted(texts, np.repeat(np.arange(len(subjects)), 60), len(subjects))
    german = np.array(subjects) >= 4
    languages = sparse.csr_matrix(np.stack([60 * ~german, 60 * german], axis=1))
    return Keywords(counts, terms, languages).of(np.array(bounds))


def counted(
    texts: list[str], leaf: NDArray[np.int64], num_leaves: int
) -> tuple[sparse.csr_matrix, list[str]]:
    def read(rows: NDArray[np.int64]) -> list[str]:
        return [texts[row] for row in rows]

    chosen = np.arange(len(texts))
    terms = find_terms(read, chosen)
    weight = np.ones(num_leaves, dtype=np.float32)
    return count_terms(read, chosen, leaf, weight, terms), terms


def test_words_of_any_language_are_no_keywords() -> None:
    found = keywords_of(range(7), range(8))
    assert [set(words[:3]) for words in found] == [set(subject) for subject in SUBJECTS]


def test_a_language_that_one_domain_has_for_itself_is_none_either() -> None:
    """Nothing else is German, so der and und are in no other domain; but they are in all of its leaves."""
    german = keywords_of(range(7), [0, 1, 2, 3, 4, 7])[-1]
    assert set(german[:9]) == {*SUBJECTS[4], *SUBJECTS[5], *SUBJECTS[6]}


def test_markup_of_several_siblings_is_no_keyword() -> None:
    found = keywords_of(range(7), range(8), markup=(0, 1))
    assert [set(words[:3]) for words in found] == [set(subject) for subject in SUBJECTS]
    assert set(MARKUP) <= set(keywords_of(range(7), range(8), markup=(0,))[0]), "of one alone it is"


def test_domains_are_told_apart_from_their_siblings_only() -> None:
    """Two pairs: what all of a pair have is no keyword inside it, though no other domain has it."""
    texts = [
        "shared apple red sweet",
        "shared pear green juicy",
        "oak bark rough old",
        "oak leaf thin new",
    ]
    counts, terms = counted(texts * 20, np.tile(np.arange(4), 20), 4)
    keywords = Keywords(counts, terms, sparse.csr_matrix(np.full((4, 1), 20)))
    inside = keywords.of(np.arange(5), np.array([0, 0, 1, 1]))
    own = [set(text.split()[1:]) for text in texts]
    assert [set(words) for words in inside] == own
    pairs = keywords.of(np.array([0, 2, 4]))
    assert [set(words) for words in pairs] == [
        {"shared", *own[0], *own[1]},
        {"oak", *own[2], *own[3]},
    ]


def test_a_domain_without_siblings_has_the_keywords_of_its_parent() -> None:
    texts = ["apple tree", "pear tree", "oak bark"]
    counts, terms = counted(texts * 20, np.tile(np.arange(3), 20), 3)
    keywords = Keywords(counts, terms, sparse.csr_matrix(np.full((3, 1), 20)))
    found = keywords.of(np.arange(4), np.array([0, 0, 1]))
    assert found[2] == keywords.of(np.array([0, 2, 3]))[1]
    assert set(found[2]) == {"bark", "oak"}


def test_rare_words_are_not_what_a_domain_is_about() -> None:
    texts = [f"sea wave{'' if i else ' zanzibar'}" for i in range(100)] + ["hill stone"] * 100
    counts, terms = counted(texts, np.repeat([0, 1], 100), 2)
    keywords = Keywords(counts, terms, sparse.csr_matrix(np.full((2, 1), 100))).of(np.arange(3))
    assert set(keywords[0]) == {"sea", "wave"}


def test_equal_domains_and_texts_without_words_have_none() -> None:
    counts, terms = counted(["same words"] * 10, np.repeat([0, 1], 5), 2)
    languages = sparse.csr_matrix(np.full((2, 1), 5))
    assert Keywords(counts, terms, languages).of(np.arange(3)) == [[], []]
    counts, terms = counted(["1 2 3 ..."] * 10, np.repeat([0, 1], 5), 2)
    assert terms == []
    assert Keywords(counts, terms, languages).of(np.arange(3)) == [[], []]


def test_a_domain_whose_documents_are_all_alike_is_named_all_the_same() -> None:
    counts, terms = counted(["red rose"] * 5 + ["tax law"] * 5, np.repeat([0, 1], 5), 2)
    languages = sparse.csr_matrix(np.array([[5, 0], [0, 5]]))
    found = Keywords(counts, terms, languages).of(np.arange(3))
    assert [set(words) for words in found] == [{"red", "rose"}, {"tax", "law"}]


def test_plurals_and_overlapping_pairs_are_left_out() -> None:
    texts = ["virus viruss 西红柿"] * 8 + ["virus 西红柿"] + ["stone"] * 9
    counts, terms = counted(texts, np.repeat([0, 1], 9), 2)
    assert {"virus", "viruss", "西红", "红柿"} <= set(terms)
    (first, _) = Keywords(counts, terms, sparse.csr_matrix(np.full((2, 1), 9))).of(np.arange(3))
    assert len({"virus", "viruss"} & set(first)) == 1
    assert len({"西红", "红柿"} & set(first)) == 1


def test_words_of_every_script_and_identifiers_are_terms() -> None:
    assert terms_of("snake_case HTTPServer42 straße 你好世界 x река") == [
        *("snake", "case", "httpserver", "straße", "река"),
        *("你好", "好世", "世界"),
    ]


def test_documents_are_counted_and_leaves_may_be_added() -> None:
    counts, terms = counted(["river river delta", "river", "delta"], np.array([0, 0, 1]), 3)
    assert terms == ["delta", "river"]
    assert counts.toarray().tolist() == [[1, 2], [1, 0], [0, 0]]
    assert sum_leaves(counts, np.array([0, 2, 3])).toarray().tolist() == [[2, 2], [0, 0]]


def test_a_document_counts_for_those_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clustering.cards.terms.DOCUMENTS_PER_READ", 2)
    leaf = np.array([0, 0, 0, 1, 1])
    counts = count_terms(
        lambda rows: ["river"] * len(rows), np.arange(5), leaf, np.float32([2, 7]), ["river"]
    )
    assert counts.toarray().tolist() == [[6], [14]]
    monkeypatch.setattr("clustering.cards.terms.MAX_DOCUMENTS", 1_000)
    assert [documents_per_leaf(n) for n in (1, 10, 5_000)] == [256, 100, 1]
