"""Where a store's credentials, endpoint and region come from: each cloud's usual places, nothing of ours.

- **S3**: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
  `AWS_ENDPOINT_URL[_S3]`, `AWS_SKIP_SIGNATURE` (public buckets), container and web-identity variables;
  with boto3 installed also `AWS_PROFILE`, `~/.aws/config`, `~/.aws/credentials` and single sign-on.
- **GCS**: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's application default credentials, the metadata server;
  `STORAGE_EMULATOR_HOST` for an emulator, `GOOGLE_SKIP_SIGNATURE` for public buckets.
- **Azure**: `AZURE_STORAGE_ACCOUNT[_NAME]` with `AZURE_STORAGE_[ACCOUNT_]KEY`, `AZURE_STORAGE_SAS_TOKEN`, or
  client, federated and managed identities; or one `AZURE_STORAGE_CONNECTION_STRING`.

The client reads most of these itself; here is what it does not read. A value never reaches a message.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError


def client_settings(scheme: str) -> dict[str, Any]:
    """Keyword arguments for obstore's constructor beyond what it finds in the environment itself."""
    if scheme == "s3":
        return _s3()
    if scheme == "gs":
        return _gcs()
    if scheme == "az":
        return _azure()
    return {}


def allows_plain_http(scheme: str, settings: dict[str, Any]) -> bool:
    """Whether the user named an endpoint without encryption; only then may the client talk to one.

    Raises `StorageError` for an endpoint of neither kind, of which the client would panic.
    """
    endpoints = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURITE_BLOB_STORAGE_URL"),
    }.get(scheme, ())
    given = [os.environ.get(name, "") for name in endpoints]
    for name, value in zip(endpoints, given, strict=True):
        if value and not value.startswith(("http://", "https://")):
            raise StorageError(f"{name} must begin with https:// or http://. Write it out.")
    given += [str(settings.get("config", {}).get(key, "")) for key in ("endpoint", "base_url")]
    return scheme == "http" or any(value.startswith("http://") for value in given)


def _s3() -> dict[str, Any]:
    # One object per request, also when deleting: some S3-compatible stores lack the bulk call. And a checksum
    # with every part that is uploaded: a store need not check the one in the signature, but it does this one.
    config: dict[str, Any] = {"disable_bulk_delete": True}
    if not os.environ.get("AWS_CHECKSUM_ALGORITHM"):
        config["checksum_algorithm"] = "SHA256"
    client_reads = (
        "AWS_ACCESS_KEY_ID",
        "AWS_SKIP_SIGNATURE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if any(os.environ.get(name) for name in client_reads):
        return {"config": config}
    try:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        from botocore.session import Session  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        if profile := _aws_profile():
            raise StorageError(
                f"the S3 credentials are in {profile}, which takes boto3 to read. Install it (pip "
                "install boto3), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from None
        return {"config": config}
    session = Session()
    try:
        if session.get_credentials() is None:
            raise StorageError(
                "there are no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose "
                "a profile with AWS_PROFILE, or set AWS_SKIP_SIGNATURE=true for a public bucket."
            )
        for key, value in (
            ("region", session.get_config_variable("region")),
            ("endpoint", session.get_scoped_config().get("endpoint_url")),
        ):
            if value:
                config[key] = value
    except BotoCoreError as error:
        raise StorageError(f"the AWS configuration cannot be used: {error}.") from None
    return {"config": config, "credential_provider": Boto3CredentialProvider(session)}


def _aws_profile() -> str | None:
    """Where a profile is configured, for the error when boto3 is missing."""
    if os.environ.get("AWS_PROFILE"):
        return "the profile that AWS_PROFILE names"
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    return str(file) if file.exists() else None


def _gcs() -> dict[str, Any]:
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return {}
    address = emulator if "://" in emulator else f"http://{emulator}"
    return {"config": {"base_url": address, "skip_signature": True}}


def _azure() -> dict[str, Any]:
    config: dict[str, Any] = {}
    parts = dict(
        part.split("=", 1)
        for part in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        if "=" in part
    )
    for key, in_string, variables in (
        ("account_name", "AccountName", ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")),
        ("account_key", "AccountKey", ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")),
        ("sas_key", "SharedAccessSignature", ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN")),
        ("endpoint", "BlobEndpoint", ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")),
    ):
        value = next((os.environ[name] for name in variables if os.environ.get(name)), None)
        if value or in_string in parts:
            config[key] = value or parts[in_string]
    if "account_name" not in config and not os.environ.get("AZURE_STORAGE_USE_EMULATOR"):
        raise StorageError(
            "an az:// address needs the name of the storage account: set AZURE_STORAGE_ACCOUNT_NAME, or "
            "AZURE_STORAGE_CONNECTION_STRING."
        )
    return {"config": config}
