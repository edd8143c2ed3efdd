"""Reading the bytes of a file, wherever it lies."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from isthmus.data.tables.places.listing import Place
from isthmus.data.tables.places.remote_file import RemoteFile

# A request to a store is mostly waiting.
_AT_ONCE = 16

_One = TypeVar("_One")
_Result = TypeVar("_Result")


@contextmanager
def readable(place: Place) -> Iterator[Path | pa.NativeFile]:
    """Give what pyarrow reads a file from: the path itself, or the opened object."""
    if isinstance(place, Path):
        yield place
        return
    with place.open() as file:
        yield file


def unpacked(place: Place, compression: str | None) -> pa.NativeFile:
    """Open a file to be read from its start. ``compression``: as pyarrow names it."""
    if isinstance(place, RemoteFile):
        return place.stream(compression)
    return pa.input_stream(str(place), compression=compression)


def opened(place: Place) -> BufferedReader | pa.NativeFile:
    """Open a file for `read` and `seek`."""
    return place.open() if isinstance(place, RemoteFile) else place.open("rb")


def each(function: Callable[[_One], _Result], of: Iterable[_One], *, remote: bool) -> list[_Result]:
    """A result for each, in order. ``remote``: each waits for a store, so many are asked at once."""
    if not remote:
        return [function(one) for one in of]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, of))
