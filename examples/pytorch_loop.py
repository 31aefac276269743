"""A plain PyTorch loop that steers its own mixture and resumes exactly.

    python examples/pytorch_loop.py CORPUS --steps 200 --checkpoint run.pt

Every 50 steps the domains with the higher loss get more weight. Stop the run whenever you like and start
it again: it goes on from its checkpoint with exactly the next sample. docs/integrations/pytorch.md
explains each part.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from pipeline import Mixture, MixtureStream, open_corpus

BATCH_SIZE, STEER_EVERY, STEERING_RATE = 16, 50, 1.0


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; returns the loss of the last batch."""
    options = parse_options(arguments)
    torch.manual_seed(0)
    corpus = open_corpus(options.corpus)
    view = corpus.domains(k=options.k or corpus.num_leaves)
    stream = MixtureStream(corpus, Mixture.natural(view), batch_size=BATCH_SIZE)
    model = next_token_model(corpus.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        stream.load_state_dict(saved["stream"])
        print(f"{options.checkpoint} has {stream.step:,} of {options.steps:,} steps")

    batches = DataLoader(
        stream,
        batch_size=None,  # the stream makes batches itself
        num_workers=options.workers,
        multiprocessing_context="forkserver" if options.workers else None,
    )
    loss_sum, count = np.zeros(view.k), np.zeros(view.k)
    loss = torch.tensor(float("nan"))
    for batch in batches:
        if batch.step >= options.steps:
            break
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        losses = sample_losses(model, tokens, ignored=corpus.pad_id)
        loss = losses.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        np.add.at(loss_sum, batch.domains, losses.detach().numpy())
        np.add.at(count, batch.domains, 1)
        if (batch.step + 1) % STEER_EVERY == 0:
            stream.set_mixture(towards_high_loss(stream.mixture, loss_sum, count))
            loss_sum[:], count[:] = 0, 0
            print(f"step {batch.step + 1}: loss {loss.item():.3f}, {stream.mixture}")
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "stream": stream.state_dict(),
            }
            save(state, options.checkpoint)
    return loss.item()


def next_token_model(vocab_size: int) -> nn.Module:
    """Logits of the next token from the present one; your model takes its place."""
    return nn.Sequential(
        nn.Embedding(vocab_size, 32), nn.Linear(32, 128), nn.GELU(), nn.Linear(128, vocab_size)
    )


def sample_losses(model: nn.Module, tokens: torch.Tensor, *, ignored: int) -> torch.Tensor:
    """Mean next-token loss of each sample: tokens (n, length) -> (n,). Padding does not count."""
    logits = model(tokens[:, :-1]).transpose(1, 2)
    targets = tokens[:, 1:]
    losses = functional.cross_entropy(logits, targets, ignore_index=ignored, reduction="none")
    return losses.sum(dim=1) / (targets != ignored).sum(dim=1).clamp(min=1)


def towards_high_loss(
    mixture: Mixture, loss_sum: NDArray[np.float64], count: NDArray[np.float64]
) -> Mixture:
    """Exponentiated gradient: a domain gains by how far its mean loss lies above the average."""
    average = loss_sum.sum() / count.sum()
    excess = np.where(count > 0, loss_sum / np.maximum(count, 1) - average, 0.0)
    weights = mixture.probabilities * np.exp(STEERING_RATE * excess)
    return Mixture.from_weights(mixture.view, weights)


def save(state: dict[str, Any], path: Path) -> None:
    """Replace the checkpoint in one move: whenever the run is killed, a whole one is there."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--k", type=int, help="number of domains; default: the leaves")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=Path("run.pt"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
