"""The update rule against numbers worked out by hand, and as properties of the simplex."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainer.dga import finite_scores, mirror_ascent, moving_average, standardized


def test_one_update_by_hand() -> None:
    # α = (1/2, 1/4, 1/4), η a = (0, ln 2, -ln 2): α̂ = (1/2, 1/2, 1/8), their sum is 9/8.
    scores = np.log(2) / 5 * np.array([0.0, 1.0, -1.0])
    updated = np.exp(mirror_ascent(np.log([0.5, 0.25, 0.25]), scores, 5.0))
    np.testing.assert_allclose(updated, [4 / 9, 4 / 9, 1 / 9], rtol=1e-14)


def test_two_updates_continue_from_the_weights() -> None:
    log_weights = np.log([0.5, 0.5])
    for _ in range(2):
        log_weights = mirror_ascent(log_weights, np.array([np.log(3), 0.0]), 1.0)
    np.testing.assert_allclose(np.exp(log_weights), [0.9, 0.1], rtol=1e-14)


def test_a_positive_score_raises_the_weight() -> None:
    updated = np.exp(mirror_ascent(np.log([0.5, 0.5]), np.array([0.1, -0.1]), 1.0))
    assert updated[0] > 0.5 > updated[1]


def test_an_empty_domain_stays_at_zero_whatever_its_score() -> None:
    for score in (0.0, 1e6, np.nan):
        updated = mirror_ascent(np.array([0.0, -np.inf]), np.array([1.0, score]), 1.0)
        np.testing.assert_array_equal(np.exp(updated), [1.0, 0.0])


def test_a_lost_domain_comes_back() -> None:
    log_weights = np.log([0.5, 0.5])
    for score in [2000.0, -2000.0]:
        log_weights = mirror_ascent(log_weights, np.array([score, 0.0]), 1.0)
    np.testing.assert_allclose(np.exp(log_weights), [0.5, 0.5])


def test_moving_average_by_hand() -> None:
    average = moving_average(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 0.1)
    np.testing.assert_allclose(average, [0.55, 0.45])


def test_standardized_scores_by_hand() -> None:
    # Two domains with weight, scores 1 and 5: deviation 2. The third has no weight and no say.
    log_weights = np.array([np.log(0.5), np.log(0.5), -np.inf])
    np.testing.assert_allclose(
        standardized(log_weights, np.array([1.0, 5.0, 100.0]))[:2], [0.5, 2.5]
    )
    np.testing.assert_array_equal(standardized(log_weights, np.full(3, 0.7)), np.full(3, 0.7))


def test_only_domains_with_weight_need_finite_scores() -> None:
    log_weights = np.array([0.0, -np.inf])
    assert finite_scores(log_weights, np.array([1.0, np.nan]))
    assert not finite_scores(log_weights, np.array([np.inf, 0.0]))


@given(
    weights=arrays(np.float64, 7, elements=st.floats(1e-6, 1.0)),
    scores=arrays(np.float64, 7, elements=st.floats(-1e3, 1e3)),
    step_size=st.floats(0.0, 50.0),
)
def test_the_result_lies_on_the_simplex_and_keeps_the_order_of_scores(
    weights: np.ndarray, scores: np.ndarray, step_size: float
) -> None:
    before = np.log(weights / weights.sum())
    after = mirror_ascent(before, scores, step_size)
    assert np.exp(after).sum() == pytest.approx(1.0)
    # The log-ratio of any two weights changes by exactly η times the difference of their scores.
    gain = after - before
    np.testing.assert_allclose(gain - gain[0], step_size * (scores - scores[0]), atol=1e-8)
