"""What an object store's refusal means: a reason for people, and whether another attempt may help.

The client's own messages are not passed on. They quote the server's answer and the address that was asked,
and with some stores those hold access key ids or signed queries. What leaves this file is a status, an error
code, or a message from which addresses' queries and every secret of the environment were removed.
"""

from __future__ import annotations

import os
import re

from pipeline.errors import MissingObjectError
from pipeline.stores.retries import RequestError

_STATUS = re.compile(r"status code: (\d{3})((?: [A-Za-z-]+)*)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_KIND = re.compile(r"\bkind: (Timeout|Connect|Interrupted)\b")
_MISSING_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_METADATA_SERVICE = re.compile(r"169\.254\.\d+\.\d+|metadata\.google\.internal")
_SECRET_VARIABLE = re.compile(
    r"KEY|SECRET|TOKEN|SAS|PASSWORD|CREDENTIAL|SERVICE_ACCOUNT|CONNECTION"
)
_TRANSIENT_CODES = {"RequestTimeout", "SlowDown", "ServerBusy", "OperationTimedOut", "BadDigest"}
_TRANSIENT_STATUSES = {408, 425, 429}
_NO_SUCH_REQUEST = {405, 501}
_NOT_OFFERED = {505}

NO_CREDENTIALS = (
    "no credentials were found, neither in the environment nor in the cloud's own files, and this "
    "machine has no metadata service that gives any"
)


def is_past_the_end(error: Exception) -> bool:
    """Whether the range began where the object has already ended, as every range of an empty one does."""
    return "status code: 416" in str(error)


def explain(error: Exception, *, request_seconds: float) -> RequestError:
    """The meaning of an exception that obstore raised for one request."""
    text = str(error)
    found = _STATUS.search(text)
    code = _CODE.search(text)
    status = int(found[1]) if found else 0
    answer = f"the store answered {status}{found[2]}" if found else ""
    if found and code:
        answer += f" ({code[1]})"
    if _METADATA_SERVICE.search(text):
        return RequestError(NO_CREDENTIALS, transient=False)
    if isinstance(error, FileNotFoundError) or status == 404:
        if _MISSING_BUCKET.search(text):
            return RequestError(
                "there is no such bucket. Check its name and the store's endpoint, or make the bucket first",
                transient=False,
            )
        return RequestError("there is no such object", transient=False, kind=MissingObjectError)
    if status in (401, 403):
        return RequestError(
            f"{answer}: the credentials are wrong or lack the right to do this", transient=False
        )
    if status == 416:
        return RequestError("the object ends before this range", transient=False)
    if status in _NO_SUCH_REQUEST:
        return RequestError(
            f"{answer}: it has no such request. Behind http(s) a web server hands out files by name; to list "
            "and to write takes s3://, gs:// or az://",
            transient=False,
        )
    if status:
        may_pass = status in _TRANSIENT_STATUSES or (status >= 500 and status not in _NOT_OFFERED)
        return RequestError(
            answer, transient=may_pass or bool(code and code[1] in _TRANSIENT_CODES)
        )
    if "RangeNotSupported" in text:
        return RequestError(
            "the server sends whole files only; a corpus needs one that serves byte ranges "
            "(nginx, Caddy and every object store do)",
            transient=False,
        )
    if type(error).__name__ == "NotSupportedError":
        return RequestError(
            f"this kind of store cannot do that ({scrubbed(text)})", transient=False
        )
    if "BareRedirect" in text:
        return RequestError(
            "the bucket is in another region than the one configured", transient=False
        )
    kind = _KIND.search(text)
    reasons = {
        "Timeout": f"nothing came for {request_seconds:g} s",
        "Connect": "the server takes no connections. Check the address, and the endpoint where one is set "
        "(such as AWS_ENDPOINT_URL)",
        "Interrupted": "the connection broke off before everything had come",
    }
    return RequestError(reasons[kind[1]] if kind else scrubbed(text), transient=True)


def scrubbed(text: str) -> str:
    """The first line of a client's message without queries of addresses and without secrets."""
    line = text.splitlines()[0][:300] if text else "no message"
    line = re.sub(r"\?\S*", "", line)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_VARIABLE.search(name.upper()):
            line = line.replace(value, "***")
    return line
