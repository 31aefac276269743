"""Uniform over domains: every domain that has samples is as likely as any other."""

from __future__ import annotations

from pipeline import Mixture, View
from trainer.mixers.fixed import FixedMixer


class UniformMixer(FixedMixer):
    """The same weight for each non-empty domain."""

    def __init__(self, view: View) -> None:
        super().__init__(Mixture.uniform(view))
