"""The demo's text: known kinds, enough of each, and a target set that the corpus does not contain."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from clustering.config import TargetSource
from tests.conftest import EXAMPLES

SUBJECTS = {
    "bread": "knead dough flour oven crust yeast bake loaf",
    "sailing": "harbor anchor mast sail knot tide rudder deck",
    "chess": "bishop rook gambit castle pawn endgame check knight",
    "gardens": "soil seed prune bloom compost hedge root petal",
}
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Imports a script of examples/, which import each other as `python examples/demo.py` lets them."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def texts(path: str | Path) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]


def write_subjects(folder: Path, sizes: dict[str, int]) -> Path:
    """One file per subject, of random sentences about it."""
    rng = random.Random(0)
    folder.mkdir()
    for subject, size in sizes.items():
        words = SUBJECTS[subject].split()
        lines = [json.dumps({"text": " ".join(rng.choices(words, k=40))}) for _ in range(size)]
        (folder / f"{subject}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_installed_text_has_kinds_and_a_target_of_its_own(script: Script, tmp_path: Path) -> None:
    installed = script("installed_text")
    task = installed.installed_task(tmp_path)
    files = sorted((tmp_path / "text").glob("*.jsonl"))
    assert len(files) >= installed.FEWEST_KINDS
    corpus = [text for path in files for text in texts(path)]
    train, test = texts(task.train), texts(task.test)
    assert 1_500 <= len(corpus) <= 4_000
    assert 60 <= len(train) == len(test) <= 70
    assert len({*corpus, *train, *test}) == len(corpus) + len(train) + len(test), "nothing twice"
    assert all(
        installed.SHORTEST <= len(text) <= installed.LONGEST for text in (*corpus, *train, *test)
    )
    assert (tmp_path / "text" / f"{task.name}.jsonl").exists(), (
        "some of the kind stays in the corpus"
    )
    source = TargetSource.parse(f"{task.name}={task.train},{task.test}")
    assert source.name == installed.TARGET


def test_kinds_are_the_same_every_time(script: Script) -> None:
    installed = script("installed_text")
    maps = next(kind for kind in installed.KINDS if kind.name == "maps")
    assert list(maps.collect()) == list(maps.collect())


def test_a_kind_whose_package_is_missing_is_left_out(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = script("installed_text")
    kinds = {kind.name: kind for kind in installed.KINDS}
    absent = installed.Kind(
        name="absent", collect=lambda: installed.docstrings("no_such_package/inner")
    )
    monkeypatch.setattr(installed, "KINDS", (kinds["maps"], absent))
    monkeypatch.setattr(installed, "FEWEST_KINDS", 1)
    assert list(installed.collect_kinds()) == ["maps"]
    monkeypatch.setattr(installed, "FEWEST_KINDS", 2)
    with pytest.raises(SystemExit, match=r"found 1 kinds of text \(maps\).*make install"):
        installed.collect_kinds()


def test_repeated_passages_are_left_out(script: Script) -> None:
    distinct = script("installed_text").distinct
    licence = "\n".join(f"condition {i} of a licence that many packages carry" for i in range(9))
    other = "a text of its own\nwith other lines"
    assert list(distinct([licence, other, f"copyright somebody else\n{licence}"])) == [
        licence,
        other,
    ]


def test_service_documentation_becomes_prose(script: Script) -> None:
    prose = script("installed_text").prose
    assert prose(
        ["<p>Creates a <i>fleet</i> of A&amp;B.</p>", "<ul><li>one</li> <li>two</li></ul>"]
    ) == ("Creates a fleet of A&B.\none\ntwo")


def test_a_target_is_found_in_own_text(script: Script, tmp_path: Path) -> None:
    corpus = write_subjects(
        tmp_path / "mine", {"bread": 300, "sailing": 60, "chess": 120, "gardens": 200}
    )
    task = script("own_text").own_task(str(corpus), tmp_path / "out")
    train, test = texts(task.train), texts(task.test)
    everything = {text for path in corpus.glob("*.jsonl") for text in texts(path)}
    assert train
    assert len(train) == len(test) <= 70
    assert not set(train) & set(test)
    assert {*train, *test} <= everything
    words = task.name.split("-")
    subjects = [subject for subject, text in SUBJECTS.items() if set(words) <= set(text.split())]
    assert len(subjects) == 1, f"{task.name} names one subject"
    held_out = set(" ".join(train + test).split())
    assert held_out == set(SUBJECTS[subjects[0]].split())
    assert script("demo_task").Task.load(tmp_path / "out") is None
    task.save(tmp_path / "out")
    assert script("demo_task").Task.load(tmp_path / "out") == task


def test_texts_of_one_name_have_demos_of_their_own(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = script("demo").demo_folder
    one, other = (folder(tmp_path, tmp_path / where / "data.jsonl") for where in ("a", "b"))
    assert one != other
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert folder(tmp_path, Path("data.jsonl")) == one
    assert folder(tmp_path, None) == tmp_path


def test_own_text_that_is_too_small_is_an_error(script: Script, tmp_path: Path) -> None:
    corpus = write_subjects(tmp_path / "mine", {"bread": 20})
    with pytest.raises(SystemExit, match="has 20 different documents, and the demo needs 300"):
        script("own_text").own_task(str(corpus), tmp_path / "out")


def test_the_script_explains_itself() -> None:
    shown = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "text that came with the installation" in shown.stdout
    wrong = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--out", "x", "--target", "a=b,c"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "pass --corpus too" in wrong.stderr
