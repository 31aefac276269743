"""The tokenizer of a corpus: trained here, or brought along; and documents to tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.model_check import missing_on_hub
from clustering.errors import ModelError
from clustering.work.work_store import WorkStore

TOKENIZER = "tokenizer/tokenizer.json"
SPECIAL = "tokenizer/special.json"
SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
KNOWN_SEPARATORS = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>", "<|eot|>", "[SEP]")
"""Looked for in a tokenizer.json, which does not say which of its tokens ends a text."""
KNOWN_PADS = (PAD, "<pad>", "[PAD]", "<|padding|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusTokenizer:
    """A fast tokenizer with the two tokens that packing needs."""

    tokenizer: Any
    """`tokenizers.Tokenizer`."""
    separator_id: int
    pad_id: int
    source: str
    """`trained`, a file name, or a hub name."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return int(max(self.tokenizer.get_vocab(with_added_tokens=True).values())) + 1

    @property
    def dtype(self) -> str:
        """Type that holds every token: `uint16` or `uint32`."""
        return "uint16" if self.vocab_size <= 2**16 else "uint32"

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Tokenise n texts: all tokens in one array, and int64 (n,) tokens per text.

        No special token is added, and text that spells one out stays text.
        """
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        dtype = self.dtype  # once: counting the vocabulary takes longer than a document
        ids = [np.array(encoding.ids, dtype=dtype) for encoding in encodings]
        lengths = np.array([len(i) for i in ids], dtype=np.int64)
        return np.concatenate([np.empty(0, dtype=dtype), *ids]), lengths

    def save(self, store: WorkStore) -> None:
        """Publish it as the tokenizer of a build."""
        special = {"separator_id": self.separator_id, "pad_id": self.pad_id, "source": self.source}
        store.publish(TOKENIZER, self.tokenizer.to_str().encode())
        store.publish(SPECIAL, json.dumps(special).encode())

    @classmethod
    def load(cls, store: WorkStore) -> CorpusTokenizer:
        """Read what `save` published."""
        from tokenizers import Tokenizer

        special = json.loads(store.content(SPECIAL))
        tokenizer = Tokenizer.from_str(store.content(TOKENIZER).decode())
        # Text that happens to contain "<|endoftext|>" must not become a separator.
        tokenizer.encode_special_tokens = True
        return cls(tokenizer=tokenizer, **special)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> CorpusTokenizer:
    """Train a byte-level BPE of `vocab_size` tokens (fewer when the text has no more to merge)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_specials(tokenizer, separator=SEPARATOR, pad=PAD, source="trained")


def check_tokenizer(name: str) -> None:
    """Refuse a tokenizer that is nowhere.

    Raises:
        ModelError: See `bring_tokenizer`.
    """
    if name == "train":
        return
    if not Path(name).expanduser().exists() and (reason := missing_on_hub(name)) is not None:
        raise ModelError(_no_tokenizer(name, f"there is no such file or folder, and {reason}"))
    bring_tokenizer(name)


def bring_tokenizer(name: str) -> CorpusTokenizer:
    """Load a tokenizer from a tokenizer.json, a folder, or the hub.

    Raises:
        ModelError: It is not there, or has no fast version.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return _from_file(path)
    from transformers import AutoTokenizer

    try:
        wrapper = AutoTokenizer.from_pretrained(str(path) if path.is_dir() else name)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error) else type(error).__name__
        raise ModelError(_no_tokenizer(name, reason)) from error
    if not wrapper.is_fast:
        raise ModelError(
            f"the tokenizer {name!r} has no fast version (tokenizer.json), which packing needs. Convert it, "
            "or choose another --tokenizer."
        )
    pad = wrapper.pad_token if wrapper.pad_token != wrapper.eos_token else None
    return _with_specials(
        wrapper.backend_tokenizer,
        separator=wrapper.eos_token or wrapper.sep_token,
        pad=pad,
        source=path.name if path.is_dir() else name,
    )


def _no_tokenizer(name: str, reason: str) -> str:
    return (
        f"the tokenizer {name!r} cannot be loaded ({reason}). --tokenizer takes `train`, a "
        "tokenizer.json, a folder of transformers, or a hub name that can be reached from here."
    )


def _from_file(path: Path) -> CorpusTokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"{str(path)!r} is no tokenizer.json of the `tokenizers` library ({error}). Give such a file, "
            "or --tokenizer train."
        ) from error
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return _with_specials(
        tokenizer,
        separator=next((token for token in KNOWN_SEPARATORS if token in vocabulary), None),
        pad=next((token for token in KNOWN_PADS if token in vocabulary), None),
        source=path.name,
    )


def _with_specials(
    tokenizer: Any, *, separator: str | None, pad: str | None, source: str
) -> CorpusTokenizer:
    """Make sure that both special tokens exist, and that nothing truncates or pads behind our back."""
    separator, pad = separator or SEPARATOR, pad or PAD
    tokenizer.add_special_tokens([separator, pad])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return CorpusTokenizer(
        tokenizer=tokenizer,
        separator_id=int(tokenizer.token_to_id(separator)),
        pad_id=int(tokenizer.token_to_id(pad)),
        source=source,
    )
