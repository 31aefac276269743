"""Several target sets with weights: how they are written, what weights do wherever a target steers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import Corpus, CorpusError, open_corpus
from tests.corpora import write_corpus
from tests.trainer.conftest import CPU
from tests.trainer.test_run import records
from trainer import TrainConfig, train
from trainer.alignment.alignment import AlignmentSampler, Probe
from trainer.alignment.difference import DifferenceEstimator
from trainer.alignment.exact import ExactEstimator
from trainer.compare.grid import GridError, parse_grid
from trainer.compare_command import main as compare_main
from trainer.mixers import basis_mixtures, importance_mixture
from trainer.model import TokenLoss
from trainer.results.results import read_runs
from trainer.results.table import make_rows
from trainer.run.distributed import Ranks
from trainer.targets import Target, TargetError, TargetMix, steering_target, target_weights

MIX = "alpha=3+beta=1"


def mix(corpus: Corpus, text: str = MIX) -> TargetMix:
    found = steering_target(corpus, text)
    assert isinstance(found, TargetMix)
    return found


def sampler(corpus: Corpus, target: Target, *, batch: int, ranks: Ranks | None = None):
    return AlignmentSampler(
        corpus=corpus,
        view=corpus.domains(k=3),
        target=target,
        seed=1,
        target_batch=batch,
        ranks=ranks or Ranks(),
    )


def test_how_targets_are_written() -> None:
    assert target_weights("recipes", ()) == {"recipes": 1.0}
    assert target_weights("a+b", ()) == {"a": 0.5, "b": 0.5}
    assert target_weights("a=3+b=1", ()) == {"a": 0.75, "b": 0.25}
    assert target_weights("a=0.7+b=0.3", ()) == pytest.approx({"a": 0.7, "b": 0.3})
    assert target_weights("c++", {"c++"}) == {"c++": 1.0}, (
        "a set of the corpus is taken as it stands"
    )


@pytest.mark.parametrize(
    "text", ["a+", "a=0+b=1", "a=-1", "a=x+b=1", "a=inf+b=1", "=2+b=1", "", "a=nan"]
)
def test_what_is_no_target_is_explained(text: str) -> None:
    with pytest.raises(
        TargetError, match=r"is no NAME or NAME=WEIGHT\. Write one name, or several"
    ):
        target_weights(text, ())


def test_a_set_is_named_once_and_must_be_there(corpus: Corpus) -> None:
    with pytest.raises(TargetError, match=r"has a comma.* joined by \+, such as a\+b"):
        target_weights("a,b", ["a", "b"])
    with pytest.raises(TargetError, match="'a=2' stands there twice"):
        target_weights("a=1+a=2", ())
    with pytest.raises(TargetError, match="give it to all, or to none"):
        target_weights("a=0.7+b", ())
    with pytest.raises(CorpusError, match="no target set 'gamma'; it has: alpha, beta"):
        steering_target(corpus, "alpha+gamma")
    grid = parse_grid(corpus, mixers="dga", ks="3", targets=f"alpha,{MIX}", seeds="0")
    assert grid.targets == ("alpha", MIX)
    with pytest.raises(GridError, match="--targets: there is no gamma; choose from alpha, beta"):
        parse_grid(corpus, mixers="dga", ks="3", targets="alpha+gamma", seeds="0")


@pytest.fixture(scope="module")
def with_an_empty_set(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The target `none` has test sequences only."""
    rows, histogram = np.full((4, 8), 5, dtype=np.uint16), np.array([1.0, 0.0])
    targets = {"some": (rows, rows, histogram), "none": (rows[:0], rows, 0 * histogram)}
    folder = tmp_path_factory.mktemp("sets") / "corpus"
    return open_corpus(write_corpus(folder, [9, 9], levels=(1, 2), targets=targets))


@pytest.mark.parametrize("target", ["none", "some+none"])
@pytest.mark.parametrize("mixer", ["dga", "dga-distributions", "importance-fading"])
def test_a_set_without_train_sequences_steers_nothing(
    with_an_empty_set: Corpus, config: TrainConfig, tmp_path: Path, mixer: str, target: str
) -> None:
    config = replace(config, mixer=mixer, target=target, k=2, update_every=None)
    options = ["--mixers", mixer, "--targets", target, "--preset", "1m", "--steps", "2"]
    with pytest.raises(TargetError, match=r"'none' has 0 train sequences.* Name another set, or"):
        train(with_an_empty_set, config, tmp_path / "run", quiet=True)
    with pytest.raises(TargetError, match="'none' has 0 train sequences"):
        compare_main([str(with_an_empty_set.path), *options, "--out", str(tmp_path / "comparison")])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("mixer", ["natural", "doge+toward=all"])
def test_a_set_without_train_sequences_can_be_evaluated_on(
    with_an_empty_set: Corpus, config: TrainConfig, tmp_path: Path, mixer: str
) -> None:
    config = replace(config, mixer=mixer, target="none", k=2, update_every=None)
    result = train(with_an_empty_set, config, tmp_path / "run", quiet=True)
    assert result["target_loss_final"]["none"] > 0


def test_histograms_are_mixed_by_weight(corpus: Corpus) -> None:
    # alpha is spread evenly over the leaves 4 to 7, beta over 8 to 11.
    expected = [0] * 4 + [0.75 / 4] * 4 + [0.25 / 4] * 4
    np.testing.assert_allclose(mix(corpus).leaf_histogram, expected)
    coarse = importance_mixture(corpus.domains(k=3), mix(corpus))
    np.testing.assert_allclose(coarse.probabilities, [0, 0.75, 0.25])
    longer = replace(mix(corpus).sets[1], leaf_histogram=40 * mix(corpus).sets[1].leaf_histogram)
    unequal = replace(mix(corpus), sets=(mix(corpus).sets[0], longer))
    np.testing.assert_allclose(unequal.leaf_histogram, expected)
    basis = basis_mixtures(corpus, corpus.domains(k=3), MIX)
    assert list(basis) == [MIX, "alpha", "beta", "natural"]
    assert basis[MIX] == coarse


def test_the_gradient_is_the_weighted_one(corpus: Corpus, trained_loss: TokenLoss) -> None:
    probe = Probe(
        loss=trained_loss, batch_size=7, pad_id=corpus.pad_id, device=CPU, normalization="raw"
    )
    exact = ExactEstimator(probe=probe)
    alpha, beta, both = (
        exact.scores(sampler(corpus, steering_target(corpus, text), batch=96).draw(3))
        for text in ("alpha", "beta", MIX)
    )
    np.testing.assert_allclose(both.values, 0.75 * alpha.values + 0.25 * beta.values, rtol=1e-4)
    assert both.target_loss == pytest.approx(0.75 * alpha.target_loss + 0.25 * beta.target_loss)
    drawn = sampler(corpus, mix(corpus), batch=96).draw(3)
    difference = DifferenceEstimator(probe=probe, epsilon=5e-5).scores(drawn)
    np.testing.assert_allclose(
        difference.values, both.values, atol=0.02 * np.abs(both.values).max()
    )


def test_sequences_are_drawn_in_proportion_and_shared_by_ranks(corpus: Corpus) -> None:
    whole = sampler(corpus, mix(corpus), batch=16).draw(5)
    assert whole.target_weights is not None
    from_alpha = [(corpus.target("alpha").train == row).all(axis=1).any() for row in whole.target]
    assert from_alpha == [True] * 12 + [False] * 4
    np.testing.assert_allclose(whole.target_weights, [0.75 / 12] * 12 + [0.25 / 4] * 4)
    again = sampler(corpus, mix(corpus), batch=16).draw(5)
    np.testing.assert_array_equal(whole.target, again.target)
    parts = [
        sampler(corpus, mix(corpus), batch=16, ranks=Ranks(rank=rank, world_size=3)).draw(5)
        for rank in range(3)
    ]
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(part.target, whole.target[rank::3])
        np.testing.assert_array_equal(part.target_weights, whole.target_weights[rank::3])
    # A set of little weight still has a sequence; a small set is used whole and keeps its weight.
    little = sampler(corpus, mix(corpus, "alpha=999+beta=1"), batch=30).draw(0)
    assert little.target_weights is not None
    np.testing.assert_allclose(little.target_weights, [0.999 / 24] * 24 + [0.001])


@pytest.mark.parametrize("mixer", ["dga-paced", "importance", "dga-distributions"])
def test_a_run_is_steered_by_and_measured_on_the_mix(
    corpus: Corpus, config: TrainConfig, tmp_path: Path, mixer: str
) -> None:
    config = replace(config, steps=12, eval_every=6, k=3)
    changes = {"update_every": None} if mixer == "importance" else {}
    train(corpus, replace(config, target=MIX, mixer=mixer, **changes), tmp_path / "mix", quiet=True)
    natural = replace(config, target=None, mixer="natural", update_every=None)
    train(corpus, natural, tmp_path / "natural", quiet=True)
    for record in records(tmp_path / "mix", "eval"):
        for losses in (record["target_loss"], record["target_train_loss"]):
            assert list(losses) == [MIX, "alpha", "beta"]
            assert losses[MIX] == pytest.approx(0.75 * losses["alpha"] + 0.25 * losses["beta"])
    weights = records(tmp_path / "mix", "mixture")[-1]["weights"]
    assert weights[1] > weights[2] > weights[0], "alpha is text like domain 1, beta like domain 2"
    # A run that no target steers has a row beside it.
    rows = {row.mixer: row for row in make_rows(read_runs(tmp_path))}
    assert {row.target for row in rows.values()} == {MIX}
    last = records(tmp_path / "natural", "eval")[-1]["target_loss"]
    mean = 0.75 * last["alpha"] + 0.25 * last["beta"]
    assert rows["natural"].final.mean == pytest.approx(mean)
