"""`braidstream push` and `braidstream pull`: a corpus to an object store, and back."""

from __future__ import annotations

import argparse
import time

from pipeline.transfer.pull import pull as pull_corpus
from pipeline.transfer.push import push as push_corpus
from pipeline.transfer.transfer import CONNECTIONS, Transferred
from pipeline.transfer.transfer_progress import TransferLine, amount

_ADDRESS = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix{}"
_CREDENTIALS = """\
Credentials, endpoint and region come from where each cloud's own tools look for them:
  S3     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; with boto3
         installed also AWS_PROFILE and ~/.aws; AWS_SKIP_SIGNATURE=true for public buckets
  GCS    GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`
  Azure  AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN,
         or AZURE_STORAGE_CONNECTION_STRING
"""
_ORDER = """\
The manifest comes last, so a reader sees the whole corpus or none. Stopped by whatever,
the same command continues; what is there with the right checksum is not copied again.
"""


def push(argv: list[str]) -> int:
    """Run `braidstream push`."""
    parser = _parser("push", "Copy a corpus folder to an object store.")
    parser.add_argument("folder", metavar="LOCAL", help="corpus folder, as `build` writes it")
    parser.add_argument("url", metavar="URL", help=_ADDRESS.format(""))
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read every object back and compare its checksum, also those that were there already",
    )
    _add_common(parser)
    given = parser.parse_args(argv)
    started = time.monotonic()
    with TransferLine("push") as line:
        done = push_corpus(
            given.folder,
            given.url,
            force=given.force,
            verify=given.verify,
            connections=given.connections,
            meter=line,
        )
    print(_summary(done, given.url.rstrip("/"), time.monotonic() - started))
    return 0


def pull(argv: list[str]) -> int:
    """Run `braidstream pull`."""
    parser = _parser("pull", "Copy a corpus from an object store into a folder.")
    parser.add_argument("url", metavar="URL", help=_ADDRESS.format(", or http(s)://host/folder"))
    parser.add_argument("folder", metavar="LOCAL", help="folder to put it into; made if need be")
    parser.add_argument(
        "--version",
        type=_at_least_one,
        metavar="N",
        help="an earlier version, from before documents were added (default: the newest)",
    )
    _add_common(parser)
    given = parser.parse_args(argv)
    started = time.monotonic()
    with TransferLine("pull") as line:
        done = pull_corpus(
            given.url,
            given.folder,
            version=given.version,
            force=given.force,
            connections=given.connections,
            meter=line,
        )
    print(_summary(done, given.folder, time.monotonic() - started))
    return 0


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"braidstream {name}",
        description=f"{description}\n\n{_ORDER}",
        epilog=_CREDENTIALS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace another corpus, or other files of the same names, at the destination; what the "
        "new corpus does not name stays",
    )
    parser.add_argument(
        "--connections",
        type=_at_least_one,
        default=CONNECTIONS,
        metavar="N",
        help="files that are copied side by side (default: %(default)s)",
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _summary(done: Transferred, place: str, seconds: float) -> str:
    copied = f"copied {done.copied_files:,} files ({amount(done.copied_bytes)}) in {seconds:.1f} s"
    if done.copied_bytes:
        copied += f", {amount(done.copied_bytes / seconds)}/s"
    if done.kept_files:
        copied += f"; {done.kept_files:,} files ({amount(done.kept_bytes)}) were there already"
    return f"{copied}\ncorpus: {place}"
