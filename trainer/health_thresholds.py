"""From where on a run's health is worth a warning."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthThresholds:
    """Thresholds of `trainer.health`."""

    still_distance: float = 1e-3
    """A mixture that moves less than this (total variation, 0 to 1) in an update has not moved."""
    still_updates: int = 10
    """So many updates in a row without movement are a warning."""
    fewest_domains: float = 1.5
    """Effective domains, exp(entropy), below which a mixture has collapsed."""
    most_passes: float = 16.0
    """Passes over a domain above which it is repeated too often."""
    overfitting_nats: float = 0.05
    """Rise of the target's test loss above its lowest while its train loss falls."""
    forgetting_nats: float = 0.1
    """Rise of the generic loss above its lowest."""
    least_agreement: float = 0.5
    """Mean correlation of scores that share no evidence; below 0.5 noise outweighs signal."""
    noise_updates: int = 4
    """So many correlations are averaged."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if math.isnan(getattr(self, setting.name)):
                raise ValueError(
                    f"{setting.name}=nan must be a number: nothing lies above or below it."
                )
        for name in ("still_updates", "noise_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")
