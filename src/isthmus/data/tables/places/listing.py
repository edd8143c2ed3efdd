"""Which files a path, a glob, a folder or an address names, and what their names say they are."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias, TypeVar

from pyarrow import fs

from isthmus.data.tables.places.remote_file import (
    RemoteFile,
    filesystem_of,
    no_bucket,
    store_faults,
)
from isthmus.errors import SchemaError
from isthmus.schema.address import Address

Place: TypeAlias = Path | RemoteFile

PARQUET = (".parquet", ".pq", ".parq")
CSV = (".csv", ".tsv")
PACKED = (".gz", ".bz2", ".zst")
_WILD = re.compile(r"[*?\[]")

_AnyPlace = TypeVar("_AnyPlace", Path, RemoteFile)


def files_of(source: str) -> dict[str, Place]:
    """The files of a table by their names, in the order of the names.

    A name is the path below the folder, or below what stands before a glob's first wildcard. Raises
    ``SchemaError`` where there is no such file, folder or glob, or no file in it.
    """
    address = Address.of(source)
    found = _local(source) if address is None else _remote(address)
    if not found:
        raise SchemaError(
            f"a table must have at least one Parquet or CSV file, got none in {source}"
        )
    return dict(sorted(found.items()))


def named_kind(place: Place) -> str | None:
    """What the name says that a file is: its last suffix, or the one before a packer's."""
    suffixes = [suffix.lower() for suffix in place.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
        return "csv" if suffixes and suffixes[-1] in CSV else None
    last = suffixes[-1] if suffixes else ""
    return "parquet" if last in PARQUET else "csv" if last in CSV else None


def _local(source: str) -> dict[str, Place]:
    path = Path(source).expanduser()
    if path.is_dir():
        base, paths = path, _files_below(path)
    elif path.is_file():
        base, paths = path.parent, [path]
    elif _WILD.search(source):
        fixed = Path(*(_before_wildcard(path.parts) or ["."]))
        pattern = str(path.relative_to(fixed)) if path.parts else source
        base, paths = fixed, []
        for found in sorted(fixed.glob(pattern)):
            paths += _files_below(found) if found.is_dir() else [found]
    else:
        raise SchemaError(f"a table must be a file, a folder or a glob that exists, got {source}")
    return {path.relative_to(base).as_posix(): path for path in paths}


def _before_wildcard(parts: Sequence[str]) -> list[str]:
    fixed = []
    for part in parts[:-1]:
        if _WILD.search(part):
            break
        fixed.append(part)
    return fixed


def _files_below(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return _tables((path, path.relative_to(folder).parts) for path in files)


def _tables(found: Iterable[tuple[_AnyPlace, Sequence[str]]]) -> list[_AnyPlace]:
    """Parquet files under a folder, or CSV files where there are none; hidden ones are left out."""
    shown = [
        place for place, parts in found if not any(part.startswith((".", "_")) for part in parts)
    ]
    parquet = [place for place in shown if named_kind(place) == "parquet"]
    return parquet or [place for place in shown if named_kind(place) == "csv"]


def _remote(address: Address) -> dict[str, Place]:
    filesystem, root = filesystem_of(address)
    store = _Store(address, filesystem, root)
    with store_faults(address):
        info = filesystem.get_file_info(store.path(address.key))
        if info.type == fs.FileType.File:
            return {info.base_name: store.file(info)}
        if info.type == fs.FileType.Directory:
            return store.named(store.below(info.path), address.key)
        parts = address.key.split("/")
        if _WILD.search(address.key):
            fixed = "/".join(_before_wildcard(parts))
            pattern = parts[len(_before_wildcard(parts)) :]
            files: list[RemoteFile] = []
            for info in store.matching(store.path(fixed), pattern):
                is_folder = info.type == fs.FileType.Directory
                files += store.below(info.path) if is_folder else [store.file(info)]
            if files:
                return store.named(files, fixed)
        is_object_store = address.scheme != "hdfs"
        if is_object_store and filesystem.get_file_info(root).type == fs.FileType.NotFound:
            raise no_bucket(address)
        if _WILD.search(address.key):
            return {}
    raise SchemaError(f"a table must be a file, a folder or a glob that exists, got {address}")


class _Store:
    """The files of one bucket, container or cluster."""

    def __init__(self, address: Address, filesystem: fs.FileSystem, root: str) -> None:
        self.address, self.filesystem, self.root = address, filesystem, root

    def path(self, key: str) -> str:
        """Pyarrow's name of a key."""
        return f"{self.root}/{key}" if key else self.root or "/"

    def file(self, info: fs.FileInfo) -> RemoteFile:
        key = info.path[len(self.root) :].lstrip("/")
        return RemoteFile(replace(self.address, key=key), self.filesystem, info.path)

    def named(self, files: Iterable[RemoteFile], folder: str) -> dict[str, Place]:
        """Files by their names below the folder with this key."""
        start = len(folder) + 1 if folder else 0
        return {file.address.key[start:]: file for file in files}

    def below(self, folder: str) -> list[RemoteFile]:
        """The table's files at any depth under a folder."""
        files = [one for one in self._under(folder) if one.type == fs.FileType.File]
        return _tables((self.file(one), _relative(one, folder)) for one in files)

    def matching(self, folder: str, pattern: list[str]) -> Iterator[fs.FileInfo]:
        """What fits a glob below a folder. Only folders that can hold a match are listed."""
        head, *rest = pattern
        if "**" in pattern[:1]:
            fitting = pattern[:-1] if pattern[-1] == "**" else pattern
            yield from (
                one
                for one in self._under(folder)
                if _fits(_relative(one, folder), fitting or ["*"])
            )
            return
        for one in self._under(folder, recursive=False):
            if fnmatchcase(one.base_name, head):
                if not rest:
                    yield one
                elif one.type == fs.FileType.Directory:
                    yield from self.matching(one.path, rest)

    def _under(self, folder: str, *, recursive: bool = True) -> list[fs.FileInfo]:
        return self.filesystem.get_file_info(
            fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        )


def _relative(info: fs.FileInfo, folder: str) -> list[str]:
    return info.path[len(folder.rstrip("/")) + 1 :].split("/")


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path fit a glob, of which ``**`` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
