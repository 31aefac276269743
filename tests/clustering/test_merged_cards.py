"""Cards of several domains told as those of one."""

from __future__ import annotations

import pytest

from clustering.cards.merged_cards import duplicate_share


def test_a_domain_of_nearly_all_duplicates_can_be_merged() -> None:
    nearly_all = {"documents": 1, "duplicate_share": 1.0}
    assert duplicate_share([nearly_all]) == pytest.approx(1 - 5e-5)
    half = {"documents": 10_000, "duplicate_share": 0.5}
    assert duplicate_share([nearly_all, half]) == pytest.approx(1 - 10_001 / 40_000)
    assert duplicate_share([{"documents": 0, "duplicate_share": 0.0}]) == 0
    assert duplicate_share([{"documents": 7}]) is None
