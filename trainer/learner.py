"""The model and how it learns: one training step, on one device or many."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline import Corpus
from trainer.batches import to_device
from trainer.config import ConfigError, TrainConfig
from trainer.distributed import Ranks
from trainer.model import GPT, PRESETS, TokenLoss
from trainer.resolve import PRECISIONS
from trainer.schedule import CosineSchedule, make_optimizer, set_learning_rate


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
        if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
            self.loss.compile(dynamic=False)
        self._shared_loss: nn.Module = self.loss
        if ranks.world_size > 1:
            self._shared_loss = DistributedDataParallel(self.loss)
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

    def step(self, step: int, tokens: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Learn from this rank's part of a batch; its mean loss and the gradient's norm.

        Both are scalars on the device that nothing has waited for: a GPU still computes them while
        the next batch is drawn, so reading them every step would cost speed.
        """
        set_learning_rate(self.optimizer, self.schedule.at(step))
        losses = self._shared_loss(to_device(tokens, self.device))
        self.sample_losses = losses.detach()
        loss = losses.mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), norm.detach()
