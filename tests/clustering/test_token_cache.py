"""Token vectors of the static model that are kept on this machine."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clustering.embedding import embedder, static_model, token_cache
from clustering.embedding.static_model import distill
from clustering.embedding.token_cache import kept_vectors
from tests.clustering.conftest import KINDS, documents_of

VECTORS = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
TEXTS = [text for kind in KINDS for text in documents_of(kind, 3)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, not there yet."""
    monkeypatch.setenv("BRAIDSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("static-model/*") if path.name != "lock")


def not_computed() -> NDArray[np.float32]:
    pytest.fail("is there, and is computed again")


def test_what_is_kept_is_not_computed_again(cache: Path) -> None:
    for compute in (lambda: VECTORS, not_computed):
        np.testing.assert_array_equal(kept_vectors({"recipe": 1}, compute), VECTORS)
    others = VECTORS + 1
    np.testing.assert_array_equal(kept_vectors({"recipe": 2}, lambda: others), others)
    np.testing.assert_array_equal(kept_vectors({"recipe": 1}, not_computed), VECTORS)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("place", [0, 31, 32, 40, 200, 1_000, -1])
def test_an_entry_with_another_byte_is_computed_again(cache: Path, place: int) -> None:
    kept_vectors({}, lambda: VECTORS)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    entry.write_bytes(damaged)
    np.testing.assert_array_equal(kept_vectors({}, lambda: VECTORS), VECTORS)
    assert entry.read_bytes() == whole, "and mended"


@pytest.mark.parametrize("length", [0, 10, 32, 100, -1])
def test_an_entry_that_was_cut_off_is_computed_again(cache: Path, length: int) -> None:
    kept_vectors({}, lambda: VECTORS)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:length])
    np.testing.assert_array_equal(kept_vectors({}, lambda: VECTORS), VECTORS)
    assert entry.read_bytes() == whole


def test_a_folder_that_takes_nothing_costs_time_only(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept .*cache.*Set BRAIDSTREAM_CACHE"):
        np.testing.assert_array_equal(kept_vectors({}, lambda: VECTORS), VECTORS)


def test_without_a_home_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(token_cache, "default_cache_folder", nobody)
    with pytest.warns(UserWarning, match="cannot be kept .Could not determine home"):
        np.testing.assert_array_equal(kept_vectors({}, lambda: VECTORS), VECTORS)


def test_a_full_disk_leaves_no_entry(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", half)
        with pytest.warns(UserWarning, match="No space left on device"):
            kept_vectors({}, lambda: VECTORS)
    np.testing.assert_array_equal(kept_vectors({}, lambda: VECTORS), VECTORS)
    np.testing.assert_array_equal(kept_vectors({}, not_computed), VECTORS)
    assert len(entries(cache)) == 1, "and nothing that was not finished"


def keep_at_once(together: Barrier, rounds: int) -> None:
    """Compute and keep what another process computes and keeps at the same time."""

    def compute() -> NDArray[np.float32]:
        together.wait(30)  # until the other has found nothing, too
        return VECTORS

    for number in range(rounds):
        kept_vectors({"round": number}, compute)
        np.testing.assert_array_equal(kept_vectors({"round": number}, not_computed), VECTORS)


def test_processes_that_keep_the_same_at_once(cache: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    together = processes.Barrier(2)
    started = [processes.Process(target=keep_at_once, args=(together, 20)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0]
    assert len(entries(cache)) == 20
    for number in range(20):
        np.testing.assert_array_equal(kept_vectors({"round": number}, not_computed), VECTORS)


def load(folder: Path, dtype: str = "float32") -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype}).eval()


def test_a_model_from_kept_vectors_is_the_same_to_the_byte(
    small_minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = load(small_minilm)
    distill(teacher, None, TEXTS, tmp_path / "not kept")
    distill(teacher, small_minilm, TEXTS, tmp_path / "kept")
    monkeypatch.setattr(static_model, "_token_vectors", lambda *_: not_computed())
    distill(teacher, small_minilm, TEXTS, tmp_path / "again")
    distill(teacher, small_minilm, TEXTS[:1], tmp_path / "other texts")
    bits, kept, again, other = (
        (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("not kept", "kept", "again", "other texts")
    )
    assert bits == kept == again
    assert other != bits, "centered on the texts of each corpus"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECIPE", 1_000),
        ("DIMENSIONS", 4),
        ("BATCH_TOKENS", 3),
    ],
)
def test_another_way_to_distil_makes_another_entry(
    cache: Path,
    small_minilm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: Any,
) -> None:
    distill(load(small_minilm), small_minilm, TEXTS, tmp_path / "model")
    monkeypatch.setattr(static_model, name, value)
    distill(load(small_minilm), small_minilm, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 2


def test_another_number_format_file_or_library_makes_another_entry(
    cache: Path, small_minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    shutil.copytree(small_minilm, files)
    distill(load(files), files, TEXTS, tmp_path / "model")
    distill(load(files, "bfloat16"), files, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 2
    config = files / "config.json"
    config.write_text(config.read_text() + " ")
    distill(load(files), files, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 3
    (files / "more").touch()
    distill(load(files), files, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 4
    monkeypatch.setattr("tokenizers.__version__", "1.2.3")
    distill(load(files), files, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 5


def test_a_model_elsewhere_with_the_same_files_is_the_same(
    cache: Path, small_minilm: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_minilm, tmp_path / "copy")
    for files in (small_minilm, tmp_path / "copy"):
        distill(load(files), files, TEXTS, tmp_path / "model")
    assert len(entries(cache)) == 1


def test_the_files_of_a_model_from_the_hub(
    small_minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert embedder._files_of("owner/model") is None
    repository = tmp_path / "models--owner--model"
    shutil.copytree(small_minilm, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    found = embedder._files_of("owner/model")
    assert found is not None
    assert token_cache.files_digest(found) == token_cache.files_digest(small_minilm)
    assert embedder._files_of(str(small_minilm)) == small_minilm
