"""Drive the transformer of a sentence-transformers model in batches of our own.

`SentenceTransformer.encode` cuts batches of a fixed number of texts, tokenizes each while the device waits,
and waits for each result. Here texts are tokenized once, in windows, one window ahead of the device;
batches are sorted by tokens and hold as many tokens as keep the device busy; results stay on the device
until the end. Modules, pooling, prompt and the model's limit of tokens are the model's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.token_batches import padded, token_batches

Item = TypeVar("Item")
Result = TypeVar("Result")

CHARACTERS_PER_TOKEN = 8
"""A text is read up to this many characters for each token that the model takes: tokenizing the rest, which
the model cuts off, would take longer than the model does on a GPU. Prose has 4 to 5, code about 3."""
WINDOW = 1_024
"""Texts that are tokenized, and sorted, together."""
BATCH_NUMBERS = {"cpu": 2**21, "cuda": 2**25}
"""Tokens times dimensions of a batch. On a CPU larger ones fall out of its caches; a GPU is busy by then."""


def can_drive(model: Any) -> bool:
    """Whether every step of a `SentenceTransformer` is known here; others need their `encode`."""
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    first, *rest = model
    return (
        isinstance(first, Transformer)
        and list(first.modality_config) == ["text"]
        and getattr(first.tokenizer, "is_fast", False)
        and not first.can_flatten_inputs
        and model.max_seq_length is not None
        and model.truncate_dim is None
        and all(isinstance(module, Pooling | Normalize | Dense) for module in rest)
        and all(module.include_prompt for module in rest if isinstance(module, Pooling))
    )


class TransformerEmbedder:
    """Texts to the vectors that the model's `encode` would give."""

    def __init__(self, model: Any) -> None:
        from tokenizers import Tokenizer

        self._model = model
        self._device = model.device
        self._max_tokens: int = model.max_seq_length
        self._prompt: str = model.prompts.get(model.default_prompt_name) or ""
        self._pad_id: int = model.tokenizer.pad_token_id or 0
        self._pads_left = model.tokenizer.padding_side == "left"
        self._types = "token_type_ids" in model.tokenizer.model_input_names
        self._tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(
            self._max_tokens, direction=model.tokenizer.truncation_side
        )
        numbers = BATCH_NUMBERS["cuda" if self._device.type == "cuda" else "cpu"]
        self._batch_tokens = numbers // model[0].get_embedding_dimension()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed n texts, n >= 1: float32 (n, dim), as the model leaves them.

        Batches follow from the texts alone, so the same texts give the same bits on the same hardware.
        """
        import torch

        order, vectors = [], []
        windows = [texts[begin : begin + WINDOW] for begin in range(0, len(texts), WINDOW)]
        with torch.inference_mode():
            for number, tokens in enumerate(_one_ahead(self._tokenize, windows)):
                lengths = np.array([len(text) for text in tokens], dtype=np.int64)
                for batch in token_batches(lengths, self._batch_tokens):
                    order.append(number * WINDOW + batch)
                    vectors.append(self._forward([tokens[text] for text in batch]))
            gathered: NDArray[np.float32] = torch.cat(vectors).float().cpu().numpy()
        embedded = np.empty_like(gathered)
        embedded[np.concatenate(order)] = gathered
        return embedded

    def _tokenize(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        characters = CHARACTERS_PER_TOKEN * self._max_tokens
        read = [self._prompt + text[:characters] for text in texts]
        return [np.array(e.ids, dtype=np.int64) for e in self._tokenizer.encode_batch_fast(read)]

    def _forward(self, tokens: Sequence[NDArray[np.int64]]) -> Any:
        ids, mask = padded(tokens, pad_id=self._pad_id, left=self._pads_left)
        features = {"input_ids": self._placed(ids), "attention_mask": self._placed(mask)}
        if self._types:
            features["token_type_ids"] = features["input_ids"].new_zeros(ids.shape)
        return self._model(features)["sentence_embedding"]

    def _placed(self, array: NDArray[np.int64]) -> Any:
        """To the device, without waiting for what it is doing."""
        import torch

        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def _one_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in order, computing the next result in a thread while the caller works with this one."""
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
