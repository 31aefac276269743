"""Natural proportions: every sample of the corpus is as likely as any other."""

from __future__ import annotations

from pipeline import Mixture, View
from trainer.mixers.fixed import FixedMixer


class NaturalMixer(FixedMixer):
    """Each domain by its size: training as if there were no domains."""

    def __init__(self, view: View) -> None:
        super().__init__(Mixture.natural(view))
