"""Three ways to one number: exact, difference and probe, for every build of model and every way to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from tests.trainer.tiny_models import MODELS, PAD, PlainLM, gpt, gpt2, learned_loss, some_tokens
from trainer.alignment.alignment import AlignmentSamples, Probe
from trainer.alignment.difference import (
    DEFAULT_EPSILON,
    DifferenceEstimator,
    default_epsilon,
)
from trainer.alignment.exact import ExactEstimator
from trainer.alignment.probe import BatchProbe
from trainer.model import TokenLoss
from trainer.run.batches import to_device

# Transformers, while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

CPU = torch.device("cpu")
DOMAINS, SEQUENCES = 8, 3

SAMPLES = AlignmentSamples(
    k=DOMAINS,
    domains=np.arange(DOMAINS),
    # Domains of ever rarer words: the target's are in all of them, and make up the first.
    tokens=np.stack([some_tokens(i, SEQUENCES, below=10 + 3 * i).numpy() for i in range(DOMAINS)]),
    positions=np.arange(DOMAINS * SEQUENCES).reshape(DOMAINS, SEQUENCES),
    target=some_tokens(50, 7, below=10).numpy(),
    target_total=7,
)


def learned(model: nn.Module, dtype: torch.dtype = torch.float32) -> TokenLoss:
    torch.manual_seed(3)
    return learned_loss(model, dtype=dtype)


def looking_through(loss: nn.Module, *, batch_size: int = 4) -> Probe:
    return Probe(loss=loss, batch_size=batch_size, pad_id=PAD, device=CPU)


def exact(loss: TokenLoss, *, batch_size: int = 4) -> NDArray[np.float64]:
    return ExactEstimator(probe=looking_through(loss, batch_size=batch_size)).scores(SAMPLES).values


def difference(loss: TokenLoss, *, batch_size: int = 4) -> NDArray[np.float64]:
    probe = looking_through(loss, batch_size=batch_size)
    epsilon = DEFAULT_EPSILON[loss.compute_dtype]
    return DifferenceEstimator(probe=probe, epsilon=epsilon).scores(SAMPLES).values


def probed(loss: TokenLoss, *, micro_batches: int = 1) -> NDArray[np.float64]:
    """The domains' samples as a training batch; the mean over the samples of each domain."""
    probe = looking_through(loss)
    with probe.evaluating():
        direction, _ = probe.target_gradient(SAMPLES)
    tokens = to_device(SAMPLES.tokens.reshape(DOMAINS * SEQUENCES, -1), CPU)
    batch_probe, found = BatchProbe(loss), []
    for part in tokens.chunk(micro_batches):
        with batch_probe.scoring(
            direction, samples=len(part), loss_scale=1 / len(tokens)
        ) as scored:
            (loss(part).sum() / len(tokens)).backward()
        found.append(scored.values)
    return torch.cat(found).double().numpy().reshape(DOMAINS, SEQUENCES).mean(axis=1)


def assert_agree(scores: NDArray[np.float64], reference: NDArray[np.float64], share: float) -> None:
    """Equal within a share of the largest score."""
    np.testing.assert_allclose(scores, reference, rtol=0, atol=share * np.abs(reference).max())


@contextmanager
def evaluating(loss: TokenLoss) -> Iterator[None]:
    loss.eval()
    yield
    loss.train()


@pytest.mark.parametrize("name", MODELS)
def test_the_three_agree_in_float32(name: str) -> None:
    loss = learned(MODELS[name]())
    with evaluating(loss):
        reference = exact(loss)
        assert_agree(probed(loss), reference, 1e-5)
        assert_agree(difference(loss), reference, 0.01)


@pytest.mark.parametrize("name", MODELS)
def test_the_three_agree_in_bfloat16_as_far_as_it_goes(name: str) -> None:
    loss = learned(MODELS[name]())
    with evaluating(loss):
        reference = exact(loss)
        loss.compute_dtype = torch.bfloat16
        assert_agree(exact(loss), reference, 0.02)
        assert_agree(probed(loss), reference, 0.02)
        # Losses of a model this small move least between the two steps: the hard case for rounding.
        assert_agree(difference(loss), reference, 0.2)


@pytest.mark.parametrize("name", ["gpt", "plain", "llama", "gpt2"])
def test_exact_and_difference_agree_where_weights_are_bfloat16_themselves(name: str) -> None:
    loss = learned(MODELS[name]())
    with evaluating(loss):
        reference = exact(loss)
        loss.to(torch.bfloat16)
        loss.compute_dtype = torch.bfloat16
        assert_agree(exact(loss), reference, 0.03)
        epsilon = default_epsilon(torch.bfloat16, torch.bfloat16)
        estimator = DifferenceEstimator(probe=looking_through(loss), epsilon=epsilon)
        found = estimator.scores(SAMPLES).values
        assert np.corrcoef(found, reference)[0, 1] > 0.97
        assert_agree(found, reference, 0.2)
        # With the step of float32 weights most of them would not move at all.
        short = DifferenceEstimator(probe=looking_through(loss), epsilon=5e-5)
        assert np.corrcoef(short.scores(SAMPLES).values, reference)[0, 1] < 0.9


TOLERANCE = {torch.float32: (1e-5, 0.01), torch.bfloat16: (0.02, 0.2)}
"""Of exact and probe, and of difference: shares of the largest score."""
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)


def assert_all_agree(
    loss: TokenLoss,
    reference: NDArray[np.float64],
    dtype: torch.dtype,
    *,
    batch_size: int = 4,
    micro_batches: int = 1,
) -> None:
    """All three within what `dtype` allows of `reference`, exact scores in float32."""
    loss.compute_dtype = dtype
    near, far = TOLERANCE[dtype]
    assert_agree(exact(loss, batch_size=batch_size), reference, near)
    assert_agree(probed(loss, micro_batches=micro_batches), reference, near)
    assert_agree(difference(loss, batch_size=batch_size), reference, far)


@DTYPES
@pytest.mark.parametrize("model", ["plain", "gpt2"])
def test_exact_and_difference_leave_dropout_out(model: str, dtype: torch.dtype) -> None:
    loss = learned(PlainLM(dropout=0.2) if model == "plain" else gpt2(dropout=0.2))
    near, far = TOLERANCE[dtype]
    with evaluating(loss):
        quiet = exact(loss)
    assert all(module.training for module in loss.modules())
    loss.compute_dtype = dtype
    assert_agree(exact(loss), quiet, near if dtype == torch.bfloat16 else 0)
    assert_agree(difference(loss), quiet, far)
    assert all(module.training for module in loss.modules()), "training goes on with dropout"
    # The probe scores the pass that is trained on, masks and all: right on average.
    mean = np.mean([probed(loss) for _ in range(40)], axis=0)
    assert np.corrcoef(mean, quiet)[0, 1] > 0.95


@DTYPES
@pytest.mark.parametrize("name", ["gpt", "plain", "llama"])
@pytest.mark.parametrize("micro_batches", [3, 4, 24])
def test_they_agree_when_gradients_are_accumulated(
    name: str, micro_batches: int, dtype: torch.dtype
) -> None:
    loss = learned(MODELS[name]())
    with evaluating(loss):
        reference = exact(loss)
        size = {3: 64, 4: 5, 24: 1}[micro_batches]
        assert_all_agree(loss, reference, dtype, batch_size=size, micro_batches=micro_batches)


@DTYPES
@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("name", ["plain", "untied", "gpt2", "llama"])
def test_they_agree_with_gradient_checkpointing(
    name: str, micro_batches: int, dtype: torch.dtype
) -> None:
    loss = learned(MODELS[name]())
    reference = exact(loss)
    if name in ("plain", "untied"):
        loss.model.checkpoints = "other"
    else:
        loss.model.model.gradient_checkpointing_enable({"use_reentrant": False})
        for module in loss.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    assert_all_agree(loss, reference, dtype, micro_batches=micro_batches)


@DTYPES
@pytest.mark.parametrize("name", ["gpt", "untied", "llama"])
def test_they_agree_when_the_model_is_compiled(name: str, dtype: torch.dtype) -> None:
    loss = learned(MODELS[name]())
    reference = exact(loss)
    # aot_eager traces forward and backward as inductor does, without its minutes of code generation.
    loss.compile(backend="aot_eager", dynamic=False)
    assert_all_agree(loss, reference, dtype)


def test_a_parameter_that_the_loss_does_not_reach_counts_for_nothing() -> None:
    model = gpt()
    loss = learned(model)
    reference = exact(loss)
    model.unused = nn.Linear(3, 3)
    assert_agree(exact(loss), reference, 1e-5)
    assert_agree(difference(loss), reference, 0.01)
    assert_agree(probed(loss), reference, 1e-5)


class CountsPadding(nn.Module):
    """A loss of somebody's own, to which padding is a token like others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model(tokens)[:, :-1]
        losses = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        return losses.mean(dim=1)


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_rows_that_fill_up_a_batch_count_for_nothing(batch_size: int) -> None:
    loss = CountsPadding(learned(gpt()).model)
    whole, filled = (
        ExactEstimator(probe=looking_through(loss, batch_size=size)).scores(SAMPLES)
        for size in (1, batch_size)
    )
    np.testing.assert_allclose(filled.values, whole.values, rtol=1e-4, atol=1e-6)
    assert filled.target_loss == pytest.approx(whole.target_loss, rel=1e-5)
