"""Stream a clustered corpus as a mixture that can change at any step.

corpus = open_corpus("my-corpus")
view = corpus.domains(k=64)
stream = MixtureStream(corpus, Mixture.natural(view), batch_size=64)
batch = next(stream)                       # batch.tokens, batch.domains, batch.positions
stream.set_mixture(Mixture.uniform(view))  # holds from the very next batch
"""

from pipeline.budget import RepetitionBudget
from pipeline.corpus import Corpus, TargetSet, open_corpus
from pipeline.errors import BraidstreamError, BudgetError, CorpusError, MixtureError, StateError
from pipeline.mixture import Mixture
from pipeline.stream import Batch, MixtureStream
from pipeline.view import View

__all__ = [
    "Batch",
    "BraidstreamError",
    "BudgetError",
    "Corpus",
    "CorpusError",
    "Mixture",
    "MixtureError",
    "MixtureStream",
    "RepetitionBudget",
    "StateError",
    "TargetSet",
    "View",
    "open_corpus",
]
