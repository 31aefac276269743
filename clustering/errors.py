"""What can go wrong while a corpus is built (all are `BraidstreamError`, printed without a traceback)."""

from __future__ import annotations

from pipeline.errors import BraidstreamError


class InputError(BraidstreamError):
    """A file, line or column of the input that cannot be used."""


class ModelError(BraidstreamError):
    """An embedding model or a tokenizer that cannot be loaded here."""


class BuildError(BraidstreamError):
    """Options that contradict each other, or a work folder in the way."""
