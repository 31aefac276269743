"""One prefix of an object store: ranged reads that are checked, retried and kept inside the prefix.

All retrying is ours (`retries.py`); the client's own is switched off. It would not repeat a body that breaks
off half-way unless the server sends an entity tag, nor one that is short or wrong, and two policies
multiply. A request never asks for more than `PART_BYTES`, so one time limit fits all: it is cut off when
nothing comes for `request_seconds`, or when it is slower than `SLOWEST_BYTES_PER_SECOND` all in all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import StorageError
from pipeline.stores.address import inside, normalized
from pipeline.stores.retries import RequestError, Retries, keep_trying
from pipeline.stores.store_client import claim_process, connect
from pipeline.stores.store_failures import explain, is_past_the_end
from pipeline.stores.uploads import checked_parts

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

Check = Callable[[bytes], str | None]
"""None when the content is right, else what is wrong with it: `expected ..., found ...`."""

T = TypeVar("T")

PART_BYTES = 1 << 23
SLOWEST_BYTES_PER_SECOND = 1 << 16
PARTS_AT_ONCE = 2
"""Parts of one object that are uploaded side by side."""
SHA256_ATTRIBUTE = "sha256"
"""Name of the metadata field in which an object carries its own checksum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """What a store says about one object without sending it."""

    bytes: int
    sha256: str | None
    """The checksum that the object was written with; None in a listing, or when another tool wrote it."""
    mark: str
    """What changes when the object does: its etag, or when it was written."""


class ObjectStore:
    """The objects under one address: `s3://bucket/prefix`, `gs://…`, `az://container/…`, `http(s)://…`.

    Names are relative to the prefix and cannot leave it. Safe to use from many threads. Pickles as its
    address and policy; each process makes its own client at its first request. A process that was *forked*
    after such a request gets a `StorageError`, because the client would hang there.

    Every method raises `StorageError`, which names the object, the range, what was expected and what came.
    """

    def __init__(self, url: str, *, retries: Retries | None = None) -> None:
        self.url = normalized(url)
        """Safe to print: an address that carries a password or a token is refused."""
        self.retries = retries or Retries()
        self._begin()

    def _begin(self) -> None:
        self.retried = 0
        """Requests of this process that were repeated."""
        self._clients: dict[bool, Client] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "retries": self.retries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def address(self, name: str) -> str:
        """The full address of an object, for messages."""
        return f"{self.url}/{inside(name)}"

    def size(self, name: str) -> int:
        """Length of an object in bytes."""
        found = self.find(name)
        if found is None:
            raise StorageError(f"there is no object {self.address(name)}, or not even its bucket.")
        return found.bytes

    def find(self, name: str) -> ObjectFacts | None:
        """Length, mark and, where known, checksum of an object; None when there is none of this name."""

        def ask(client: Client) -> ObjectFacts | None:
            import obstore

            try:
                found = obstore.get(client, name, options={"head": True})
            except FileNotFoundError:
                return None
            sha256 = found.attributes.get(SHA256_ATTRIBUTE)
            return ObjectFacts(bytes=found.meta["size"], sha256=sha256, mark=_mark(found.meta))

        return self._request(ask, f"cannot look up {self.address(name)}")

    def read(self, name: str, *, check: Check | None = None) -> bytes:
        """The whole content of a small object."""
        what = f"cannot read {self.address(name)}"

        def whole() -> bytes:
            start = partial(_get, name=name, start=0, end=PART_BYTES)
            content, size = self._request(start, what)
            if size > PART_BYTES:
                content += self._parts(name, PART_BYTES, size)
            return _checked(content, check)

        return self._try(whole, what)

    def read_range(self, name: str, start: int, end: int, *, check: Check | None = None) -> bytes:
        """Bytes `start` up to but not including `end`: exactly that many, or an error."""
        if not 0 <= start <= end:
            raise ValueError(f"a range has 0 <= start <= end; found {start} and {end}")
        what = self._what(name, start, end)
        if 0 < end - start <= PART_BYTES:
            return self._request(
                lambda client: _checked(_get_exactly(client, name, start, end), check), what
            )
        return self._try(lambda: _checked(self._parts(name, start, end), check), what)

    def write(
        self,
        name: str,
        content: bytes | Path,
        *,
        sha256: str | None = None,
        on_position: Callable[[int], None] | None = None,
    ) -> None:
        """Write one object, whole or not at all; a file goes in parts and is never held in memory.

        `sha256` (hex) is what the content should have: it is computed while the content is sent, content
        that differs is never committed, and the object carries it from then on (`find`). `on_position`
        is told how many bytes were handed to the client; after a failed attempt it starts over at 0. What it
        raises stops the upload.
        """
        address = self.address(name)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size

        def put(client: Client) -> None:
            import obstore

            pieces = checked_parts(
                content, PART_BYTES, address=address, sha256=sha256, on_position=on_position
            )
            obstore.put(
                client,
                name,
                pieces if size > PART_BYTES else b"".join(pieces),
                attributes=None if sha256 is None else {SHA256_ATTRIBUTE: sha256},
                use_multipart=size > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

        self._request(put, f"cannot write {address} ({size:,} bytes)", writing=True)

    def list(self) -> Iterator[tuple[str, int]]:
        """Name and length in bytes of every object under the prefix."""
        for name, facts in self.listed().items():
            yield name, facts.bytes

    def marks(self) -> dict[str, str]:
        """By name, what changes when the object does (see `ObjectFacts`)."""
        return {name: facts.mark for name, facts in self.listed().items()}

    def listed(self) -> dict[str, ObjectFacts]:
        """Length and mark of every object under the prefix, by name."""

        def everything(client: Client) -> Sequence[Any]:
            import obstore

            return [found for page in obstore.list(client) for found in page]

        return {
            found["path"]: ObjectFacts(bytes=found["size"], sha256=None, mark=_mark(found))
            for found in self._request(everything, f"cannot list {self.url}")
        }

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""

        def remove(client: Client) -> None:
            import obstore

            try:
                obstore.delete(client, name)
            except FileNotFoundError:
                return

        self._request(remove, f"cannot delete {self.address(name)}")

    def _parts(self, name: str, start: int, end: int) -> bytes:
        """A long range, part after part, each with attempts of its own."""
        parts = []
        for begin in range(start, end, PART_BYTES):
            stop = min(begin + PART_BYTES, end)
            get = partial(_get_exactly, name=name, start=begin, end=stop)
            parts.append(self._request(get, self._what(name, begin, stop)))
        return b"".join(parts)

    def _what(self, name: str, start: int, end: int) -> str:
        return f"cannot read {self.address(name)}, bytes {start:,} to {end:,}"

    def _request(self, ask: Callable[[Client], T], what: str, *, writing: bool = False) -> T:
        """One request, tried again as the policy says; the client's exceptions become ours."""
        client = self._client(writing)
        from obstore.exceptions import BaseError

        def once() -> T:
            try:
                return ask(client)
            except (BaseError, FileNotFoundError) as error:
                raise explain(error, request_seconds=self.retries.request_seconds) from None

        return self._try(once, what)

    def _try(self, action: Callable[[], T], what: str) -> T:
        return keep_trying(action, what=what, policy=self.retries, on_retry=self._count_retry)

    def _count_retry(self) -> None:
        with self._lock:
            self.retried += 1

    def _client(self, writing: bool) -> Client:
        """This process's client. Writing has one of its own: sending a part is no silence."""
        claim_process(self.url)
        with self._lock:
            if writing not in self._clients:
                silence = self.retries.request_seconds
                self._clients[writing] = connect(
                    self.url,
                    connect_seconds=silence,
                    silence_seconds=None if writing else silence,
                    total_seconds=silence + PART_BYTES / SLOWEST_BYTES_PER_SECOND,
                )
            return self._clients[writing]


def _mark(meta: Any) -> str:
    return str(meta.get("e_tag") or meta["last_modified"])


def _get(client: Client, name: str, start: int, end: int) -> tuple[bytes, int]:
    """One request: what the object has of a range, and the object's length."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        found = obstore.get(client, name, options={"range": (start, end)})
        content = found.bytes().to_bytes()
    except BaseError as error:
        if start == 0 and is_past_the_end(error):
            return b"", 0
        raise
    size = found.meta["size"]
    expected = min(end, size) - start
    if len(content) != expected:
        raise RequestError(f"expected {expected:,} bytes, found {len(content):,}", transient=True)
    return content, size


def _get_exactly(client: Client, name: str, start: int, end: int) -> bytes:
    content, size = _get(client, name, start, end)
    if size < end:
        raise RequestError(
            f"expected {end - start:,} bytes, found {len(content):,}: the object has only {size:,} "
            "bytes. It was cut off or replaced; write it again",
            transient=False,
        )
    return content


def _checked(content: bytes, check: Check | None) -> bytes:
    problem = check(content) if check else None
    if problem:
        raise RequestError(problem, transient=True)
    return content
