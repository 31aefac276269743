"""Corpora that several test modules share: small, real, written once per session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from pipeline import Corpus, open_corpus
from tests.corpora import write_corpus

settings.register_profile("untimed", settings.default, deadline=None)  # no test asserts wall time
settings.load_profile("untimed")

pytest_plugins = ["tests.servers.fixtures"]

EXAMPLES = Path(__file__).parent.parent / "examples"
TOKENS_PER_SAMPLE = 32
VOCAB_SIZE = 64
LEAVES_PER_DOMAIN = 4


@pytest.fixture(scope="session", autouse=True)
def _a_cache_folder_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For all test processes and the programs they start: nothing of the user's is read or written."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BRAIDSTREAM_CACHE", str(shared / "user-cache"))
        yield


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example as a module that worker processes can import too."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for needed in request.param[1:]:
        pytest.importorskip(needed)
    return import_module(request.param[0])


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The same numbers in every run of a test, whichever tests ran before it."""
    return random.Random(request.node.nodeid)


@pytest.fixture
def without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the test works in, as somebody whom permissions hold for: root is nobody meanwhile."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    user, nobody = os.geteuid(), 65534
    if user == 0:
        os.seteuid(nobody)
    yield Path()
    os.seteuid(user)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


@pytest.fixture(scope="session")
def numbered_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """600-odd samples in 24 leaves of very different sizes, some empty, over several shards.

    Every sample holds its own position.
    """
    sizes = [1, 40, 7, 0, 3, 120, 16, 9, 2, 64, 5, 31, 0, 11, 80, 1, 23, 50, 4, 90, 6, 13, 28, 17]
    folder = tmp_path_factory.mktemp("numbered") / "corpus"
    return open_corpus(write_corpus(folder, sizes, levels=(1, 6, 24), shard_bytes=2048))


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that a tiny model learns from: 12 leaves in 3 domains at level 1.

    Each domain counts through a third of the vocabulary of its own with a stride of its own; its leaves
    differ in how often a token is noise. The target `alpha` is text like domain 1, `beta` like domain 2.
    """
    rng = np.random.default_rng(7)
    num_leaves = 3 * LEAVES_PER_DOMAIN
    alpha_histogram, beta_histogram = np.zeros(num_leaves), np.zeros(num_leaves)
    alpha_histogram[LEAVES_PER_DOMAIN : 2 * LEAVES_PER_DOMAIN] = 1 / LEAVES_PER_DOMAIN
    beta_histogram[2 * LEAVES_PER_DOMAIN :] = 1 / LEAVES_PER_DOMAIN
    boundaries_inside = [leaf for leaf in range(1, num_leaves) if leaf % LEAVES_PER_DOMAIN]
    return write_corpus(
        tmp_path_factory.mktemp("tiny") / "corpus",
        [20, 30, 10, 24] * 3,
        levels=(1, 3, num_leaves),
        split_order=[LEAVES_PER_DOMAIN, 2 * LEAVES_PER_DOMAIN, *boundaries_inside],
        tokens=lambda leaves: _counting_text(leaves, rng),
        tokens_per_sample=TOKENS_PER_SAMPLE,
        vocab_size=VOCAB_SIZE,
        targets={
            "alpha": (_domain_text(1, 24, rng), _domain_text(1, 32, rng), alpha_histogram),
            "beta": (_domain_text(2, 24, rng), _domain_text(2, 32, rng), beta_histogram),
        },
        heldout=_counting_text(rng.integers(0, num_leaves, 32), rng),
    )


def _domain_text(domain: int, count: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    return _counting_text(domain * LEAVES_PER_DOMAIN + np.arange(count) % LEAVES_PER_DOMAIN, rng)


def _counting_text(leaves: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Blocks (n, TOKENS_PER_SAMPLE) that count modulo 20 inside their domain's range of tokens."""
    domain, leaf = np.divmod(leaves, LEAVES_PER_DOMAIN)
    start = rng.integers(0, 20, len(leaves))
    count = start[:, None] + np.arange(TOKENS_PER_SAMPLE) * np.array([1, 3, 7])[domain][:, None]
    noise = rng.random(count.shape) < (0.05 * leaf)[:, None]
    count = np.where(noise, rng.integers(0, 20, count.shape), count)
    return (2 + 20 * domain[:, None] + count % 20).astype(np.uint16)
