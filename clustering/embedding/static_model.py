"""A static embedding model, distilled from a sentence transformer: a text is the mean of its tokens.

The recipe of model2vec (Tulkens, van Dongen, 2024): run every token of the vocabulary through the model
alone, reduce by PCA. Two deviations, which gave better domains on 43 labelled kinds of text (docs/log.md,
2026-11-23): frequent tokens are not weighed down, and the table is centered on texts of the corpus,
since otherwise the commonest words lend all texts one direction, which hides what sets them apart.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.token_cache import files_digest, kept_vectors
from clustering.work.stages import published

RECIPE = 2
"""Raised whenever distillation gives other vectors, so that stored ones are not mixed with new ones."""
DIMENSIONS = 256
TEXT_CHARACTERS = 2_048
"""A text is embedded by its beginning: the mean of a long text drifts to the mean of all."""
BATCH_TOKENS = 256
LIBRARIES = (
    "numpy",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
)
"""Another version of one of them may compute other vectors."""


def distill(teacher: Any, teacher_files: Path | None, texts: Sequence[str], folder: Path) -> None:
    """Distil a `SentenceTransformer` into a StaticEmbedding model in `folder`, centered on `texts`.

    Its vectors are kept on this machine where `teacher_files`, the folder it was loaded from, is known.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    meaningful = _meaningful_tokens(teacher.tokenizer)
    vectors = _vectors(teacher, teacher_files, meaningful)
    table = np.zeros((len(teacher.tokenizer), vectors.shape[1]), dtype=np.float32)
    table[meaningful] = vectors
    # Shifting all tokens, those that mean nothing included, shifts every text alike.
    table -= mean_text(tokenizer, table, texts)
    static = StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(table))
    model = SentenceTransformer(modules=[static], device="cpu")
    try:
        with published(folder) as partial:
            model.save(str(partial), create_model_card=False)
    except Exception as error:  # safetensors has one of its own for a full disk
        if f"os error {errno.ENOSPC}" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None


def mean_text(
    tokenizer: Any, table: NDArray[np.float32], texts: Sequence[str]
) -> NDArray[np.float32]:
    """Mean embedding of texts, where the embedding of a text is the mean of its tokens: float32 (dim,)."""
    encodings = tokenizer.encode_batch(
        [t[:TEXT_CHARACTERS] for t in texts], add_special_tokens=False
    )
    means = [table[encoding.ids].mean(axis=0) for encoding in encodings if encoding.ids]
    mean: NDArray[np.float32] = np.mean(means or [np.zeros(table.shape[1])], axis=0)
    return mean.astype(np.float32)


def _meaningful_tokens(tokenizer: Any) -> NDArray[np.int64]:
    """Ids of all tokens that stand for text, ascending; vocabularies list frequent tokens first."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    ids = [i for t, i in vocabulary.items() if t not in special and not t.startswith("[unused")]
    return np.array(sorted(ids), dtype=np.int64)


def _vectors(teacher: Any, files: Path | None, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vectors of all tokens that stand for text, not centered: float32 (n, dim)."""

    def compute() -> NDArray[np.float32]:
        return _reduce(_token_vectors(teacher, ids))

    if files is None:
        return compute()
    made_from = {
        "recipe": RECIPE,
        "dimensions": DIMENSIONS,
        "batch_tokens": BATCH_TOKENS,
        "model": files_digest(files),
        "dtype": str(teacher.dtype),
        "device": teacher.device.type,
        "libraries": {name: import_module(name).__version__ for name in LIBRARIES},
    }
    return kept_vectors(made_from, compute)


def _token_vectors(teacher: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the teacher makes of each token alone, between its special tokens: float32 (n, dim)."""
    import torch

    before, after = _frame(teacher.tokenizer)
    shape = torch.tensor([*before, -1, *after])
    place = len(before)
    batches = []
    with torch.inference_mode():
        for begin in range(0, len(ids), BATCH_TOKENS):
            batch = torch.from_numpy(ids[begin : begin + BATCH_TOKENS])
            inputs = shape.repeat(len(batch), 1)
            inputs[:, place] = batch
            features = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
            features = {name: value.to(teacher.device) for name, value in features.items()}
            pooled = teacher(features)["sentence_embedding"]
            batches.append(pooled.float().cpu().numpy())
    return np.concatenate(batches)


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    text = tokenizer.encode("a", add_special_tokens=False)
    framed = tokenizer.encode("a")
    place = next(i for i in range(len(framed)) if framed[i : i + len(text)] == text)
    return framed[:place], framed[place + len(text) :]


def _reduce(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    dimensions = min(DIMENSIONS, *vectors.shape)
    reduced: NDArray[np.float32] = PCA(
        n_components=dimensions, svd_solver="covariance_eigh"
    ).fit_transform(vectors)
    return reduced
