"""`make demo CORPUS=path`: find a target inside your own text.

A few thousand documents are clustered by their words; a cluster of middling size plays the task that
you care about. It is named by its keywords, and a part of it is held out. The build drops documents of
a target set from the corpus, so nothing has to be copied.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from demo_task import Task, hold_out
from numpy.typing import NDArray
from scipy import sparse

from clustering.cards.keywords import Keywords
from clustering.cards.terms import count_terms, find_terms
from clustering.documents.inputs import find_inputs
from clustering.documents.readers import read_documents
from clustering.documents.records import BadInput

DOCUMENTS = 4_000
"""Documents that are looked at, at most; the same number from the beginning of every file."""
FEWEST_DOCUMENTS = 300
SMALLEST_TARGET = 30
DOCUMENTS_PER_CLUSTER = 150
SEED = 0


def own_task(corpus: str, folder: Path) -> Task:
    """Choose a target among the documents of `corpus` and write it below `folder`.

    Raises `SystemExit` with a remedy when the text is too small or too uniform for a demo.
    """
    documents = read_sample(corpus)
    if len(documents) < FEWEST_DOCUMENTS:
        raise SystemExit(
            f"error: {corpus} has {len(documents)} different documents, and the demo needs "
            f"{FEWEST_DOCUMENTS}. A document is a line of JSON Lines, a row of Parquet or a text file: "
            "cut long files into more documents, or name a folder with more of them."
        )
    cluster = cluster_by_words(documents)
    chosen = middling_cluster(cluster)
    members = [documents[i] for i in np.flatnonzero(cluster == chosen)]
    if len(members) < SMALLEST_TARGET:
        raise SystemExit(
            f"error: the text of {corpus} does not fall into groups that are large enough (the one chosen "
            f"has {len(members)} documents, {SMALLEST_TARGET} are needed). Name a target yourself: "
            "--target NAME=TRAIN.jsonl,TEST.jsonl"
        )
    random.Random(SEED).shuffle(members)
    name = name_by_keywords(documents, cluster, chosen)
    train, test, _ = hold_out(folder, name, members)
    return Task(corpus=corpus, name=name, train=str(train), test=str(test))


def read_sample(corpus: str) -> list[str]:
    """Up to DOCUMENTS different documents, spread over the files."""
    files = find_inputs(corpus)
    per_file = -(-DOCUMENTS // len(files))
    found: dict[str, None] = {}
    for file in files[:DOCUMENTS]:
        reader = read_documents(file, text_column=None, bad=BadInput(action="skip"))
        for _, document in zip(range(per_file), reader, strict=False):
            if document.text.strip():
                found[document.text] = None
    return list(found)


def cluster_by_words(documents: list[str]) -> NDArray[np.int64]:
    """Cluster of each document, int (n,), by TF-IDF: quick, and good enough to find a subject."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(
        max_features=20_000, sublinear_tf=True, stop_words="english", max_df=0.5
    )
    count = int(np.clip(len(documents) // DOCUMENTS_PER_CLUSTER, 3, 20))
    kmeans = MiniBatchKMeans(count, n_init=5, random_state=SEED)
    labels = kmeans.fit_predict(vectors.fit_transform(text[:4_000] for text in documents))
    return np.asarray(labels, dtype=np.int64)


def middling_cluster(cluster: NDArray[np.int64]) -> int:
    """The cluster of median size: small enough to be a special task, large enough to learn from."""
    size = np.bincount(cluster)
    by_size = [int(i) for i in np.argsort(size, kind="stable") if size[i] >= SMALLEST_TARGET]
    return by_size[len(by_size) // 2] if by_size else int(size.argmax())


def name_by_keywords(documents: list[str], cluster: NDArray[np.int64], chosen: int) -> str:
    """Two keywords of a cluster as a name that `braidstream build --target` accepts."""

    def texts(rows: NDArray[np.int64]) -> list[str]:
        return [documents[row] for row in rows]

    count = int(cluster.max()) + 1
    rows = np.arange(len(documents))
    terms = find_terms(texts, rows)
    counts = count_terms(texts, rows, cluster, np.ones(count, dtype=np.float32), terms)
    sizes = sparse.csr_matrix(np.bincount(cluster)[:, None])
    keywords = Keywords(counts, terms, languages=sizes).of(np.arange(count + 1))
    return "-".join(keywords[chosen][:2]) or "own-target"
