"""What can go wrong, as one small tree.

    BraidstreamError                 everything below; the command line prints it without a traceback
     ├─ CorpusError                  a corpus folder is missing, damaged, or of another format
     │   └─ StorageError             an object store refuses, lacks or damages what was asked of it
     │       └─ MissingObjectError   it has no such object, though the bucket is there
     ├─ MixtureError (ValueError)    probabilities that are none, or over another view
     ├─ BudgetError (ValueError)     a repetition budget that the run cannot keep
     └─ StateError                   a saved state that belongs to another corpus, view or stream

Every message states the value that was found, the rule it breaks, and what to do about it.
"""

from __future__ import annotations


class BraidstreamError(Exception):
    """Base of all errors that are the user's to resolve."""


class CorpusError(BraidstreamError):
    """A corpus folder is missing, incomplete, damaged, or of an unknown format version."""


class StorageError(CorpusError):
    """An object store refuses, lacks or keeps damaging what was asked of it."""


class MissingObjectError(StorageError):
    """An object store has no object of the name that was asked for."""


class MixtureError(BraidstreamError, ValueError):
    """Weights that are no probabilities over the domains of the view at hand."""


class BudgetError(BraidstreamError, ValueError):
    """A repetition budget that cannot supply the run it was given."""


class StateError(BraidstreamError):
    """A saved stream state that does not fit the stream it is loaded into."""
