from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from clustering.build import build
from clustering.config import BuildConfig, TargetSource
from clustering.embedding.embedder import Backend, EmbedderChoice
from clustering.embedding.model_check import check_backend, check_device, check_model
from clustering.errors import InputError, ModelError
from clustering.shards.tokenization import check_tokenizer
from clustering.work.progress import Progress
from tests.clustering.conftest import write_model

NOWHERE = "/no/such/place"


def choice(model: str) -> EmbedderChoice:
    return EmbedderChoice(model=model, dtype="float32", backend="torch")


def test_what_is_here_passes(tmp_path: Path) -> None:
    check_model(choice("minilm"))
    check_model(choice("static"))
    check_model(choice(str(write_model(tmp_path / "model"))))
    check_backend("torch")
    check_device("cpu")
    check_tokenizer("train")


@pytest.mark.parametrize("name", [NOWHERE, "statc", "no owner/has blanks"])
def test_a_model_that_is_nowhere(name: str) -> None:
    """Whether the hub can be reached from here or not."""
    with pytest.raises(
        ModelError, match=rf"--model is '{name}': there is no such folder, and .*hub"
    ):
        check_model(choice(name))


def test_a_tokenizer_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no such file or folder.*--tokenizer takes"):
        check_tokenizer(NOWHERE)
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"no tokenizer\.json of the `tokenizers` library"):
        check_tokenizer(str(broken))


@pytest.mark.parametrize(
    ("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")]
)
def test_a_backend_that_is_not_installed(backend: Backend, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    message = (
        rf"not installed \({package}, optimum.*pip install 'sentence-transformers\[{backend}\]'"
    )
    with pytest.raises(ModelError, match=message):
        check_backend(backend)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1:2"])
def test_a_device_that_is_not_here(device: str) -> None:
    with pytest.raises(ModelError, match=rf"--device is '{device}'; .* can be auto, cpu"):
        check_device(device)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model", NOWHERE, "--model is '/no/such/place'"),
        ("tokenizer", NOWHERE, "the tokenizer '/no/such/place' cannot be loaded"),
        ("device", "cuda:99", "--device is 'cuda:99'"),
        ("embeddings", NOWHERE, "has no file with vectors"),
        ("target", (TargetSource(name="task", train=NOWHERE),), "--target task: '/no/such/place'"),
    ],
)
def test_a_build_refuses_them_before_it_reads(
    build_config: BuildConfig, tmp_path: Path, option: str, value: object, message: str
) -> None:
    config = replace(build_config, out=tmp_path / "corpus", **{option: value})  # type: ignore[arg-type]
    with pytest.raises((ModelError, InputError), match=message):
        build(config, Progress(quiet=True))
    assert not list(tmp_path.rglob("part-*"))
