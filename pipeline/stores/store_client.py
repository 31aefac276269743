"""The client library's side of a store: when a process may use it, and how a client is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipeline.errors import StorageError
from pipeline.stores.credentials import allows_plain_http, client_settings
from pipeline.stores.store_failures import scrubbed

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

_process_of_first_use: int | None = None


def claim_process(url: str) -> None:
    """Note that this process uses the client, whose threads do not survive a fork.

    Raises `StorageError` in a process that was forked after its parent did so: a request would hang in it.
    """
    global _process_of_first_use
    if _process_of_first_use is None:
        _process_of_first_use = os.getpid()
    if _process_of_first_use != os.getpid():
        raise StorageError(
            f"an object store was read before this process was forked, and reading {url} in it would hang. "
            'Start worker processes with multiprocessing_context="forkserver" or "spawn" (an argument of '
            "DataLoader), or open the corpus only in the workers."
        )


def connect(
    url: str, *, connect_seconds: float, silence_seconds: float | None, total_seconds: float
) -> Client:
    """A client for one prefix that makes each request once.

    `silence_seconds` (None: any) is how long nothing may come, `total_seconds` how long a request may take.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError:
        raise StorageError(
            f"reading {url} takes the package obstore: pip install obstore"
        ) from None
    scheme = url.partition("://")[0]
    settings = client_settings(scheme)
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=connect_seconds),
        "timeout": timedelta(seconds=total_seconds),
        "allow_http": allows_plain_http(scheme, settings),
    }
    if silence_seconds is not None:
        options["read_timeout"] = timedelta(seconds=silence_seconds)
    make: Callable[..., Client] = from_url
    try:
        return make(url, client_options=options, retry_config={"max_retries": 0}, **settings)
    except (BaseError, ValueError) as error:
        reason = scrubbed(str(error))
    raise StorageError(f"{url} cannot be opened: {reason}.")
