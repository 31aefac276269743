from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import BudgetError, Corpus, Mixture, MixtureStream, RepetitionBudget
from pipeline.stream.budget import paced_probabilities, water_fill
from tests.corpora import view_of

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


@given(st.data())
def test_paced_probabilities_are_a_mixture_under_the_caps_in_any_order(data: st.DataObject) -> None:
    """Wherever a run stands: they sum to 1, no cap is exceeded, and domains may be numbered otherwise."""
    k, num_steps, batch_size = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    sizes = np.array(data.draw(st.lists(st.integers(0, 60), min_size=k, max_size=k)))
    weights = data.draw(hnp.arrays(np.float64, k, elements=SHARES)) * (sizes > 0)
    assume(weights.sum() > 0)
    needed = num_steps * batch_size
    # From just enough for the run to ten times that.
    passes = (needed + k) / sizes.sum() * data.draw(st.floats(1, 10))
    budget = RepetitionBudget(
        max_passes=passes,
        num_steps=num_steps,
        surplus=data.draw(st.sampled_from(["mixture", "natural"])),
    )
    # Somewhere in the run: `step` batches were drawn, of whatever domains had some left.
    step = data.draw(st.integers(0, num_steps - 1))
    allowance, used, left = budget.allowance(sizes), np.zeros(k, dtype=np.int64), step * batch_size
    for domain in data.draw(st.permutations(range(k))):
        used[domain] = min(left, allowance[domain])
        left -= used[domain]
    where = {"used": used, "step": step, "batch_size": batch_size}
    shares = paced_probabilities(Mixture.from_weights(view_of(sizes), weights), budget, **where)
    assert shares.sum() == pytest.approx(1, abs=1e-9)
    assert (shares >= 0).all()
    caps = (allowance - used) / ((num_steps - step) * batch_size)
    assert (shares <= caps + 1e-12).all()
    order = np.array(data.draw(st.permutations(range(k))))
    there = Mixture.from_weights(view_of(sizes[order]), weights[order])
    again = paced_probabilities(there, budget, **{**where, "used": used[order]})
    np.testing.assert_allclose(again, shares[order], atol=1e-12)


@settings(max_examples=40)
@given(data=st.data())
def test_under_any_mixtures_no_cap_is_exceeded_and_the_budget_is_spent_to_plan(
    numbered_corpus: Corpus, data: st.DataObject
) -> None:
    """Mixtures that change at any step; one domain is wanted more than it may have all along."""
    view = numbered_corpus.domains(k=data.draw(st.integers(2, 24)))
    # A batch holds c·B of a capped domain or one less, at random, which the next caps make up for: within
    # the run it wanders a little around the plan, and in the last batch it comes to it.
    batch_size, num_steps = data.draw(st.integers(8, 24)), data.draw(st.integers(1, 40))
    least = (num_steps * batch_size + view.k) / view.num_samples
    budget = RepetitionBudget(
        max_passes=least * data.draw(st.floats(1, 4)),
        num_steps=num_steps,
        surplus=data.draw(st.sampled_from(["mixture", "natural"])),
    )
    allowance = budget.allowance(view.sizes)
    planned = allowance / num_steps
    within = np.flatnonzero((view.sizes > 0) & (planned < 0.8 * batch_size))
    assume(len(within))
    wanted = data.draw(st.sampled_from(list(within)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def mixture() -> Mixture:
        weights = (view.sizes > 0) * rng.exponential(size=view.k) ** 4
        weights[wanted] = 99 * weights.sum() + 1
        return Mixture.from_weights(view, weights)

    stream = MixtureStream(numbered_corpus, mixture(), batch_size=batch_size, budget=budget)
    for step in range(num_steps):
        if rng.uniform() < 0.3:
            stream.set_mixture(mixture())
        before = stream.samples_drawn.copy()
        caps = (allowance - before) / ((num_steps - step) * batch_size)
        assert stream.effective_probabilities.sum() == pytest.approx(1.0, abs=1e-9)
        next(stream)
        drawn = stream.samples_drawn - before
        assert drawn.sum() == batch_size
        assert (drawn <= np.ceil(caps * batch_size - 1e-9)).all()
        assert (stream.samples_drawn <= allowance).all()
        assert abs(stream.samples_drawn[wanted] - planned[wanted] * (step + 1)) <= batch_size
    assert stream.samples_drawn[wanted] == allowance[wanted]


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
    for _ in range(2):
        with pytest.raises(BudgetError, match="A longer one begins anew"):
            next(stream)
        assert stream.samples_drawn.sum() == numbered_corpus.num_samples


@pytest.mark.parametrize("max_passes", [1e9, 1e12, 1e300])
def test_a_budget_without_a_bound_to_speak_of_supplies_any_run(max_passes: float) -> None:
    for sizes in (np.full(1000, 10**8), np.array([0, 1])):
        budget = RepetitionBudget(max_passes=max_passes, num_steps=10**6)
        budget.check(sizes, 512)
        assert (budget.allowance(sizes)[sizes > 0] >= 10**6 * 512).all()


def test_a_budget_that_cannot_supply_its_run_says_what_would(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=6)
    with pytest.raises(BudgetError, match=r"Allow at least \d+\.\d\d passes"):
        MixtureStream(
            numbered_corpus,
            Mixture.natural(view),
            batch_size=8,
            budget=RepetitionBudget(max_passes=1, num_steps=10_000),
        )
    for sizes, needed in (([502, 502], 1_007), ([3] * 24, 100), ([1, 0, 7], 50)):
        with pytest.raises(BudgetError) as refused:
            RepetitionBudget(max_passes=1, num_steps=needed).check(np.array(sizes), 1)
        enough = re.search(r"at least (\S+) passes", str(refused.value))
        assert enough is not None
        RepetitionBudget(max_passes=float(enough[1]), num_steps=needed).check(np.array(sizes), 1)
    with pytest.raises(BudgetError, match=r"or train for at most 3 steps\.$"):
        RepetitionBudget(max_passes=1, num_steps=4).check(np.array([20, 9]), 8)
    with pytest.raises(BudgetError) as refused:
        RepetitionBudget(max_passes=0.25, num_steps=4).check(np.array([20, 9]), 8)
    assert str(refused.value) == (
        "max_passes=0.25 allows 7 samples in all, less than a batch, but the run draws 4 batches of "
        "8 = 32. Allow at least 1.12 passes."
    )
    for wrong in ({"max_passes": 0.0}, {"num_steps": 0}, {"num_steps": 1.5}, {"surplus": "other"}):
        with pytest.raises(BudgetError):
            RepetitionBudget(**{"max_passes": 1.0, "num_steps": 1, **wrong})
