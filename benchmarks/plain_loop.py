"""A training loop as nanoGPT has it: one array of tokens, random crops, nothing else in the way.

What it shares with ours is the model. It reads no corpus, knows no domains, saves and evaluates nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from trainer.model import GPT


class NextToken(nn.Module):
    """The model with its loss, so that both are compiled together."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, following: Tensor) -> Tensor:
        """Mean cross-entropy of `following` (n, length)."""
        logits = self.model(tokens)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), following.view(-1))


class PlainLoop:
    """Trains on random crops of the tokens in `path`, raw uint16."""

    def __init__(self, path: Path, model: GPT, *, batch_size: int, device: torch.device) -> None:
        self.data = np.memmap(path, dtype=np.uint16, mode="r")
        self.length, self.batch_size, self.device = model.config.context_length, batch_size, device
        self.on_gpu = device.type == "cuda"
        self.loss: nn.Module = NextToken(model.to(device))
        if self.on_gpu:
            self.loss = torch.compile(self.loss)  # type: ignore[assignment]
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.1},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=6e-4,
            betas=(0.9, 0.95),
            fused=self.on_gpu,
        )
        self.parameters = [*model.parameters()]
        self.batch = self._draw()

    def windows(self, steps: int, window: int) -> Iterator[float]:
        """Train `steps` steps; seconds of every `window` of them, each ended by reading the loss."""
        started = time.perf_counter()
        for step in range(1, steps + 1):
            for group in self.optimizer.param_groups:
                group["lr"] = 6e-4
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.on_gpu):
                loss = self.loss(*self.batch)
            self.batch = self._draw()  # while the GPU is busy with the forward pass
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if step % window == 0:
                loss.item()
                now = time.perf_counter()
                yield now - started
                started = now

    def _draw(self) -> tuple[Tensor, Tensor]:
        starts = np.random.randint(len(self.data) - self.length, size=self.batch_size)  # noqa: NPY002
        crops = np.stack([self.data[s : s + self.length + 1].astype(np.int64) for s in starts])
        x, y = torch.from_numpy(crops[:, :-1].copy()), torch.from_numpy(crops[:, 1:].copy())
        if not self.on_gpu:
            return x, y
        return (
            x.pin_memory().to(self.device, non_blocking=True),
            y.pin_memory().to(self.device, non_blocking=True),
        )
