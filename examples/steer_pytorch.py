"""A plain PyTorch loop that a mixer steers towards a target: nine lines more than without.

    python examples/steer_pytorch.py CORPUS --target recipes --steps 300 --checkpoint steered.pt

The added lines are marked. Stop the run whenever you like and start it again: it goes on from its
checkpoint with exactly the next sample and the weights that the mixer had.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline import Mixture, open_corpus
from trainer import GPT, GPTConfig, Steering, SteeringConfig, TokenLoss

BATCH_SIZE, SAVE_EVERY = 16, 50


def main(arguments: Sequence[str] | None = None) -> Mixture:
    """Train; returns the last mixture."""
    options = parse_options(arguments)
    torch.manual_seed(0)
    corpus = open_corpus(options.corpus)
    shape = GPTConfig(
        vocab_size=corpus.vocab_size,
        context_length=corpus.tokens_per_sample,
        width=64,
        layers=2,
        heads=2,
    )
    sample_losses = TokenLoss(GPT(shape), pad_id=corpus.pad_id, compute_dtype=torch.float32)
    optimizer = torch.optim.AdamW(sample_losses.parameters(), lr=3e-3)
    config = SteeringConfig(  # added
        num_steps=options.steps,  # added
        batch_size=BATCH_SIZE,  # added
        target=options.target,  # added
        mixer=options.mixer,  # added
    )  # added
    steering = Steering(corpus, config, sample_losses)  # added
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint)
        sample_losses.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        steering.load_state_dict(saved["steering"])

    while steering.stream.step < options.steps:
        batch = next(steering.stream)
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        losses = sample_losses(tokens)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        steering.observe(losses, batch.domains)  # added, for mixers that learn from losses
        steering.after_step(batch.step + 1)  # added
        if (batch.step + 1) % SAVE_EVERY == 0 or batch.step + 1 == options.steps:
            state = {
                "model": sample_losses.state_dict(),
                "optimizer": optimizer.state_dict(),
                "steering": steering.state_dict(),
            }
            partial = options.checkpoint.with_suffix(".new")
            torch.save(state, partial)
            partial.replace(options.checkpoint)  # a whole one, always
            print(f"step {batch.step + 1}: loss {losses.mean().item():.3f}", describe(steering))
    return steering.stream.mixture


def describe(steering: Steering) -> str:
    """The three domains that are drawn most."""
    shares = steering.stream.mixture.probabilities
    best = np.argsort(-shares)[:3]
    return ", ".join(f"domain {domain}: {shares[domain]:.0%}" for domain in best)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--target", required=True, help="a target set of the corpus")
    parser.add_argument("--mixer", default="dga-paced", help="as `braidstream train --help` lists")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--checkpoint", type=Path, default=Path("steered.pt"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
