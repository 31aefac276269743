from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import BudgetError, Corpus, Mixture, MixtureStream, RepetitionBudget
from pipeline.stream.budget import water_fill

SHARES = st.floats(0, 10).map(lambda share: share if share > 1e-12 else 0.0)


@given(st.data())
def test_water_filling_fills_to_the_caps_and_no_further(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 30))
    weights = data.draw(hnp.arrays(np.float64, k, elements=SHARES))
    caps = data.draw(hnp.arrays(np.float64, k, elements=SHARES))
    mass = data.draw(st.floats(0, 5))
    shares = water_fill(weights, caps, mass)
    assert (shares >= 0).all()
    assert (shares <= caps).all()
    assert (shares[weights == 0] == 0).all()
    available = caps[weights > 0].sum()
    assert shares.sum() == pytest.approx(min(mass, available), abs=1e-9)
    # Below its cap, a domain takes in proportion to its weight, and no other takes more than that.
    below = (weights > 0) & (shares < caps * (1 - 1e-9))
    if below.any():
        level = (shares[below] / weights[below]).max()
        assert np.allclose(shares[below], level * weights[below], rtol=1e-9)
        assert (shares <= level * weights + 1e-9).all()


@given(st.data())
def test_water_filling_does_not_depend_on_the_order_of_domains(data: st.DataObject) -> None:
    k = data.draw(st.integers(2, 30))
    weights = data.draw(hnp.arrays(np.float64, k, elements=SHARES))
    caps = data.draw(hnp.arrays(np.float64, k, elements=SHARES))
    order = np.array(data.draw(st.permutations(range(k))))
    assert np.allclose(
        water_fill(weights, caps, 1.0)[order], water_fill(weights[order], caps[order], 1.0)
    )


def test_water_filling_by_hand() -> None:
    # 0.6 wants more than its cap of 0.2; the others share the remaining 0.8 as 3 : 1.
    shares = water_fill(np.array([0.6, 0.3, 0.1]), np.array([0.2, 1.0, 1.0]), 1.0)
    assert shares == pytest.approx([0.2, 0.6, 0.2])
    # Now 0.3 hits its cap as well, because it was given what the first could not take.
    shares = water_fill(np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 1.0]), 1.0)
    assert shares == pytest.approx([0.2, 0.5, 0.3])


@pytest.mark.parametrize("surplus", ["mixture", "natural"])
@pytest.mark.parametrize("max_passes", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("k", [6, 24])
def test_a_budget_is_never_exceeded_and_spent_evenly(
    numbered_corpus: Corpus, surplus: str, max_passes: float, k: int
) -> None:
    """A mixture that wants only small domains, for as many steps as the budget can supply."""
    view = numbered_corpus.domains(k=k)
    wanted = Mixture.from_weights(view, (view.sizes > 0) / np.maximum(view.sizes, 1) ** 2)
    num_steps = int(max_passes * numbered_corpus.num_samples * 0.9) // 8
    budget = RepetitionBudget(max_passes=max_passes, num_steps=num_steps, surplus=surplus)
    stream = MixtureStream(numbered_corpus, wanted, batch_size=8, budget=budget)
    allowance = budget.allowance(view.sizes)
    scarce = int(np.argmin(np.where(view.sizes > 0, view.sizes, 10**9)))
    for step in range(num_steps):
        assert stream.effective_probabilities.sum() == pytest.approx(1.0, abs=1e-9)
        next(stream)
        assert (stream.samples_drawn <= allowance).all()
        # The most wanted domain is spread over the run: within one batch of its pace.
        plan = allowance[scarce] * (step + 1) / num_steps
        assert abs(stream.samples_drawn[scarce] - plan) <= 8
    assert stream.samples_drawn.sum() == num_steps * 8
    with pytest.raises(BudgetError, match="beyond"):
        next(stream)


def test_a_run_that_uses_every_allowed_sample_uses_each_exactly(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(level=1)
    batch_size = 9
    assert numbered_corpus.num_samples % batch_size == 0
    num_steps = numbered_corpus.num_samples // batch_size
    stream = MixtureStream(
        numbered_corpus,
        Mixture.uniform(view),
        batch_size=batch_size,
        budget=RepetitionBudget(max_passes=1, num_steps=num_steps),
    )
    seen = np.concatenate([next(stream).positions for _ in range(num_steps)])
    assert np.array_equal(np.sort(seen), np.arange(numbered_corpus.num_samples))


def test_a_budget_that_cannot_supply_its_run_says_what_would(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=6)
    with pytest.raises(BudgetError, match=r"Allow at least \d+\.\d\d passes"):
        MixtureStream(
            numbered_corpus,
            Mixture.natural(view),
            batch_size=8,
            budget=RepetitionBudget(max_passes=1, num_steps=10_000),
        )
    for wrong in ({"max_passes": 0.0}, {"num_steps": 0}, {"surplus": "other"}):
        with pytest.raises(BudgetError):
            RepetitionBudget(**{"max_passes": 1.0, "num_steps": 1, **wrong})
