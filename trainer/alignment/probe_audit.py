"""What the probe's hooks saw, held against the gradient: nothing may take part in the loss unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline import BraidstreamError
from trainer.alignment.layer_rules import ScoredLayer

_TOLERANCE = 1e-2  # of ‖gradient‖·‖g‖; bfloat16 stays below a tenth of it


class HiddenUseError(BraidstreamError, RuntimeError):
    """Parameters take part in the loss where no hook on a layer sees it."""


class ProbeAudit:
    """Compares the shares of a parameter, over all samples, with <its gradient, g>.

    They differ when a parameter is used outside the layer that owns it, as in
    `F.linear(x, self.embedding.weight)`, or when a layer is no function of its one input.
    """

    def __init__(
        self, layers: Sequence[ScoredLayer], direction_of: Mapping[nn.Parameter, Tensor]
    ) -> None:
        self._key_of = {p: layer.key for layer in layers for p in layer.parameters.values()}
        for layer in layers:  # of a tied parameter's layers the last one's key serves all
            self._key_of[layer.key] = self._key_of[self._key_of[layer.key]]
        self._layers = layers
        self._expected: dict[nn.Parameter, Tensor] = {}
        self._handles = [
            # A hook on the parameter sees this process's gradient, before any average over ranks.
            parameter.register_hook(self._noting(self._key_of[parameter], direction))  # type: ignore[no-untyped-call]
            for parameter, direction in direction_of.items()
        ]

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()

    def settle(self, shares: Sequence[Tensor], names: Mapping[nn.Parameter, str]) -> bool:
        """Raise `HiddenUseError` where the sums differ; False if they say nothing (not finite).

        `shares` holds what each layer gave to each sample, `names` the names of the parameters.
        """
        found = {key: torch.zeros(()) for key in self._expected}
        for layer, share in zip(self._layers, shares, strict=True):
            key = self._key_of[layer.key]
            if key in found:
                found[key] = found[key] + share.sum().cpu()
        hidden = []
        for key, expected in self._expected.items():
            product, bound = expected.tolist()
            if abs(float(found[key]) - product) > _TOLERANCE * bound:
                hidden.append(f"{names[key]} (layers {found[key]:.3g}, gradient {product:.3g})")
        if hidden:
            raise HiddenUseError(
                f"the layers do not account for the whole gradient of {', '.join(hidden)}. Use every "
                "parameter through the layer that owns it (a tied output matrix as an nn.Linear whose "
                "weight is the embedding's), or take estimator='difference'."
            )
        return all(bool(torch.isfinite(expected).all()) for expected in self._expected.values())

    def _noting(self, key: nn.Parameter, direction: Tensor) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            product = (gradient * direction).sum(dtype=torch.float64)
            bound = torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(direction)
            noted = torch.stack([product, bound.double()]).cpu()
            self._expected[key] = self._expected.get(key, 0) + noted

        return note
