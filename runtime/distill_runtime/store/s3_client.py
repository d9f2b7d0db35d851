"""The boto3 client of a storage section."""

import os
from typing import Any
from urllib.parse import urlsplit

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config

from distill_runtime.contract.sections import Storage
from distill_runtime.store.s3_errors import store_errors

MIB = 2**20
MULTIPART_BYTES = 64 * MIB
"""From this size on, objects travel in parts."""
PART_BYTES = 16 * MIB
"""Size of a part. The client makes parts larger where an object would need more than 10,000 of them."""
TRANSFERS = 8
"""Parts of one object on their way at once."""
CONNECTIONS = 64
"""Connections that are kept open: several threads, each with `TRANSFERS` parts."""
CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 6
"""Tries of one request. The client waits up to 1, 2, 4, 8 and 16 s between them, half of it on average."""


def endpoint_of(storage: Storage) -> str | None:
    """The server's address from the section, else from the environment; None for AWS itself."""
    found = storage.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return found.rstrip("/") if found else None


def addressing_style(storage: Storage, endpoint: str | None) -> str:
    """`path` puts the bucket into the path, `virtual` into the host name; `auto` leaves it to boto3."""
    if storage.path_style is not None:
        return "path" if storage.path_style else "virtual"
    host = urlsplit(endpoint).hostname if endpoint else None
    if host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return "auto"
    return "path"


def public_address(endpoint: str | None) -> str:
    """The endpoint as messages may show it: without a user's name, password or query."""
    if endpoint is None:
        return "AWS"
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def make_client(storage: Storage, *, attempts: int = ATTEMPTS) -> Any:
    """A client that several threads may use. Credentials come from the default chain, which renews them itself.

    Raises
    ------
    UserError
        The endpoint, the region or the credentials' form is wrong.
    """
    endpoint = endpoint_of(storage)
    checksums = "when_supported" if storage.checksums == "whenSupported" else "when_required"
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        s3={"addressing_style": addressing_style(storage, endpoint)},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    with store_errors(f"the S3 server at {public_address(endpoint)}", ""):
        session = Session()
        region = storage.region or session.region_name or os.environ.get("AWS_REGION")
        if region is None and endpoint is not None:
            region = "us-east-1"
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def transfer_config(multipart_bytes: int = MULTIPART_BYTES) -> TransferConfig:
    """How large objects travel."""
    return TransferConfig(
        multipart_threshold=multipart_bytes,
        multipart_chunksize=min(PART_BYTES, max(5 * MIB, multipart_bytes)),
        max_concurrency=TRANSFERS,
        preferred_transfer_client="classic",
    )
