"""Real text for builds: a few hundred short documents of four kinds, made from rules so that none repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustering.build import BuildReport, build
from clustering.config import BuildConfig, TargetSource
from clustering.embedding import embedder
from clustering.work.progress import Progress

KINDS = {
    "cooking": (
        "Chop the {a} and fry it with {b} in butter for {n} minutes.",
        ["onion", "garlic", "carrot", "leek", "mushroom", "potato", "fennel", "spinach", "pepper"],
    ),
    "law": (
        "Under section {n} of the Act the {a} shall notify the {b} in writing of the decision.",
        ["tenant", "landlord", "court", "council", "trustee", "creditor", "minister", "board"],
    ),
    "code": (
        "def get_{a}_{b}(self, index: int = {n}) -> list[int]: return self.{a}[index].{b}",
        ["node", "edge", "vertex", "graph", "queue", "stack", "buffer", "cache", "token"],
    ),
    "space": (
        "The {a} orbits the {b} once in {n} days, far beyond the asteroid belt.",
        ["moon", "planet", "comet", "probe", "star", "satellite", "dwarf", "nebula", "giant"],
    ),
}


def documents_of(kind: str, count: int, seed: int = 0) -> list[str]:
    """`count` distinct short texts of one kind."""
    template, words = KINDS[kind]
    rng = np.random.default_rng(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        a, b = rng.choice(words, 2, replace=False)
        texts[template.format(a=a, b=b, n=rng.integers(2, 10_000))] = None
    return list(texts)


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def write_model(folder: Path, seed: int = 0) -> Path:
    """A model of sentence-transformers that averages random vectors of words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted(
        {word for _, words in KINDS.values() for word in words} | {"the", "in", "return"}
    )
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(["?", *words])}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(seed).normal(size=(len(words) + 1, 16)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(vectors))
    SentenceTransformer(modules=[module], device="cpu").save(str(folder), create_model_card=False)
    return folder


def write_transformer(folder: Path) -> Path:
    """A transformer of sentence-transformers: one layer, the words of `KINDS`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word for _, words in KINDS.values() for word in words})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "a", *words]
    plain = folder / "plain"
    plain.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(plain)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(vocabulary), intermediate_size=16, **sizes)
    BertModel(config).save_pretrained(plain)
    model = SentenceTransformer(str(plain), device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="session")
def small_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes the place of MiniLM where a static model is needed, and any will do."""
    return write_transformer(tmp_path_factory.mktemp("transformer"))


@pytest.fixture
def quick_static(small_minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`static` is distilled from a small model, in this process."""
    monkeypatch.setattr(embedder, "minilm_location", lambda: str(small_minilm))


def small_config(corpus: Path, out: Path, target: TargetSource, **options: Any) -> BuildConfig:
    """A build of two levels with a small vocabulary, in blocks of 32 tokens unless `options` say more."""
    small: dict[str, Any] = {
        "dtype": "float32",
        "branching": (4, 3),
        "min_split": 8,
        "vocab_size": 400,
        "tokens_per_sample": 32,
        "heldout_share": 0.05,
    }
    return BuildConfig(corpus=str(corpus), out=out, target=(target,), **{**small, **options})


@pytest.fixture(scope="session")
def raw_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one JSON Lines file per kind, 60 documents each."""
    folder = tmp_path_factory.mktemp("raw")
    for kind in KINDS:
        write_lines(folder / f"{kind}.jsonl", documents_of(kind, 60))
    return folder


@pytest.fixture(scope="session")
def cooking_target(tmp_path_factory: pytest.TempPathFactory) -> TargetSource:
    """A target set with 8 train and 8 test documents; the first train document is in the corpus, too."""
    folder = tmp_path_factory.mktemp("target")
    fresh = documents_of("cooking", 15, seed=1)
    train = write_lines(folder / "train.jsonl", [documents_of("cooking", 60)[0], *fresh[:7]])
    test = write_lines(folder / "test.jsonl", fresh[7:])
    return TargetSource(name="cooking", train=str(train), test=str(test))


@pytest.fixture(scope="session")
def build_config(
    raw_texts: Path, cooking_target: TargetSource, tmp_path_factory: pytest.TempPathFactory
) -> BuildConfig:
    """A small real build: MiniLM, two levels, blocks of 32 tokens."""
    out = tmp_path_factory.mktemp("built") / "corpus"
    return small_config(raw_texts, out, cooking_target, part_documents=64)


@pytest.fixture(scope="session")
def built(build_config: BuildConfig) -> BuildReport:
    """The first build of `build_config`."""
    return build(build_config, Progress(quiet=True))
