"""What the trainer's tests share: the tiny corpus opened, a tiny model that has learned a little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Corpus, open_corpus
from trainer.model import GPT, PRESETS, GPTConfig, TokenLoss
from trainer.run.batches import to_device
from trainer.run.config import TrainConfig
from trainer.run.schedule import make_optimizer

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models of this size only lose by sharing the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus)


def tiny_gpt(vocab_size: int, context_length: int) -> GPTConfig:
    """35,000 parameters, a twenty-fifth of the smallest preset."""
    return GPTConfig(
        vocab_size=vocab_size, context_length=context_length, width=32, layers=2, heads=2
    )


@pytest.fixture(scope="module")
def tiny_preset() -> Iterator[None]:
    """Runs of this process that ask for `1m` train a tiny GPT; what they show holds for any model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "1m", tiny_gpt)
        yield


@pytest.fixture
def trained_loss(corpus: Corpus) -> TokenLoss:
    """The loss of a tiny GPT after 20 steps on natural proportions, in float32."""
    torch.manual_seed(0)
    shape = tiny_gpt(corpus.vocab_size, corpus.tokens_per_sample)
    loss = TokenLoss(GPT(shape), pad_id=corpus.pad_id, compute_dtype=torch.float32)
    optimizer = make_optimizer(loss, learning_rate=3e-3, weight_decay=0.1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        batch = corpus.read(rng.integers(0, corpus.num_samples, 16))
        loss(to_device(batch, CPU)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """A run of 24 steps with three mixer updates that records and saves often."""
    return TrainConfig(
        target="alpha",
        mixer="dga",
        k=6,
        preset="1m",
        steps=24,
        batch_size=8,
        update_every=6,
        log_every=5,
        eval_every=10,
        eval_sequences=8,
        checkpoint_every=7,
        target_batch=16,
        sequences_per_domain=2,
        device="cpu",
    )
