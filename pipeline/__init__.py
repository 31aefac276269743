"""Stream a clustered corpus as a mixture that can change at any step.

corpus = open_corpus("my-corpus")           # or "s3://bucket/my-corpus"
view = corpus.domains(k=64)
stream = MixtureStream(corpus, Mixture.natural(view), batch_size=64)
batch = next(stream)                       # batch.tokens, batch.domains, batch.positions
stream.set_mixture(Mixture.uniform(view))  # holds from the very next batch

Names are loaded when they are first used: the stream needs torch, which takes a while to import, and the
rest does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.budget import RepetitionBudget
    from pipeline.corpus import Corpus, TargetSet, open_corpus
    from pipeline.errors import (
        BraidstreamError,
        BudgetError,
        CorpusError,
        MixtureError,
        StateError,
        StorageError,
    )
    from pipeline.mixture import Mixture
    from pipeline.storage import FetchStatistics
    from pipeline.stream import MixtureStream
    from pipeline.view import View

_HOME = {
    "Batch": "batch",
    "BraidstreamError": "errors",
    "BudgetError": "errors",
    "Corpus": "corpus",
    "CorpusError": "errors",
    "FetchStatistics": "storage",
    "Mixture": "mixture",
    "MixtureError": "errors",
    "MixtureStream": "stream",
    "RepetitionBudget": "budget",
    "StateError": "errors",
    "StorageError": "errors",
    "TargetSet": "corpus",
    "View": "view",
    "open_corpus": "corpus",
}

__all__ = [
    "Batch",
    "BraidstreamError",
    "BudgetError",
    "Corpus",
    "CorpusError",
    "FetchStatistics",
    "Mixture",
    "MixtureError",
    "MixtureStream",
    "RepetitionBudget",
    "StateError",
    "StorageError",
    "TargetSet",
    "View",
    "open_corpus",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
