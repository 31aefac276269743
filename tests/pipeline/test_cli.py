from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import BraidstreamError


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    commands = "build add suggest import push pull inspect train compare"
    for command in commands.split():
        assert f"  {command} " in text


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["biuld"]) == 2
    assert "no command 'biuld'" in capsys.readouterr().err


def test_every_command_can_be_loaded_and_explains_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for entry in entry_points(group="braidstream.commands"):
        with pytest.raises(SystemExit) as stopped:
            entry.load()(["--help"])
        assert stopped.value.code == 0
        assert "{None" not in capsys.readouterr().out, "an option that may be left out is left out"


def test_a_missing_extra_is_named() -> None:
    entry = EntryPoint("build", "a_package_nobody_has:main", "braidstream.commands")
    with pytest.raises(BraidstreamError, match=r"pip install 'braidstream\[build\]'"):
        cli.run(entry, [])


def writes_to_a_full_disk(arguments: list[str]) -> int:
    with Path(arguments[0]).open("wb", buffering=0) as full:
        return full.write(b"x") and 0


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = EntryPoint("fill", f"{__name__}:writes_to_a_full_disk", "braidstream.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    assert cli.main(["fill", "/dev/full"]) == 2
    assert capsys.readouterr().err.startswith("error: No space left on device. Free some space")
    assert cli.main(["fill", "/dev/full/corpus"]) == 2
    assert "Not a directory. What should be a folder is a file" in capsys.readouterr().err
    assert cli.main(["fill", "n" * 999]) == 2
    assert "File name too long. Give a place with shorter names" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):  # no refusal of the machine, so a bug
        cli.main(["fill", "/no/such/place"])


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pipeline.cli", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_pipeline_needs_only_the_core_dependencies() -> None:
    code = (
        "import sys, pipeline; heavy = {'streaming', 'sklearn', 'sentence_transformers', 'rich', "
        "'tyro', 'scipy', 'pyarrow', 'clustering', 'trainer'} & set(sys.modules); sys.exit(str(heavy) "
        "if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["clustering", "pipeline", "trainer"])
def test_no_other_distribution_brings_a_package_of_our_names(name: str) -> None:
    """Plain top-level names are a promise to keep an eye on: say so when someone else ships one."""
    others = {
        distribution.metadata["Name"]
        for distribution in distributions()
        if distribution.metadata["Name"] != "braidstream"
        and any(
            len(path.parts) > 1 and path.parts[0] == name and path.suffix == ".py"
            for path in distribution.files or ()
        )
    }
    assert not others, f"{sorted(others)} also install a top-level package named {name!r}"
