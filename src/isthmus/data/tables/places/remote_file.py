"""Files on an object store: how they are reached, and what is said where they are not.

Credentials and endpoint come from the environment. They are given to pyarrow and to nobody else. A
store's own words reach a message only where they cannot hold a credential.
"""

import datetime as dt
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from isthmus.errors import IsthmusError, RunError, SchemaError
from isthmus.schema.address import Address

_AWS = re.compile(r"AWS Error (?P<code>\w+)(?: \[[^]]*\])? during (?P<call>\w+) operation")
_CURL = re.compile(r"curlCode: \d+, [A-Za-z' ]+")
# What only a store says; a fault without these words is one of the file.
_STORE = re.compile(
    r"AWS Error|curl|google::cloud|GCS|Azure|HDFS|libhdfs|libjvm|onnection|imed out"
)
# How the stores of Google and Azure say that nobody signed a request.
_NO_TOKEN = re.compile(r"access token|get token")
_MISSING = {"NO_SUCH_KEY", "RESOURCE_NOT_FOUND"}
_DENIED = {
    "ACCESS_DENIED",
    "EXPIRED_TOKEN",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hdfs": "HADOOP_USER_NAME, or a Kerberos ticket",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
# google-cloud-cpp goes on for a quarter of an hour where it is not told.
_PATIENCE = dt.timedelta(minutes=1)


@dataclass(frozen=True, slots=True, eq=False)
class RemoteFile:
    """One object. ``path``: what pyarrow's ``filesystem`` calls it, such as ``bucket/key``."""

    address: Address
    filesystem: fs.FileSystem
    path: str

    def __str__(self) -> str:
        return str(self.address)

    @property
    def suffix(self) -> str:
        """The last suffix of the name, as of a ``Path``."""
        return PurePosixPath(self.path).suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes of the name, as of a ``Path``."""
        return PurePosixPath(self.path).suffixes

    def open(self) -> pa.NativeFile:
        """Open for reading at any place; raises as `store_faults` does."""
        with store_faults(self.address):
            return self.filesystem.open_input_file(self.path)

    def stream(self, compression: str | None) -> pa.NativeFile:
        """Open for reading from the start, unpacked."""
        with store_faults(self.address):
            return self.filesystem.open_input_stream(self.path, compression=compression)

    def state(self) -> dict[str, Any]:
        """Size in bytes, time of the last change in ns, and the ETag where the store gives one."""
        with store_faults(self.address):
            info = self.filesystem.get_file_info(self.path)
            with self.filesystem.open_input_file(self.path) as file:
                told = {str(name).lower(): value for name, value in (file.metadata() or {}).items()}
        found: dict[str, Any] = {"size": info.size, "time": info.mtime_ns}
        etag = told.get("etag")
        return found if etag is None else found | {"etag": etag.decode(errors="replace")}


@contextmanager
def store_faults(address: Address) -> Iterator[None]:
    """Raise a fault of the package, which names ``address`` and a rule, in place of pyarrow's.

    ``SchemaError``: the store, bucket or object is not there, or not open to these credentials.
    ``RunError``: the store is out of reach.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as fault:
        raise told_fault(address, fault) from None


def store_fault(place: object, fault: Exception) -> IsthmusError | None:
    """What to raise for a fault met while a file was read; None where the file itself is at fault."""
    if not isinstance(place, RemoteFile) or not isinstance(fault, OSError):
        return None
    return told_fault(place.address, fault) if _is_of_a_store(fault) else None


def _is_of_a_store(fault: OSError) -> bool:
    named = isinstance(fault, FileNotFoundError | PermissionError | TimeoutError)
    return named or _STORE.search(str(fault)) is not None


def told_fault(address: Address, fault: Exception) -> IsthmusError:
    """The fault of a store in the package's words."""
    text = str(fault)
    aws = _AWS.search(text)
    code = aws["code"] if aws else ""
    if code == "NO_SUCH_BUCKET" or re.search(r"Bucket '[^']*' not found", text):
        return no_bucket(address)
    if isinstance(fault, FileNotFoundError) or code in _MISSING:
        return SchemaError(f"{address} must exist, got no such object")
    no_token = not aws and _NO_TOKEN.search(text) is not None
    if isinstance(fault, PermissionError) or no_token or code in _DENIED:
        names = _VARIABLES["abfs" if address.scheme == "abfss" else address.scheme]
        other = "no access token" if no_token else "a refusal"
        got = f"{code} during {aws['call']}" if aws else other
        return SchemaError(
            f"{address} must be open to the credentials of the environment ({names}), got {got}"
        )
    if aws:
        curl = _CURL.search(text)
        got = f"{code} during {aws['call']}" + (f" ({curl[0]})" if curl else "")
    else:
        got = _without_secrets((text.strip().splitlines() or [type(fault).__name__])[0])
    return RunError(f"{address} must be within reach, got {got}")


def no_bucket(address: Address) -> SchemaError:
    """The refusal of a bucket or container that is not there."""
    return SchemaError(
        f"{address} must be in a bucket that exists, got no bucket {address.store!r}"
    )


def _without_secrets(text: str) -> str:
    """A text without what the environment keeps secret, and without users in addresses."""
    for name, value in os.environ.items():
        if len(value) > 3 and re.search("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", name.upper()):
            text = text.replace(value, "***")
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def filesystem_of(address: Address) -> tuple[fs.FileSystem, str]:
    """Pyarrow's file system for an address, and what its paths begin with.

    Raises as `store_faults` does, and ``SchemaError`` for an endpoint that is none.
    """
    with store_faults(address):
        if address.scheme == "s3":
            return _s3(address), address.store
        if address.scheme == "gs":
            return fs.GcsFileSystem(retry_time_limit=_PATIENCE), address.store
        found, root = fs.FileSystem.from_uri(f"{address.scheme}://{address.store}/")
        return found, root.rstrip("/")


def _s3(address: Address) -> fs.S3FileSystem:
    # pyarrow reads keys, tokens and profiles from the environment by itself, but no endpoint.
    name = next((one for one in _ENDPOINTS if os.environ.get(one)), None)
    region = next((os.environ[one] for one in _REGIONS if os.environ.get(one)), None)
    if name is None:
        return fs.S3FileSystem(region=region or fs.resolve_s3_region(address.store))
    given = urlsplit(os.environ[name])
    if given.scheme not in ("http", "https") or not given.hostname or "@" in given.netloc:
        raise SchemaError(
            f"{name} must be http://HOST:PORT or https://HOST:PORT without a user or password, got"
            " another (not repeated here)"
        )
    override = (given.netloc + given.path).rstrip("/")
    return fs.S3FileSystem(
        region=region or "us-east-1", scheme=given.scheme, endpoint_override=override
    )
