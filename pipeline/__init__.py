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
    from pipeline.corpus.corpus import Corpus, TargetSet, open_corpus
    from pipeline.corpus.view import View
    from pipeline.errors import (
        BraidstreamError,
        BudgetError,
        CorpusError,
        MixtureError,
        StateError,
        StorageError,
    )
    from pipeline.samples.batch import Batch
    from pipeline.storage.storage import FetchStatistics
    from pipeline.stream.budget import RepetitionBudget
    from pipeline.stream.mixture import Mixture
    from pipeline.stream.stream import MixtureStream

_HOME = {
    "Batch": "samples.batch",
    "BraidstreamError": "errors",
    "BudgetError": "errors",
    "Corpus": "corpus.corpus",
    "CorpusError": "errors",
    "FetchStatistics": "storage.storage",
    "Mixture": "stream.mixture",
    "MixtureError": "errors",
    "MixtureStream": "stream.stream",
    "RepetitionBudget": "stream.budget",
    "StateError": "errors",
    "StorageError": "errors",
    "TargetSet": "corpus.corpus",
    "View": "corpus.view",
    "open_corpus": "corpus.corpus",
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
