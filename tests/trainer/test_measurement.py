"""What is measured beside domains: histograms, all domains as a target, losses of the training batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Corpus, Mixture, TargetSet, open_corpus
from tests.corpora import position_of, write_corpus
from trainer.alignment.alignment import AlignmentSampler, Probe
from trainer.alignment.difference import DEFAULT_EPSILON, DifferenceEstimator
from trainer.alignment.exact import ExactEstimator
from trainer.alignment.measurement import (
    DistributionSampler,
    TowardAllSampler,
    make_estimator,
    make_probe,
    make_sampler,
)
from trainer.mixers import importance_mixture
from trainer.model import TokenLoss
from trainer.run.config import TrainConfig
from trainer.run.distributed import Ranks
from trainer.run.domain_losses import DomainLosses
from trainer.run.resolve import resolve, steering_config
from trainer.steering_config import SteeringConfig

CPU = torch.device("cpu")


def sampler(corpus: Corpus, *, k: int = 12, ranks: Ranks | None = None) -> AlignmentSampler:
    return AlignmentSampler(
        corpus=corpus,
        view=corpus.domains(k=k),
        target=corpus.target("alpha"),
        seed=3,
        sequences_per_domain=4,
        target_batch=8,
        ranks=ranks or Ranks(),
    )


def test_a_measurement_may_look_at_how_samples_begin(corpus: Corpus) -> None:
    whole, part = sampler(corpus), replace(sampler(corpus), measured_tokens=10)
    all_of_it, beginning = whole.draw(6), part.draw(6)
    np.testing.assert_array_equal(beginning.tokens, all_of_it.tokens[..., :10])
    np.testing.assert_array_equal(beginning.target, all_of_it.target[:, :10])
    np.testing.assert_array_equal(beginning.positions, all_of_it.positions)
    basis = basis_of(corpus)
    of_basis = DistributionSampler(inner=part, basis=basis).draw(6)
    assert of_basis.tokens.shape == (3, 32, 10)
    assert part.draw_target(6).tokens.shape == (0, 4, 10)


def test_beginnings_that_cost_the_same_are_as_telling_as_whole_samples(
    corpus: Corpus, trained_loss: TokenLoss
) -> None:
    """Domains that a model has learned differ from their first tokens on."""
    config = SteeringConfig(
        num_steps=10, batch_size=8, target="alpha", sequences_per_domain=8, measured_tokens=8
    )
    loss, ranks = trained_loss, Ranks()
    short = make_probe(config, corpus, loss, ranks=ranks)
    assert short.batch_size == 8 * corpus.tokens_per_sample // 8
    few = make_probe(replace(config, target_batch=20), corpus, loss, ranks=ranks)
    assert few.batch_size == 20, "a target gradient of 20 samples would be filled up with padding"
    drawn = make_sampler(
        config, corpus, corpus.domains(k=3), corpus.target("alpha"), ranks=ranks
    ).draw(4)
    whole = replace(sampler(corpus, k=3), sequences_per_domain=8).draw(4)
    scores = make_estimator(config, corpus, loss, ranks=ranks).scores(drawn).values
    of_whole = ExactEstimator(probe=replace(short, batch_size=8)).scores(whole).values
    assert np.corrcoef(scores, of_whole)[0, 1] > 0.95
    assert scores.argmax() == of_whole.argmax() == 1, "the target is text like domain 1"


def test_the_step_goes_by_the_weights_that_are_trained(
    corpus: Corpus, trained_loss: TokenLoss
) -> None:
    config = SteeringConfig(num_steps=10, batch_size=8, target="alpha")
    frozen = next(trained_loss.parameters())
    frozen.requires_grad_(False)
    frozen.data = frozen.data.to(torch.bfloat16)
    estimator = make_estimator(config, corpus, trained_loss, ranks=Ranks())
    assert isinstance(estimator, DifferenceEstimator)
    assert estimator.epsilon == DEFAULT_EPSILON[torch.float32]


def basis_of(corpus: Corpus) -> np.ndarray:
    view = corpus.domains(k=12)
    mixtures = [
        importance_mixture(view, corpus.target("alpha")),
        importance_mixture(view, corpus.target("beta")),
        Mixture.natural(view),
    ]
    return np.stack([mixture.probabilities for mixture in mixtures])


def test_samples_of_a_histogram_come_in_its_proportions(numbered_corpus: Corpus) -> None:
    view = numbered_corpus.domains(k=numbered_corpus.num_leaves)
    one = np.zeros(view.k)
    one[5] = 1
    basis = np.stack(
        [Mixture.natural(view).probabilities, Mixture.uniform(view).probabilities, one]
    )
    nothing = numbered_corpus.read(np.arange(3))
    target = TargetSet(
        name="any", train=nothing, train_documents=3, test=nothing, leaf_histogram=one
    )
    inner = AlignmentSampler(corpus=numbered_corpus, view=view, target=target, seed=3)
    drawn = DistributionSampler(inner=inner, basis=basis, sequences=50).draw(5)
    assert drawn.k == 3
    assert drawn.tokens.shape == (3, 50, numbered_corpus.tokens_per_sample)
    for histogram, tokens in zip(basis, drawn.tokens, strict=True):
        domains = view.domains_at(position_of(tokens))
        counts = np.bincount(domains, minlength=view.k)
        # One point in each of 50 equal parts: at most one more or less at either end of a domain's range.
        assert (np.abs(counts - 50 * histogram) <= 2).all()
        assert (counts[histogram == 0] == 0).all()
    np.testing.assert_array_equal(drawn.target, inner.draw(5).target)


def test_ranks_share_the_histograms(corpus: Corpus) -> None:
    alone = DistributionSampler(inner=sampler(corpus), basis=basis_of(corpus)).draw(7)
    for rank in range(2):
        inner = sampler(corpus, ranks=Ranks(rank=rank, world_size=2))
        part = DistributionSampler(inner=inner, basis=basis_of(corpus)).draw(7)
        np.testing.assert_array_equal(part.domains, np.arange(3)[rank::2])
        np.testing.assert_array_equal(part.tokens, alone.tokens[rank::2])


def test_a_rank_without_rows_takes_part_in_the_measurement(
    corpus: Corpus, trained_loss: TokenLoss
) -> None:
    last = sampler(corpus, k=1, ranks=Ranks(rank=1, world_size=2))
    basis = np.ones((1, 1))
    probe = Probe(loss=trained_loss, batch_size=16, pad_id=corpus.pad_id, device=CPU)
    for drawn in (
        last.draw(3),
        DistributionSampler(inner=last, basis=basis).draw(3),
        TowardAllSampler(inner=last).draw(3),
    ):
        assert drawn.domains.shape == (0,)
        assert drawn.tokens.shape[0] == 0
        assert drawn.tokens.shape[2] == corpus.tokens_per_sample
        assert drawn.target.shape[1] == corpus.tokens_per_sample
        for estimator in (
            ExactEstimator(probe=probe),
            DifferenceEstimator(probe=probe, epsilon=1e-4),
        ):
            np.testing.assert_array_equal(estimator.scores(drawn).values, [0.0])


def test_the_targets_own_histogram_has_the_best_score(
    corpus: Corpus, trained_loss: TokenLoss
) -> None:
    probe = Probe(loss=trained_loss, batch_size=16, pad_id=corpus.pad_id, device=CPU)
    samples = DistributionSampler(inner=sampler(corpus), basis=basis_of(corpus)).draw(1)
    scores = ExactEstimator(probe=probe).scores(samples).values
    assert scores.shape == (3,)
    assert scores[0] == scores.max() > scores[1]


def test_towards_all_scores_sum_to_the_norm_of_the_mean_gradient(
    corpus: Corpus, trained_loss: TokenLoss
) -> None:
    # W_i = <∇L_i, mean_j ∇L_j>, so the mean of W is the squared norm of the mean gradient.
    probe = Probe(
        loss=trained_loss, batch_size=16, pad_id=corpus.pad_id, device=CPU, normalization="raw"
    )
    measured = ExactEstimator(probe=probe).scores(TowardAllSampler(inner=sampler(corpus)).draw(1))
    assert measured.values.mean() == pytest.approx(measured.target_gradient_norm**2, rel=1e-4)
    few = TowardAllSampler(inner=replace(sampler(corpus), domains_per_draw=5))
    measured = ExactEstimator(probe=probe).scores(few.draw(1))
    of_five = measured.values.sum() / 5
    assert of_five == pytest.approx(measured.target_gradient_norm**2, rel=1e-4)


def test_losses_by_domain_are_unbiased_whatever_was_drawn() -> None:
    truth, probabilities = np.array([1.0, 4.0, 2.0]), np.array([0.1, 0.6, 0.3])
    domains = np.random.default_rng(0).choice(3, size=(400, 50), p=probabilities)
    tally = DomainLosses(3, ranks=Ranks())
    for batch in domains:
        tally.add(torch.from_numpy(truth[batch]), batch, probabilities)
    np.testing.assert_allclose(tally.read(), truth, rtol=0.05)
    with pytest.raises(ValueError, match="has seen none since its last update"):
        tally.read()


def test_losses_by_domain_by_hand_and_over_a_stop() -> None:
    probabilities = np.array([0.5, 0.25, 0.25, 0.0])
    tally, restored = (DomainLosses(4, ranks=Ranks()) for _ in range(2))
    tally.add(torch.tensor([1.0, 3.0]), np.array([0, 1]), probabilities)
    restored.load_state_dict(tally.state_dict())
    restored.add(torch.tensor([2.0, 9.0]), np.array([0, 3]), probabilities)
    # Four samples: (1 + 2) / 0.5 and 3 / 0.25 by four; domain 3 was not drawn from and counts nothing.
    np.testing.assert_allclose(restored.read(), [1.5, 3.0, 0.0, 0.0])


def test_the_first_256_tokens_unless_told_otherwise(corpus: Corpus, tmp_path: Path) -> None:
    text = np.full((3, 300), 5, np.uint16)
    long = open_corpus(
        write_corpus(
            tmp_path / "long",
            [4, 4],
            levels=(1, 2),
            tokens_per_sample=300,
            targets={"alpha": (text, text, np.full(2, 0.5))},
        )
    )
    for given, recorded, length in [(None, 256, 256), (0, 0, 300), (64, 64, 64), (300, 300, 300)]:
        config = TrainConfig(mixer="dga", target="alpha", measured_tokens=given)
        resolved = resolve(config, long, CPU)
        assert resolved.measured_tokens == recorded
        for steering in (
            steering_config(resolved),
            SteeringConfig(
                num_steps=9, batch_size=8, target="alpha", mixer="dga", measured_tokens=given
            ),
        ):
            view, target = long.domains(k=2), long.target("alpha")
            drawn = make_sampler(steering, long, view, target, ranks=Ranks()).draw(1)
            assert drawn.tokens.shape == (2, 4, length)
            assert drawn.target.shape == (3, length)
    shorter = resolve(TrainConfig(mixer="dga", target="alpha"), corpus, CPU)
    assert shorter.measured_tokens is None, "samples of 32 tokens are looked at whole"
    assert resolve(TrainConfig(mixer="natural"), long, CPU).measured_tokens is None
