"""Counting up a run: losses between two records, time, speed, and the best evaluations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.run.distributed import Ranks
from trainer.run.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """The sums of the steps up to a record, on their way from the device."""

    step: int
    """Steps of the run that were done by then."""
    sums: Tensor
    """Loss and gradient norm, in main memory as soon as `arrived`."""
    arrived: torch.cuda.Event | None
    count: int
    """Steps that `sums` adds up."""
    timed_steps: int
    """Those of them that belong to this session, whose clock times them."""
    wait_seconds: float
    """What the stream had waited by then, in this session."""


class Tally:
    """What a run has to say about itself beside its weights.

    Losses are added up on the device. A record's are copied while the device is given its next step, and read
    after that: a GPU never runs out of work because somebody wants to know the loss. Time counts over all
    sessions of a run that was stopped and continued.
    """

    def __init__(self, *, tokens_per_step: int, device: torch.device) -> None:
        self.tokens_per_step = tokens_per_step
        """Tokens of a global batch."""
        self._sums = torch.zeros(2, device=device)
        self._count = 0
        self._best: dict[str, dict[str, Any]] = {}
        self._final: dict[str, Any] = {}
        self._seconds_before = self._wait_before = self._evaluating = 0.0
        self._started = self._window_started = time.perf_counter()
        self._window_steps = 0
        self._window_wait = 0.0

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Count one step: its mean loss on this rank and the gradient's norm, both left unread."""
        self._sums += torch.stack([loss, gradient_norm])
        self._count += 1
        self._window_steps += 1

    def close_window(self, step: int, wait_seconds: float) -> ClosedWindow:
        """Start to copy what was counted since the last record, for `read`; count anew.

        `wait_seconds` is the stream's: seconds spent waiting for data in this session.
        """
        on_gpu = self._sums.is_cuda
        sums = torch.empty(2, pin_memory=on_gpu).copy_(self._sums, non_blocking=on_gpu)
        arrived = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        if arrived is not None:
            arrived.record()
        self._sums.zero_()
        window = ClosedWindow(step, sums, arrived, self._count, self._window_steps, wait_seconds)
        self._count = self._window_steps = 0
        return window

    def read(self, window: ClosedWindow, ranks: Ranks) -> dict[str, Any]:
        """Means over a window as the fields of a "train" record; waits until the device has come so far."""
        if window.arrived is not None:
            window.arrived.synchronize()
        sums = ranks.sum_array(window.sums.double().numpy())
        loss, norm = sums / (window.count * ranks.world_size)
        now = time.perf_counter()
        elapsed = now - self._window_started
        record = {
            "train_loss": float(loss),
            "grad_norm": float(norm),
            "tokens_per_second": window.timed_steps * self.tokens_per_step / elapsed,
            "wait_seconds": self._wait_before + window.wait_seconds,
            "data_wait_share": (window.wait_seconds - self._window_wait) / elapsed,
        }
        self._window_started, self._window_wait = now, window.wait_seconds
        return record

    def add_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Keep the last evaluation and the best loss on every set; its time is no training time."""
        self._evaluating += evaluation.seconds
        self._window_started += evaluation.seconds
        self._final = {"target": evaluation.target_loss, "generic": evaluation.generic_loss}
        losses = {f"target {name}": loss for name, loss in evaluation.target_loss.items()}
        for name, loss in {**losses, "generic": evaluation.generic_loss}.items():
            if loss is None or not np.isfinite(loss):
                continue
            if name not in self._best or loss < self._best[name]["loss"]:
                self._best[name] = {"loss": loss, "step": step}

    def outcome(self, step: int, wait_seconds: float) -> dict[str, Any]:
        """What result.json says of the run that ends after `step` steps.

        "seconds" is all of its time, "tokens_per_second" leaves evaluation out.
        """
        seconds = self._seconds(time.perf_counter())
        tokens = step * self.tokens_per_step
        return {
            "steps": step,
            "tokens": tokens,
            "target_loss_final": self._final["target"],
            "target_loss_best": {
                name: self._best.get(f"target {name}") for name in self._final["target"]
            },
            "generic_loss_final": self._final["generic"],
            "generic_loss_best": self._best.get("generic"),
            "seconds": seconds,
            "tokens_per_second": tokens / (seconds - self._evaluating),
            "wait_seconds": self._wait_before + wait_seconds,
        }

    def state_dict(self, wait_seconds: float, ranks: Ranks) -> dict[str, Any]:
        """Everything but the open window's clock, as plain JSON types; every rank has to call it."""
        sums = ranks.sum_array(self._sums.double().cpu().numpy())
        return {
            "sums": (sums / ranks.world_size).tolist(),
            "count": self._count,
            "best": self._best,
            "final": self._final,
            "seconds": self._seconds(time.perf_counter()),
            "wait_seconds": self._wait_before + wait_seconds,
            "evaluating_seconds": self._evaluating,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state in a new session, whose clock starts now, on any number of ranks."""
        self._sums.copy_(torch.tensor(state["sums"]))
        self._count = int(state["count"])
        self._best, self._final = state["best"], state["final"]
        self._seconds_before = state["seconds"]
        self._wait_before = state["wait_seconds"]
        self._evaluating = state["evaluating_seconds"]
        self._started = self._window_started = time.perf_counter()

    def _seconds(self, now: float) -> float:
        return self._seconds_before + now - self._started
