"""A LightningDataModule around a stream: its state is part of every checkpoint.

    python examples/lightning_module.py CORPUS --out lightning-run
    python examples/lightning_module.py CORPUS --out lightning-run --resume lightning-run/step=50.ckpt

docs/integrations/lightning.md explains each part.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from pipeline import Batch, Mixture, MixtureStream, open_corpus


class StreamDataModule(lightning.LightningDataModule):
    """A corpus as training data. `self.stream` is there from `setup` on; steer it with `set_mixture`."""

    def __init__(
        self,
        corpus: str,
        *,
        num_steps: int,
        batch_size: int,
        k: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.corpus = open_corpus(corpus)
        self.view = self.corpus.domains(k=k or self.corpus.num_leaves)
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.workers = workers

    def setup(self, stage: str) -> None:
        """Make this rank's stream; Lightning restores its state after this."""
        self.stream = MixtureStream(
            self.corpus,
            Mixture.natural(self.view),
            batch_size=self.batch_size * self.trainer.world_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def train_dataloader(self) -> Steps:
        """All batches of the run, as one epoch."""
        loader = DataLoader(
            self.stream,
            batch_size=None,  # the stream makes batches itself
            collate_fn=token_tensor,
            num_workers=self.workers,
            multiprocessing_context="forkserver" if self.workers else None,
        )
        return Steps(loader, self.stream, self.num_steps)


class Steps:
    """The stream's loader, with the length and the state that Lightning asks of one.

    Of a loader without a length, Lightning fetches a batch ahead, to know the last in time. The state in a
    checkpoint would then be one batch further than the training.
    """

    def __init__(self, loader: DataLoader, stream: MixtureStream, num_steps: int) -> None:
        self.loader = loader
        self.stream = stream
        self.num_steps = num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        return islice(self.loader, self.num_steps)

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return self.stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with exactly the next sample."""
        self.stream.load_state_dict(state_dict)


def token_tensor(batch: Batch) -> torch.Tensor:
    """The tokens as int64 (n, tokens_per_sample)."""
    return torch.from_numpy(batch.tokens.astype(np.int64))


class NextToken(lightning.LightningModule):
    """Predicts the next token from the present one; your model takes its place."""

    def __init__(self, vocab_size: int, pad_id: int) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.model = nn.Sequential(
            nn.Embedding(vocab_size, 32), nn.Linear(32, 128), nn.GELU(), nn.Linear(128, vocab_size)
        )

    def training_step(self, tokens: torch.Tensor, batch_index: int) -> torch.Tensor:
        """Mean next-token loss; padding does not count."""
        logits = self.model(tokens[:, :-1]).transpose(1, 2)
        return functional.cross_entropy(logits, tokens[:, 1:], ignore_index=self.pad_id)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class NaturalToUniform(lightning.Callback):
    """Moves the mixture from the natural one to the uniform one over the run, every ten steps."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Put the next mixture in force."""
        if trainer.global_step % 10 == 0:
            stream = trainer.datamodule.stream
            start, end = Mixture.natural(stream.view), Mixture.uniform(stream.view)
            stream.set_mixture(start.blend(end, trainer.global_step / trainer.max_steps))


def main(arguments: Sequence[str] | None = None) -> lightning.Trainer:
    """Train; returns the Trainer."""
    options = parse_options(arguments)
    lightning.seed_everything(0, verbose=False)
    data = StreamDataModule(
        options.corpus,
        num_steps=options.steps,
        batch_size=8,
        k=options.k,
        workers=options.workers,
    )
    checkpoints = ModelCheckpoint(
        options.out, "{step}", every_n_train_steps=options.save_every, save_top_k=-1
    )
    trainer = lightning.Trainer(
        max_steps=options.steps,
        callbacks=[NaturalToUniform(), checkpoints],
        default_root_dir=options.out,
        logger=False,
        enable_model_summary=False,
    )
    model = NextToken(data.corpus.vocab_size, data.corpus.pad_id)
    trainer.fit(model, data, ckpt_path=options.resume)
    return trainer


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", help="a folder, or an address such as s3://bucket/prefix")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--k", type=int, help="number of domains; default: the leaves")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
