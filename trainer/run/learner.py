"""The model and how it learns: one training step, on one device or many."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline import Batch, Corpus
from trainer.model import GPT, PRESETS, TokenLoss, compile_parts
from trainer.run.batches import to_device
from trainer.run.config import ConfigError, TrainConfig
from trainer.run.distributed import Ranks
from trainer.run.resolve import PRECISIONS
from trainer.run.schedule import CosineSchedule, make_optimizer, set_learning_rate
from trainer.run.sharding import cut_like, shard_layers, whole
from trainer.steering import Steering

SCORED_PARTS = 4
"""Parts of a batch that is scored, where training is compiled. A scored pass is not, and would keep about
twice as much."""


class Learner:
    """A GPT, its optimizer and its schedule; `config` is resolved."""

    def __init__(
        self, config: TrainConfig, corpus: Corpus, *, ranks: Ranks, device: torch.device
    ) -> None:
        if config.batch_size % ranks.world_size:
            raise ConfigError(
                f"batch_size={config.batch_size} is shared by {ranks.world_size} processes; it must be "
                "a multiple of their number."
            )
        assert config.warmup_steps is not None
        self.device = device
        self.local_batch_size = config.batch_size // ranks.world_size
        torch.manual_seed(config.seed)
        shape = PRESETS[config.preset](corpus.vocab_size, corpus.tokens_per_sample)
        self.model = GPT(shape).to(device)
        self.loss = TokenLoss(
            self.model, pad_id=corpus.pad_id, compute_dtype=PRECISIONS[config.precision]
        )
        """Loss per sample: what estimators and evaluation call, and no gradient is shared from."""
        compiles = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
        self._scored_parts = SCORED_PARTS if compiles else 1
        self._shared_loss: nn.Module = self.loss
        if config.data_parallel == "shard" and ranks.world_size > 1:
            if compiles:
                compile_parts(self.loss, self.model)
            shard_layers(self.loss, self.model.blocks)
        else:
            if compiles:
                self.loss.compile(dynamic=False)
            if ranks.world_size > 1:
                self._shared_loss = DistributedDataParallel(self.loss)
                if compiles:
                    self._compile_in_buckets(corpus.tokens_per_sample)
                if device.type == "cpu":
                    self._settle_buckets(corpus.tokens_per_sample)
        self.optimizer = make_optimizer(
            self.model, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = CosineSchedule(
            peak=config.learning_rate,
            warmup_steps=config.warmup_steps,
            num_steps=config.steps,
        )
        self._clip_norm = config.clip_norm
        self.sample_losses = torch.zeros(0, device=device)
        """Loss of each of this rank's samples in the last step: float32 (n,) on the device."""

    def _compile_in_buckets(self, tokens_per_sample: int) -> None:
        """Compile what a step takes, before a measurement of samples as long can.

        What is compiled inside DDP's forward pass is cut where its buckets end, so that one is exchanged
        while the backward pass goes on to the next. A graph that was compiled outside is whole, serves a step
        as well, and has no gradient before its end.
        """
        self._shared_loss(self._padding(tokens_per_sample))

    def _settle_buckets(self, tokens_per_sample: int) -> None:
        """Take the backward pass after which DDP chooses its buckets anew, before the first step.

        Where a bucket ends decides in which order more than two ranks are added up. A run that goes on would
        learn from its first batch with other buckets than one that was never stopped, and end with other
        bits; they are promised on a CPU only.
        """
        self._shared_loss(self._padding(tokens_per_sample)).sum().backward()
        self.model.zero_grad()

    def _padding(self, tokens_per_sample: int) -> Tensor:
        """Samples without a token, as many as this rank has in a batch."""
        shape = self.local_batch_size, tokens_per_sample
        return torch.full(shape, self.loss.pad_id, device=self.device)

    def step(
        self, step: int, batch: Batch, steering: Steering | None = None
    ) -> tuple[Tensor, Tensor]:
        """Learn from this rank's part of a batch; its mean loss and the gradient's norm.

        Both are scalars on the device that nothing has waited for: a GPU still computes them while
        the next batch is drawn, so reading them every step would cost speed. `steering` watches the pass,
        and may score the samples in it.
        """
        set_learning_rate(self.optimizer, self.schedule.at(step))
        n = len(batch.positions)
        scored = steering is not None and steering.scores_batch(batch.step)
        count = min(n, self._scored_parts) if scored else 1
        parts = zip(
            np.array_split(batch.tokens, count),
            np.array_split(batch.positions, count),
            strict=True,
        )
        losses = []
        for number, (tokens, positions) in enumerate(parts, start=1):
            with ExitStack() as around:
                if steering is not None:
                    around.enter_context(steering.watching(batch.step, positions, loss_scale=1 / n))
                if number < count and isinstance(self._shared_loss, DistributedDataParallel):
                    around.enter_context(self._shared_loss.no_sync())
                of_part = self._shared_loss(to_device(tokens, self.device))
                (of_part.sum() / n).backward()
            losses.append(of_part.detach())
        self.sample_losses = torch.cat(losses)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.sample_losses.mean(), whole(norm.detach())

    def state_dict(self) -> dict[str, Any]:
        """Weights and moments, whole on every rank however they are spread; every rank must call this."""
        moments = self.optimizer.state_dict()
        return {
            "model": {name: whole(weight) for name, weight in self.model.state_dict().items()},
            "optimizer": {
                **moments,
                "state": {
                    number: {name: whole(moment) for name, moment in of_one.items()}
                    for number, of_one in moments["state"].items()
                },
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state, whatever number of ranks it was saved by."""
        weights = self.model.state_dict()
        self.model.load_state_dict(
            {name: cut_like(weights[name], saved) for name, saved in state["model"].items()}
        )
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        moments = {
            number: {
                name: cut_like(parameters[number], saved) if saved.ndim else saved
                for name, saved in of_one.items()
            }
            for number, of_one in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": moments})
