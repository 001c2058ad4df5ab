"""Object stores by URL: `s3://bucket/prefix`, `gs://…`, `az://…`. What is secret comes from the environment.

The library reads the usual variables itself. Here: the CA file, plain http only where the endpoint says so,
and refusals that name the variable.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from coeval.repository.errors import InvalidArgument
from coeval.repository.object_errors import first_words
from coeval.repository.object_store import (
    CONNECT_SECONDS,
    LONGEST_SECONDS,
    REQUEST_SECONDS,
    ObjectStore,
    Patience,
)
from coeval.repository.pace import Pace

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config
    from obstore.store import ObjectStore as Bucket

# In the order in which the library takes them.
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
AZURE_ENDPOINT_VARIABLES = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
GCS_ENDPOINT_VARIABLES = ("GOOGLE_BASE_URL",)
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
CA_VARIABLE = "AWS_CA_BUNDLE"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_ENDPOINT = re.compile(r"(https?)://(?:[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?(?:/[\w./-]*)?")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# One retry loop for everything: the one of ObjectStore.
_NO_RETRIES: RetryConfig = {"max_retries": 0}


def open_cloud(url: str, patience: Patience | None = None) -> ObjectStore:
    """Give the store behind an object store's URL. Nothing is sent yet. Raises InvalidArgument."""
    parts = urlsplit(url)
    prefix = _prefix(url, parts)
    make: Callable[[str, str | None, ClientConfig], tuple[Bucket, str]]
    make = {"s3": _s3, "gs": _gcs, "az": _azure}[parts.scheme]
    try:
        _, where = make(parts.netloc, prefix, _client(1, writing=False))
        pace = Pace(
            lambda s, writing: make(parts.netloc, prefix, _client(s, writing=writing))[0], REQUEST_SECONDS
        )
    except (BaseError, ValueError) as error:
        raise InvalidArgument(
            f"--repository {url}: {first_words(str(error))}; check the variables of the environment"
        ) from None
    return ObjectStore(pace, url.rstrip("/") + where, patience)


def _prefix(url: str, parts: SplitResult) -> str | None:
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        # Not repeated: somebody may have put a password into it.
        raise InvalidArgument(
            f"--repository {parts.scheme}://…: this is no bucket; use {parts.scheme}://bucket/prefix, "
            "with endpoint and credentials in the environment"
        )
    prefix = parts.path.strip("/")
    if prefix and not all(_SEGMENT.fullmatch(segment) for segment in prefix.split("/")):
        raise InvalidArgument(
            f"--repository {url}: a prefix has letters, digits, '-', '_' and '.' between single slashes"
        )
    return prefix or None


def _s3(bucket: str, prefix: str | None, client: ClientConfig) -> tuple[Bucket, str]:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    missing = [name for name in KEY_VARIABLES if not os.environ.get(name)]
    if len(missing) == 1:
        raise InvalidArgument(f"{missing[0]} is not set: {' and '.join(KEY_VARIABLES)} belong together")
    if ca := os.environ.get(CA_VARIABLE):
        client["root_certificate"] = _ca(ca)
    endpoint = _endpoint(ENDPOINT_VARIABLES, client)
    where: S3Config = {"endpoint": endpoint} if endpoint else {}
    store = S3Store(
        bucket,
        prefix=prefix,
        region=region,
        disable_bulk_delete=True,  # not every server has it, and we remove one object at a time
        config=where,
        client_options=client,
        retry_config=_NO_RETRIES,
    )
    return store, f" at {endpoint}" if endpoint else f" in region {region}"


def _gcs(bucket: str, prefix: str | None, client: ClientConfig) -> tuple[Bucket, str]:
    endpoint = _endpoint(GCS_ENDPOINT_VARIABLES, client)
    store = GCSStore(bucket, prefix=prefix, client_options=client, retry_config=_NO_RETRIES)
    return store, f" at {endpoint}" if endpoint else ""


def _azure(container: str, prefix: str | None, client: ClientConfig) -> tuple[Bucket, str]:
    endpoint = _endpoint(AZURE_ENDPOINT_VARIABLES, client)
    store = AzureStore(container, prefix=prefix, client_options=client, retry_config=_NO_RETRIES)
    return store, f" at {endpoint}" if endpoint else ""


def _endpoint(variables: Sequence[str], client: ClientConfig) -> str | None:
    """Give the address that the environment names, if it does; plain http is allowed only if that says so."""
    variable = next((name for name in variables if os.environ.get(name)), None)
    if variable is None:
        return None
    endpoint = _ENDPOINT.fullmatch(os.environ[variable])
    if endpoint is None:
        raise InvalidArgument(f"{variable}: give https://host or https://host:port, and no credentials in it")
    client["allow_http"] = endpoint[1] == "http"
    return endpoint[0].rstrip("/")


def _client(seconds: float, *, writing: bool) -> ClientConfig:
    bound = timedelta(seconds=seconds)
    # For all but large writes it is a bound on silence: an answer may take long as long as it comes.
    time: ClientConfig = {"timeout": bound}
    if not writing:
        time = {"timeout": timedelta(seconds=LONGEST_SECONDS), "read_timeout": bound}
    return {
        **time,
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        # Said here, so that no variable of the environment can say otherwise.
        "allow_http": False,
        "allow_invalid_certificates": False,
    }


def _ca(path: str) -> bytes:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        return Path(path).read_bytes()
    except ssl.SSLError:
        raise InvalidArgument(f"{CA_VARIABLE} {path}: there is no certificate in PEM in it") from None
    except OSError as error:
        raise InvalidArgument(f"{CA_VARIABLE} {path}: {error.strerror}") from None
