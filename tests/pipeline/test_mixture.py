from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils.data import DataLoader

from pipeline import (
    Corpus,
    CorpusError,
    Mixture,
    MixtureError,
    MixtureStream,
    StateError,
    open_corpus,
)
from tests.pipeline.test_view import ranges, trees

WEIGHTS = st.floats(0, 1e300, allow_subnormal=False)


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[Mixture, list[int]]:
    """A mixture over some view of a tree with at least one sample, and all k of that tree."""
    tree = draw(trees().filter(lambda tree: tree.leaves.sizes.any()))
    view = tree.view(k=draw(st.integers(1, tree.num_leaves)))
    weights = draw(hnp.arrays(np.float64, view.k, elements=WEIGHTS)) * (view.sizes > 0)
    if not weights.any():
        weights = (view.sizes > 0).astype(float)
    return Mixture.from_weights(view, weights), [*range(1, tree.num_leaves + 1)]


@given(mixtures())
def test_a_mixture_is_a_distribution(case: tuple[Mixture, list[int]]) -> None:
    mixture, _ = case
    assert np.isclose(mixture.probabilities.sum(), 1.0, rtol=0, atol=1e-12)
    assert (mixture.probabilities >= 0).all()
    assert 1.0 - 1e-9 <= mixture.effective_domains <= mixture.view.k + 1e-9


@given(st.data())
def test_carrying_to_a_finer_view_and_back_changes_nothing(data: st.DataObject) -> None:
    tree = data.draw(trees().filter(lambda tree: tree.leaves.sizes.any()))
    coarse = tree.view(k=data.draw(st.integers(1, tree.num_leaves)))
    fine = tree.view(k=data.draw(st.integers(coarse.k, tree.num_leaves)))
    weights = data.draw(hnp.arrays(np.float64, coarse.k, elements=st.floats(0.01, 100)))
    mixture = Mixture.from_weights(coarse, weights * (coarse.sizes > 0))
    carried = mixture.to(fine)
    assert np.allclose(carried.to(coarse).probabilities, mixture.probabilities, atol=1e-12)
    assert np.isclose(carried.probabilities.sum(), 1.0)
    # Inside a domain the split is by size, so the natural mixture stays natural.
    assert np.allclose(
        Mixture.natural(coarse).to(fine).probabilities, Mixture.natural(fine).probabilities
    )


def test_values_rules_and_remedies() -> None:
    view = _view([3, 0, 5])
    with pytest.raises(MixtureError, match=r"sum to 0\.5.*from_weights"):
        Mixture(view, np.array([0.5, 0.0, 0.0]))
    with pytest.raises(MixtureError, match=r"shape \(2,\); the view has 3 domains"):
        Mixture.from_weights(view, [1, 2])
    with pytest.raises(MixtureError, match="domain 2 is nan"):
        Mixture.from_weights(view, [1, 0, np.nan])
    with pytest.raises(MixtureError, match="must not be negative"):
        Mixture.from_weights(view, [1, 0, -1])
    with pytest.raises(MixtureError, match=r"domain 1 has the weight 1\.0 and no samples"):
        Mixture.from_weights(view, [1, 1, 1])
    with pytest.raises(MixtureError, match="all weights are zero"):
        Mixture.from_weights(view, [0, 0, 0])
    with pytest.raises(MixtureError, match="between views of one corpus"):
        Mixture.natural(view).to(dataclasses.replace(view, corpus_fingerprint="other"))


@pytest.mark.parametrize("value", ["natural", None, [0.5, 0.5]])
def test_a_stream_says_what_a_mixture_is(numbered_corpus: Corpus, value: Any) -> None:
    message = re.escape(f"{value!r} is no Mixture.") + r".*Mixture\.natural\(view\)"
    with pytest.raises(TypeError, match=message):
        MixtureStream(numbered_corpus, value, batch_size=3)
    view = numbered_corpus.domains(k=2)
    stream = MixtureStream(numbered_corpus, Mixture.natural(view), batch_size=3)
    with pytest.raises(TypeError, match=message):
        stream.set_mixture(value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corpus": "corpus"}, r"'corpus' is no Corpus\. Open one first: corpus = open_corpus"),
        ({"budget": 8}, r"budget=8 is no RepetitionBudget\. Write RepetitionBudget\(max_passes=8"),
        ({"batch_size": 4.0}, r"batch_size=4\.0 must be a whole number"),
        ({"seed": "0"}, r"seed='0' must be a whole number"),
    ],
)
def test_a_stream_says_what_else_it_takes(
    numbered_corpus: Corpus, changed: dict[str, Any], message: str
) -> None:
    mixture = Mixture.natural(numbered_corpus.domains(k=2))
    settings: dict[str, Any] = {"corpus": numbered_corpus, "batch_size": 4, **changed}
    with pytest.raises(TypeError, match=message):
        MixtureStream(mixture=mixture, **settings)


def test_what_is_no_state_version_or_number_of_domains_is_named(numbered_corpus: Corpus) -> None:
    mixture = Mixture.natural(numbered_corpus.domains(k=2))
    stream = MixtureStream(numbered_corpus, mixture, batch_size=4)
    with pytest.raises(TypeError, match=r"state_dict\(\) gave, not str.*json\.loads"):
        stream.load_state_dict(json.dumps(stream.state_dict()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"version='1' must be a whole number"):
        open_corpus(numbered_corpus.path, version="1")  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match=r"k=2\.0 must be a whole number of domains"):
        numbered_corpus.domains(k=2.0)  # type: ignore[arg-type]


def test_home_is_found(numbered_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(numbered_corpus.path.parent))
    assert open_corpus(f"~/{numbered_corpus.path.name}").path == numbered_corpus.path


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loader_that_would_batch_batches_says_how_to_be_made(
    numbered_corpus: Corpus, batch_size: int
) -> None:
    mixture = Mixture.natural(numbered_corpus.domains(k=2))
    stream = MixtureStream(numbered_corpus, mixture, batch_size=4)
    with pytest.raises(StateError, match="pass batch_size=None to the DataLoader"):
        next(iter(DataLoader(stream, batch_size=batch_size)))


def test_natural_uniform_blend_and_distance_by_hand() -> None:
    view = _view([3, 0, 5])
    natural, uniform = Mixture.natural(view), Mixture.uniform(view)
    assert natural.probabilities == pytest.approx([3 / 8, 0, 5 / 8])
    assert uniform.probabilities.tolist() == [0.5, 0, 0.5]
    assert natural.distance(uniform) == pytest.approx(1 / 8)
    assert natural.blend(uniform, 0.5).probabilities[0] == pytest.approx(7 / 16)
    assert uniform.entropy == pytest.approx(np.log(2))


def test_a_mixture_is_a_value() -> None:
    view = _view([3, 0, 5])
    weights = np.array([0.25, 0.0, 0.75])
    mixture = Mixture(view, weights)
    weights[0] = 9.0
    assert mixture.probabilities[0] == 0.25
    with pytest.raises(ValueError, match="read-only"):
        mixture.probabilities[0] = 1.0
    assert mixture == Mixture(view, np.array([0.25, 0.0, 0.75]))
    assert hash(mixture) == hash(Mixture(view, np.array([0.25, 0.0, 0.75])))
    assert mixture != Mixture.uniform(view)


def _view(sizes: list[int]):  # type: ignore[no-untyped-def]
    from pipeline.corpus.view import DomainTree

    return DomainTree(
        corpus_fingerprint="f",
        levels=(1, len(sizes)),
        leaves=ranges([sizes]),
        split_order=np.arange(1, len(sizes)),
    ).view(level=1)
