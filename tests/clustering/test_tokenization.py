from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from clustering.errors import ModelError
from clustering.shards.tokenization import CorpusTokenizer, bring_tokenizer, train_tokenizer
from clustering.work.work_store import LocalWork
from tests.clustering.conftest import KINDS, documents_of

TEXTS = [text for kind in KINDS for text in documents_of(kind, 30)]


def test_a_trained_tokenizer_gives_back_any_text(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 300).save(LocalWork(tmp_path))
    tokenizer = CorpusTokenizer.load(LocalWork(tmp_path))
    texts = [*TEXTS[:3], "", "naïve 数学 🚀\n\ttabs", "a<|endoftext|>b<|pad|>c"]
    tokens, lengths = tokenizer.encode(texts)
    assert tokens.dtype == np.uint16
    assert tokenizer.vocab_size == 300
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    assert [tokenizer.tokenizer.decode(part.tolist()) for part in parts] == texts
    assert tokenizer.separator_id not in tokens, "text that spells out a special token stays text"
    assert tokenizer.pad_id not in tokens


def test_training_is_deterministic() -> None:
    first, second = (train_tokenizer(iter(TEXTS), 400).tokenizer.to_str() for _ in range(2))
    assert first == second


def test_no_texts() -> None:
    tokens, lengths = train_tokenizer(TEXTS, 300).encode([])
    assert tokens.shape == lengths.shape == (0,)


def word_tokenizer(*special: str) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate([*special, "a", "b", "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    return tokenizer


def test_a_file_keeps_its_own_special_tokens(tmp_path: Path) -> None:
    word_tokenizer("</s>", "<pad>").save(str(tmp_path / "t.json"))
    tokenizer = bring_tokenizer(str(tmp_path / "t.json"))
    assert (tokenizer.separator_id, tokenizer.pad_id, tokenizer.source) == (0, 1, "t.json")
    assert tokenizer.encode(["a b a b"])[1].tolist() == [4], "truncation is switched off"


def test_missing_special_tokens_are_added(tmp_path: Path) -> None:
    word_tokenizer().save(str(tmp_path / "t.json"))
    tokenizer = bring_tokenizer(str(tmp_path / "t.json"))
    assert (tokenizer.separator_id, tokenizer.pad_id) == (3, 4)
    assert tokenizer.vocab_size == 5


def test_a_folder_of_transformers_whose_pad_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer("<eos>"), eos_token="<eos>", pad_token="<eos>"
    )
    wrapped.save_pretrained(tmp_path / "mine")
    tokenizer = bring_tokenizer(str(tmp_path / "mine"))
    assert tokenizer.separator_id == 0
    assert tokenizer.pad_id != tokenizer.separator_id, "losses mask pads, never separators"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bring_tokenizer("~/mine").source == "mine"


def test_large_vocabularies_take_four_bytes() -> None:
    vocabulary = {f"w{i}": i for i in range(70_000)}
    big = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer = CorpusTokenizer(tokenizer=big, separator_id=0, pad_id=1, source="big")
    assert tokenizer.dtype == "uint32"
    assert tokenizer.encode(["w69999"])[0].tolist() == [69_999]


@pytest.mark.parametrize("content", ["{}", "no json"])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ModelError, match=r"is no tokenizer\.json"):
        bring_tokenizer(str(tmp_path / "t.json"))


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        bring_tokenizer(str(tmp_path))
