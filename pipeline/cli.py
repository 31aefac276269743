"""The `braidstream` command: finds its sub-commands by entry point, so it imports none of them.

An installed package adds a sub-command by declaring `name = "module:function"` in the entry-point
group `braidstream.commands`; the function takes the remaining arguments and returns an exit code.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version

from pipeline.errors import BraidstreamError

COMMANDS = {
    "build": "raw text -> embeddings -> cluster tree -> a corpus folder that streams",
    "suggest": "how many domains to start from: stability, variance, tokens per domain",
    "add": "new documents -> the leaves of a corpus that is there, as a new version of it",
    "import": "MDS folders or tar shards, one set per domain -> a corpus, without copying them",
    "push": "copy a corpus to an object store: verified, resumable, manifest last",
    "pull": "copy a corpus from an object store into a folder, the same way",
    "inspect": "what the domains of a corpus are: sizes, keywords, examples",
    "train": "train a model on a mixture that a mixer steers while training runs",
    "compare": "run a grid of granularities, mixers, targets and seeds; one report",
}
EXTRA_OF_COMMAND = {
    "build": "build",
    "suggest": "build",
    "add": "build",
    "inspect": "build",
    "train": "train",
    "compare": "report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return its exit code.

    That is 2 for a user's error, 130 after Ctrl-C, 141 where nobody reads the output any more.
    """
    try:
        try:
            return _main(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return 141


def _output_is_closed() -> bool:
    """Whether it is the standard output that broke, as under `| head`; what is left of it is dropped."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    found = {entry.name: entry for entry in entry_points(group="braidstream.commands")}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(found))
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"braidstream {version('braidstream')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in found:
        print(f"error: there is no command {name!r}.\n\n{usage(found)}", file=sys.stderr)
        return 2
    try:
        return run(found[name], rest)
    except BraidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {place}{error.strerror}. {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped.", file=sys.stderr)
        return 130


def run(entry: EntryPoint, arguments: list[str]) -> int:
    """Load one sub-command and call it; a missing extra becomes an error that names the extra."""
    try:
        command = entry.load()
        return int(command(arguments))
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_COMMAND.get(entry.name)
        if extra is None or error.name is None or error.name.split(".")[0] in _OURS:
            raise
        raise BraidstreamError(
            f"`braidstream {entry.name}` needs the package {error.name!r}, which is not installed. "
            f"Install the extra that brings it: pip install 'braidstream[{extra}]'"
        ) from error


def usage(found: dict[str, EntryPoint]) -> str:
    """The text of `braidstream --help`."""
    width = max(len(name) for name in found) if found else 0
    lines = [
        f"  {name:<{width}}  {COMMANDS.get(name, entry.value)}" for name, entry in found.items()
    ]
    lines.sort(key=lambda line: _order(line.split()[0]))
    return "\n".join(
        [
            "usage: braidstream COMMAND [options]",
            "",
            "Train language models on a mixture of domains that changes while training runs.",
            "",
            *lines,
            "",
            "`braidstream COMMAND --help` explains one command. The usual order: build, inspect, compare.",
        ]
    )


def _order(name: str) -> int:
    names = list(COMMANDS)
    return names.index(name) if name in names else len(names)


_OURS = frozenset({"pipeline", "clustering", "trainer"})
_GO_ON = "Then run the same command again: it goes on where it stopped."
_NO_RIGHT = "Give another place, or the right to read and write there."
_REMEDIES = {
    errno.ENOSPC: f"Free some space, or give another place. {_GO_ON}",
    errno.EDQUOT: f"Free some of your quota, or give another place. {_GO_ON}",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENOTDIR: "What should be a folder is a file: give another place.",
    errno.ENAMETOOLONG: "Give a place with shorter names, such as --out.",
    errno.EIO: f"The disk or its mount fails: look at it, or give another place. {_GO_ON}",
}
"""What a machine refuses, wherever in a command that is."""

if __name__ == "__main__":
    sys.exit(main())
