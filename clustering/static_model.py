"""A static embedding model, distilled from a sentence transformer: a text is the mean of its tokens.

The recipe of model2vec (Tulkens, van Dongen, 2024): run every token of the vocabulary through the model
alone, reduce by PCA, weigh down frequent tokens. Done here in a few lines because it then needs no
further package, and because sentence-transformers 5 drops the token weights when it distils through
model2vec 0.7 and later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.stages import published

DIMENSIONS = 256
SIF_COEFFICIENT = 1e-4
"""Arora, Liang, Ma 2017: a token of probability p weighs a / (a + p)."""
BATCH_TOKENS = 256


def distill(teacher: Any, folder: Path) -> None:
    """Distil a `SentenceTransformer` into a StaticEmbedding model in `folder`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    meaningful = _meaningful_tokens(teacher.tokenizer)
    vectors = _reduce(_token_vectors(teacher, meaningful))
    table = np.zeros((len(teacher.tokenizer), vectors.shape[1]), dtype=np.float32)
    table[meaningful] = vectors * zipf_weights(len(meaningful))[:, None]
    static = StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(table))
    with published(folder) as partial:
        SentenceTransformer(modules=[static], device="cpu").save(
            str(partial), create_model_card=False
        )


def zipf_weights(num_tokens: int) -> NDArray[np.float32]:
    """SIF weights float32 (num_tokens,) of tokens in order of falling frequency, by Zipf's law."""
    inverse_rank = 1.0 / np.arange(2, num_tokens + 2)
    probability = inverse_rank / inverse_rank.sum()
    weights: NDArray[np.float32] = (SIF_COEFFICIENT / (SIF_COEFFICIENT + probability)).astype(
        np.float32
    )
    return weights


def _meaningful_tokens(tokenizer: Any) -> NDArray[np.int64]:
    """Ids of all tokens that stand for text, ascending; vocabularies list frequent tokens first."""
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    ids = [i for t, i in vocabulary.items() if t not in special and not t.startswith("[unused")]
    return np.array(sorted(ids), dtype=np.int64)


def _token_vectors(teacher: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the teacher makes of each token alone, between its special tokens: float32 (n, dim)."""
    import torch

    shape = torch.tensor(teacher.tokenizer.build_inputs_with_special_tokens([-1]))
    place = int((shape == -1).nonzero())
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


def _reduce(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    dimensions = min(DIMENSIONS, *vectors.shape)
    reduced: NDArray[np.float32] = PCA(
        n_components=dimensions, svd_solver="covariance_eigh"
    ).fit_transform(vectors)
    return reduced
