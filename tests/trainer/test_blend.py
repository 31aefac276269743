"""What is sampled, given what a mixer wants: each addition against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import Corpus, Mixture, MixtureStream, RepetitionBudget, View
from tests.corpora import view_of
from trainer.mixers import Blend

NOTHING_DRAWN = np.zeros(3, dtype=np.int64)


@pytest.fixture
def view(corpus: Corpus) -> View:
    return corpus.domains(k=3)


@pytest.fixture
def wanted(view: View) -> Mixture:
    return Mixture(view, np.array([0.0, 0.8, 0.2]))


@pytest.fixture
def histogram(view: View) -> Mixture:
    return Mixture(view, np.array([0.5, 0.5, 0.0]))


def test_without_additions_the_mixers_weights_are_sampled(wanted: Mixture) -> None:
    blend = Blend(num_steps=10, batch_size=8)
    assert blend(wanted, 5, NOTHING_DRAWN) is wanted
    assert not blend.moves


def test_the_histogram_gets_its_share_and_then_the_reserve(
    wanted: Mixture, histogram: Mixture
) -> None:
    blend = Blend(
        num_steps=10, batch_size=8, importance_share=0.5, histogram=histogram, natural_share=0.4
    )
    # (0, .8, .2)/2 + (.5, .5, 0)/2 = (.25, .65, .1); 0.6 of it and 0.4 of thirds.
    mixed = blend(wanted, 0, NOTHING_DRAWN)
    natural = Mixture.natural(wanted.view).probabilities
    np.testing.assert_allclose(
        mixed.probabilities, 0.6 * np.array([0.25, 0.65, 0.1]) + 0.4 * natural
    )
    assert not blend.moves


def test_the_reserve_runs_straight_to_its_end(wanted: Mixture) -> None:
    blend = Blend(num_steps=11, batch_size=8, natural_share=0.6, natural_share_end=0.1)
    np.testing.assert_allclose(
        [blend.reserve_at(step) for step in (0, 4, 10, 11)], [0.6, 0.4, 0.1, 0.1]
    )
    natural = Mixture.natural(wanted.view)
    assert blend(wanted, 4, NOTHING_DRAWN) == wanted.blend(natural, blend.reserve_at(4))
    assert blend.moves


def test_repeats_lose_value(wanted: Mixture) -> None:
    budget = RepetitionBudget(max_passes=2, num_steps=10)
    allowance = budget.allowance(wanted.view.sizes)
    drawn = np.array([0, allowance[1] // 2, 0])
    left = 1 - drawn[1] / allowance[1]
    for decay in (1.0, 2.0):
        blend = Blend(num_steps=10, batch_size=8, budget=budget, repeat_decay=decay)
        kept = 0.8 * left**decay
        np.testing.assert_allclose(
            blend(wanted, 5, drawn).probabilities, np.array([0, kept, 0.2]) / (kept + 0.2)
        )
    assert blend(wanted, 9, allowance) == wanted, "nothing is left: the stream's budget decides"


def test_the_surplus_goes_to_the_histogram_and_then_to_the_rest(
    wanted: Mixture, histogram: Mixture
) -> None:
    sizes = wanted.view.sizes
    steps = int(2 * sizes.sum()) // 8  # two passes over everything, in batches of 8
    budget = RepetitionBudget(max_passes=4, num_steps=steps, surplus="natural")
    blend = Blend(
        num_steps=steps, batch_size=8, budget=budget, histogram=histogram, surplus_to_histogram=True
    )
    caps = 4 * sizes / (steps * 8)
    assert 0.6 < caps[1] < 0.8
    # Domain 1 wants 0.8 and may have caps[1]; domain 0 is the only other one of the histogram.
    expected = np.array([0.8 - caps[1], caps[1], 0.2])
    np.testing.assert_allclose(blend(wanted, 0, NOTHING_DRAWN).probabilities, expected, rtol=1e-12)
    # Once domain 0 is used up, only domain 2 can take it.
    drawn = np.array([4 * sizes[0], 0, 0])
    at = int(drawn.sum()) // 8
    mixed = blend(wanted, at, drawn).probabilities
    assert mixed[0] == 0
    assert mixed.sum() == pytest.approx(1)


@given(data=st.data())
def test_the_outcome_is_a_mixture_and_the_order_of_domains_does_not_matter(
    data: st.DataObject,
) -> None:
    shares, several = st.floats(0, 1), {"min_size": 4, "max_size": 4}
    budget = RepetitionBudget(max_passes=4, num_steps=50, surplus="natural")
    sizes = np.array(data.draw(st.lists(st.integers(30, 300), **several)))
    weights, histogram = (
        np.array(data.draw(st.lists(st.floats(1e-3, 1), **several))) for _ in range(2)
    )
    drawn = np.array([data.draw(st.integers(0, int(most))) for most in budget.allowance(sizes)])
    step = data.draw(st.integers(0, 49))
    additions = {
        "natural_share": data.draw(shares),
        "natural_share_end": data.draw(st.none() | shares),
        "importance_share": data.draw(shares),
        "repeat_decay": data.draw(st.floats(0, 3)),
        "surplus_to_histogram": data.draw(st.booleans()),
    }

    def blended(order: NDArray[np.int64]) -> NDArray[np.float64]:
        view = view_of(sizes[order])
        blend = Blend(
            num_steps=50,
            batch_size=8,
            budget=budget,
            histogram=Mixture.from_weights(view, histogram[order]),
            **additions,
        )
        wanted = Mixture.from_weights(view, weights[order])
        return blend(wanted, step, drawn[order]).probabilities

    shares_there = blended(np.arange(4))
    assert shares_there.sum() == pytest.approx(1)
    order = np.array(data.draw(st.permutations(range(4))))
    np.testing.assert_allclose(blended(order), shares_there[order], atol=1e-9)


def test_shares_out_of_range_and_a_decay_without_budget_are_refused() -> None:
    with pytest.raises(ValueError, match=r"natural_share=1.5 must lie between 0 and 1"):
        Blend(num_steps=1, batch_size=1, natural_share=1.5)
    with pytest.raises(ValueError, match=r"natural_share_end=-0.1"):
        Blend(num_steps=1, batch_size=1, natural_share_end=-0.1)
    with pytest.raises(ValueError, match="set a bound with max_passes"):
        Blend(num_steps=1, batch_size=1, repeat_decay=1.0)


def test_under_a_blend_that_moves_the_budget_still_holds(
    corpus: Corpus, wanted: Mixture, histogram: Mixture
) -> None:
    budget = RepetitionBudget(max_passes=2, num_steps=40, surplus="natural")
    blend = Blend(
        num_steps=40,
        batch_size=8,
        natural_share=0.9,
        natural_share_end=0.0,
        repeat_decay=1.0,
        budget=budget,
        histogram=histogram,
        surplus_to_histogram=True,
    )
    stream = MixtureStream(
        corpus, blend(wanted, 0, NOTHING_DRAWN), batch_size=8, seed=0, budget=budget
    )
    for step in range(40):
        if step and step % 5 == 0:
            stream.set_mixture(blend(wanted, step, stream.samples_drawn))
        next(stream)
    assert (stream.samples_drawn <= budget.allowance(wanted.view.sizes)).all()
