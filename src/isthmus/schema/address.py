"""The address of a table or a scored file on an object store: ``s3://clicks/day=*/*.parquet``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from isthmus.errors import SchemaError

# What stands before the first slash, which has no place for a password; and how it is told to a user.
_FORMS = {
    "s3": (r"[A-Za-z0-9._-]+", "s3://BUCKET/KEY"),
    "gs": (r"[A-Za-z0-9._-]+", "gs://BUCKET/KEY"),
    "hdfs": (r"([\w.-]+@)?[\w.-]+(:\d+)?", "hdfs://HOST:PORT/PATH"),
    "abfs": (r"[\w-]+@[\w.-]+", "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"),
    "abfss": (r"[\w-]+@[\w.-]+", "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"),
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_QUERY = re.compile(r"\?[^/]*=")


@dataclass(frozen=True, slots=True)
class Address:
    """A place on an object store.

    ``store``: what stands before the first slash, such as the bucket. ``key``: what stands behind
    it; it may hold the wildcards of a glob.
    """

    scheme: str
    store: str
    key: str

    @classmethod
    def of(cls, text: str | Path) -> Self | None:
        """Take an address apart; None for the path of a local file.

        Raises ``SchemaError`` for a scheme that is not known, and for a user, password or query
        string. The text of the fault never repeats them.
        """
        given = _SCHEME.match(text) if isinstance(text, str) else None
        if given is None:
            return None
        scheme, rest = given[1].lower(), str(text)[given.end() :]
        if scheme not in _FORMS:
            known = ", ".join(f"{one}://" for one in _FORMS)
            raise SchemaError(
                f"an address must begin with one of {known}, or be the path of a local file, got"
                f" {given[1]}://"
            )
        form, shown = _FORMS[scheme]
        store, _, key = rest.partition("/")
        if not re.fullmatch(form, store):
            raise SchemaError(
                f"an address on {scheme}:// must be {shown}, without a user or password, since"
                " credentials come from the environment; got another (not repeated here)"
            )
        if _QUERY.search(key):
            raise SchemaError(
                f"an address on {scheme}:// must have no query string (?name=value), since"
                " credentials and endpoint come from the environment; got one (not repeated here)"
            )
        if "//" in key:
            raise SchemaError(f"an address must have no empty name between slashes, got {text}")
        return cls(scheme, store, key.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.store}/{self.key}"


def full_name(table: str | Path) -> str:
    """Name a table so that it is found from any folder: an address as it is, a path in full."""
    if Address.of(table) is not None:
        return str(table)
    return str(Path(table).expanduser().absolute())
