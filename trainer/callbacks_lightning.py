"""Steering in Lightning.

    steering = Steering(corpus, SteeringConfig(...), TokenLoss(module.model, ...))
    Trainer(callbacks=[SteeringCallback(steering)]).fit(module, loader over steering.stream)

With gradient accumulation a batch of the stream is one micro-batch: `SteeringConfig.num_steps` is then
max_steps · accumulate_grad_batches. On several devices Steering is told its `ranks`
(docs/integrations/lightning.md).
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from trainer.run.distributed import Ranks
from trainer.steering import (
    Steering,
    check_callback_can_steer,
    check_callback_ranks,
    warn_of_callback_steps,
    warn_of_callback_stream,
)


class SteeringCallback(Callback):
    """Renews the mixture between steps; Lightning keeps its state, the stream's included, in checkpoints.

    For modules with one optimizer. Raises ValueError for a mixer that learns from losses.
    """

    def __init__(self, steering: Steering) -> None:
        check_callback_can_steer(steering)
        self.steering = steering

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise ValueError where Steering was made before this process knew its rank."""
        shares = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        ranks = Ranks(rank=shares["rank"], world_size=shares["num_replicas"])
        check_callback_ranks(self.steering, ranks)
        warn_of_callback_steps(self.steering, trainer.max_steps * trainer.accumulate_grad_batches)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where a checkpoint was not saved between two steps; make up for an update it has not seen.

        A callback for checkpoints that stands before this one saves before the update of its step.
        """
        batches = trainer.global_step * trainer.accumulate_grad_batches
        warn_of_callback_stream(self.steering, batches)
        self.steering.after_step(batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Measure when it is due; the next batch is drawn from what came of it."""
        self.steering.after_step(trainer.global_step * trainer.accumulate_grad_batches)

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps in the checkpoint."""
        return self.steering.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint left mixer and stream."""
        self.steering.load_state_dict(state_dict)
