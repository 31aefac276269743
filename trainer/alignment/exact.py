"""The reference estimator: one backward pass per domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from trainer.alignment.alignment import AlignmentSamples, Probe, Scores, inner_product, total_norm
from trainer.run.sharding import is_sharded, return_to_shards


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactEstimator:
    """a_i = <∇L_i, g> as it is written. Costs a forward and a backward pass per domain."""

    probe: Probe

    def __post_init__(self) -> None:
        return_to_shards(self.probe.loss)
        if is_sharded(self.probe.loss):
            raise ValueError(
                "the exact estimator takes a backward pass per domain on one rank, and FSDP's ranks take "
                "theirs together. Take DifferenceEstimator for a sharded model."
            )

    def scores(self, samples: AlignmentSamples) -> Scores:
        """Scores of all domains; see `trainer.alignment.alignment.Estimator`."""
        with self.probe.evaluating():
            return self._scores(samples)

    def _scores(self, samples: AlignmentSamples) -> Scores:
        target, record = self.probe.target_gradient(samples)
        sequences = samples.tokens.shape[1]
        size = min(sequences, self.probe.batch_size)
        products = []
        for tokens in samples.tokens:
            gradient, _ = self.probe.gradient(tokens, total=sequences, size=size)
            product = inner_product(gradient, target)
            if self.probe.normalization == "cosine":
                norm = total_norm(gradient)
                product = torch.where(norm > 0, product / norm, torch.zeros_like(norm))
            products.append(product)
        values = record.values.copy()
        if products:
            values[samples.domains] = torch.stack(products).double().cpu().numpy()
        return replace(record, values=self.probe.ranks.sum_array(values))
