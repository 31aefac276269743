"""What is said about domains, layers and targets: the values that the table and the page show."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import Corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The beginning of one document."""

    text: str
    source: str
    distance: float
    """Cosine distance to the center of its domain; of its part where the domain is a merge of several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file, and how much of a domain comes from it."""

    name: str
    documents: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A language or script, and how much of a domain is written in it."""

    name: str
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbor:
    """Another domain of the same layer."""

    index: int
    cosine: float
    """Of the two centroids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """One domain of one view."""

    index: int
    parent: int | None
    """Index in the next coarser layer that is shown; none in the first."""
    top: int
    """Index of the ancestor in the first layer: what the page colours by."""
    leaves: int
    documents: int | None
    """None where no text was read: in imported corpora."""
    tokens: int | None
    """None in imported corpora of something else than tokens."""
    samples: int
    share: float
    """Of all samples of the corpus."""
    keywords: tuple[str, ...]
    sources: tuple[Source, ...]
    examples: tuple[Example, ...]
    farthest: Example | None
    languages: tuple[Share, ...]
    """Of its documents; empty where the cards do not say."""
    scripts: tuple[Share, ...]
    """Of its letters; empty where the cards do not say."""
    duplicate_share: float | None
    """Of the documents read, how many were dropped as duplicates of those here; None where not known."""
    neighbors: tuple[Neighbor, ...]
    """The nearest first; only in layers that are levels of the tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """How evenly the samples are spread over the domains of a view."""

    name: str
    k: int
    largest_share: float
    effective: float
    """exp of the entropy of the shares: as many equally large domains would be as diverse."""
    empty: int
    """Domains without a sample."""
    source_purity: float | None
    """Share of documents that come from the most frequent source file of their domain; None if imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One granularity: its balance, and its domains unless there are too many to describe."""

    balance: Balance
    domains: tuple[Domain, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetDomain:
    """How much of a target lies in one domain of the finest layer described."""

    domain: Domain
    share: float
    lift: float | None
    """Share of the target over the domain's share of the corpus; None of a domain without samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A target set and the domains nearest to it."""

    name: str
    train_documents: int
    test_documents: int
    effective: float
    domains: tuple[TargetDomain, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """Everything that is shown: layers from coarse to fine, and targets."""

    corpus: Corpus
    layers: tuple[Layer, ...]
    targets: tuple[Target, ...]

    @property
    def finest_index(self) -> int:
        """Position of the finest layer whose domains are described; targets refer to it."""
        return max(i for i, layer in enumerate(self.layers) if layer.domains)

    @property
    def finest(self) -> Layer:
        """The finest layer whose domains are described."""
        return self.layers[self.finest_index]
