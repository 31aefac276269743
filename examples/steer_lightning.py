"""Lightning on a stream that a mixer steers towards a target.

    python examples/steer_lightning.py CORPUS --target recipes --out steered
    python examples/steer_lightning.py CORPUS --target recipes --out steered --resume steered/step=50.ckpt

The loader and the module are those of lightning_module.py; only the steering is new.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_module import NextToken, Steps, token_tensor
from torch.utils.data import DataLoader

from pipeline import open_corpus
from trainer import Steering, SteeringConfig, TokenLoss
from trainer.callbacks_lightning import SteeringCallback

BATCH_SIZE = 8


def main(arguments: Sequence[str] | None = None) -> tuple[lightning.Trainer, Steering]:
    """Train; returns the Trainer and what steered it."""
    options = parse_options(arguments)
    lightning.seed_everything(0, verbose=False)
    corpus = open_corpus(options.corpus)
    module = NextToken(corpus.vocab_size, corpus.pad_id)
    steering = Steering(
        corpus,
        SteeringConfig(
            num_steps=options.steps,
            batch_size=BATCH_SIZE,
            target=options.target,
            mixer=options.mixer,
        ),
        TokenLoss(module.model, pad_id=corpus.pad_id, compute_dtype=torch.float32),
    )
    loader = DataLoader(steering.stream, batch_size=None, collate_fn=token_tensor)
    checkpoints = ModelCheckpoint(
        options.out, "{step}", every_n_train_steps=options.save_every, save_top_k=-1
    )
    trainer = lightning.Trainer(
        max_steps=options.steps,
        callbacks=[SteeringCallback(steering), checkpoints],
        default_root_dir=options.out,
        logger=False,
        enable_model_summary=False,
    )
    batches = Steps(loader, steering.stream, options.steps)
    trainer.fit(module, batches, ckpt_path=options.resume)
    return trainer, steering


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--target", required=True, help="a target set of the corpus")
    parser.add_argument("--mixer", default="dga-paced", help="as `braidstream train --help` lists")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
