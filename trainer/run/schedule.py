"""Learning rate and optimizer: linear warm-up, cosine decay, AdamW with decay on matrices only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineSchedule:
    """Learning rate as a function of the step alone, so a resumed run needs no state for it."""

    peak: float
    """Learning rate after warm-up."""
    warmup_steps: int
    """Steps over which the rate rises linearly to the peak."""
    num_steps: int
    """Steps of the whole run; the cosine ends there."""
    final_share: float = 0.1
    """Learning rate at the end, as a share of the peak."""

    def at(self, step: int) -> float:
        """Learning rate of the step with index `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.peak * (self.final_share + (1 - self.final_share) * cosine)


def make_optimizer(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101), betas (0.9, 0.95), weight decay on matrices and not on norms' gains."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One fused kernel for all tensors. On the CPU the plain loop is as fast at these sizes.
    fused = any(parameter.is_cuda for parameter in parameters)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
