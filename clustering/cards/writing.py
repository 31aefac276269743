"""How a text is written: its language and its scripts, from its beginning."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.terms import Texts

LANGUAGE_CHARACTERS = 250
"""Enough for the language of nearly any document, at some 2,000 documents per second and core."""
MIN_LETTERS = 20
MIN_LETTER_SHARE = 0.6
"""Of all characters but spaces: prose has more letters; tables and formulas often have fewer."""
MIN_CONFIDENCE = 0.5
"""Of the identifier; at 0.3 more tables and lists count as English."""
UNDETERMINED = "und"
"""ISO 639-2 for texts that are in no language that can be told: tables, a few words."""
MACROLANGUAGE = {
    "arz": "ar", "ary": "ar", "ltg": "lv", "nn": "no", "sdh": "ku", "uzs": "uz", "wuu": "zh", "yue": "zh"
}  # fmt: skip
"""By ISO 639-3: written texts, classical ones above all, do not tell which of these is spoken."""

CODE = "code"
CODE_CHARACTERS = 2_000
"""More than for languages: many files of code begin with a page of comment."""
CODE_SYMBOLS = 0.04
"""Of the characters of a line: code has more symbols; nearly all prose, citations included, has fewer."""
STATEMENT_WORDS = 4
"""An import has fewer; a paragraph of a law that ends in a semicolon has more."""
LANGUAGE_BATCH = 1_024

_SCRIPTS = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Kana": "\u3040-\u30ff",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f",
    "Hangul": "\u1100-\u11ff\uac00-\ud7af",
}
SCRIPTS = (*_SCRIPTS, "other")
_LETTERS = [re.compile(f"[{ranges}]") for ranges in _SCRIPTS.values()]
_NO_SYMBOLS = str.maketrans("", "", "{}[]()<>=;_*/\\|&#@$+~^`")


def language_of(text: str) -> str:
    """ISO 639 code of the language that a text begins in, `CODE`, or `UNDETERMINED`."""
    if is_code(text):
        return CODE
    begin = " ".join(text[:LANGUAGE_CHARACTERS].split())
    letters = sum(map(str.isalpha, begin))
    visible = len(begin) - begin.count(" ")
    if letters < MIN_LETTERS or letters < MIN_LETTER_SHARE * visible:
        return UNDETERMINED
    confidence: dict[str, float] = {}
    for found, score in _identifier().rank(begin):
        language = MACROLANGUAGE.get(found, found)
        confidence[language] = confidence.get(language, 0.0) + score
    language = max(confidence, key=lambda name: confidence[name])
    is_sure = confidence[language] >= MIN_CONFIDENCE and language != "zxx"
    return language if is_sure else UNDETERMINED


def is_code(text: str) -> bool:
    """Whether more than half of the first characters stand in lines of code.

    A line of code has many symbols, or few words and the end of a statement or block. Lines weigh as much as
    they are long: a manual has long lines between its short commands.
    """
    code = total = 0
    for line in text[:CODE_CHARACTERS].splitlines():
        line = line.strip()
        length = len(line)
        total += length
        symbols = length - len(line.translate(_NO_SYMBOLS))
        is_statement = line.endswith((";", "{", "}")) and line.count(" ") < STATEMENT_WORDS
        if is_statement or symbols > CODE_SYMBOLS * length:
            code += length
    return 2 * code > total


def script_letters(text: str) -> list[int]:
    """Letters in each of `SCRIPTS` among the first characters of a text."""
    begin = text[:LANGUAGE_CHARACTERS]
    if begin.isascii():
        return [sum(map(str.isalpha, begin)), *[0] * len(_LETTERS)]
    known = [sum(1 for _ in letters.finditer(begin)) for letters in _LETTERS]
    return [*known, max(0, sum(map(str.isalpha, begin)) - sum(known))]


def count_writing(
    texts: Texts, chosen: NDArray[np.int64], leaf: NDArray[np.int64], weight: NDArray[np.float32]
) -> tuple[sparse.csr_matrix, list[str], sparse.csr_matrix]:
    """Languages and scripts of leaves, from documents that stand for others.

    Args:
        texts: Returns the texts of the given documents.
        chosen: int64 (n,): the documents.
        leaf: int64 (n,): the leaf of each.
        weight: float32 (num_leaves,): for how many documents one of each leaf stands.

    Returns:
        Estimated documents by language, float32 CSR (num_leaves, languages); the names of the languages;
        estimated letters by script at the beginnings of documents, float32 CSR (num_leaves, len(SCRIPTS)).
    """
    found: list[str] = []
    letters: list[list[int]] = []
    for begin in range(0, len(chosen), LANGUAGE_BATCH):
        batch = texts(chosen[begin : begin + LANGUAGE_BATCH])
        found += map(language_of, batch)
        letters += map(script_letters, batch)
    names, column = np.unique(np.array(found, dtype=str), return_inverse=True)
    languages = sparse.csr_matrix((weight[leaf], (leaf, column)), shape=(len(weight), len(names)))
    scripts = np.zeros((len(weight), len(SCRIPTS)), dtype=np.float32)
    np.add.at(scripts, leaf, np.array(letters, dtype=np.float32).reshape(-1, len(SCRIPTS)))
    return languages, names.tolist(), sparse.csr_matrix(scripts * weight[:, None])


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import (  # type: ignore[import-untyped]
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
