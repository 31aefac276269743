"""How a text is written: its language and its scripts, from its beginning."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

LANGUAGE_CHARACTERS = 250
"""Enough for the language of nearly any document, at some 2,000 documents per second and core."""
MIN_LETTERS = 20
MIN_LETTER_SHARE = 0.6
"""Of all characters but spaces: prose has more letters; code, tables and formulas often have fewer."""
MIN_CONFIDENCE = 0.5
"""Of the identifier; at 0.8 classical Chinese is lost, at 0.3 more of the code counts as English."""
UNDETERMINED = "und"
"""ISO 639-2 for texts that are in no language that can be told: code, tables, a few words."""

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


def language_of(text: str) -> str:
    """ISO 639 code of the language that a text begins in, or `UNDETERMINED`."""
    begin = " ".join(text[:LANGUAGE_CHARACTERS].split())
    letters = sum(map(str.isalpha, begin))
    visible = len(begin) - begin.count(" ")
    if letters < MIN_LETTERS or letters < MIN_LETTER_SHARE * visible:
        return UNDETERMINED
    language, confidence = _identifier().classify(begin)
    return language if confidence >= MIN_CONFIDENCE and language != "zxx" else UNDETERMINED


def script_letters(text: str) -> list[int]:
    """Letters in each of `SCRIPTS` among the first characters of a text."""
    begin = text[:LANGUAGE_CHARACTERS]
    known = [sum(1 for _ in letters.finditer(begin)) for letters in _LETTERS]
    return [*known, max(0, sum(map(str.isalpha, begin)) - sum(known))]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import (  # type: ignore[import-untyped]
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
