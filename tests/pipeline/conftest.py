"""The real stores on loopback, for the tests of everything that reads from one."""

from tests.servers.fixtures import (  # noqa: F401
    azure_server,
    fault_proxy,
    file_server,
    gcs_server,
    new_prefix,
    s3,
    s3_server,
)
