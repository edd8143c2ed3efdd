"""``bundle.json``: what is in the folder, with the checksum of itself and of every other file."""

import hashlib
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from isthmus.disk import sha256
from isthmus.errors import BundleError

MANIFEST = "bundle.json"
"""The file of a bundle that names all others, with their checksums."""
SEVERAL = 2
FORMATS = (1, SEVERAL)  # one model; several, with the part of each domain


def write_manifest(folder: Path, number: int, body: dict[str, Any]) -> None:
    """Write the manifest of all files that the folder holds. ``number``: the format."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    body = {**body, "files": {str(file.relative_to(folder)): sha256(file) for file in files}}
    content = {"format": number, "sha256": _checksum(body), **body}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def is_bundle(folder: Path) -> bool:
    """Whether a folder calls itself a bundle; `read_manifest` tells whether it is a sound one."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of ``bundle.json``, after checking its own checksum and every file's.

    Raises `BundleError`, naming the file, where one is missing, damaged, of another format, a link or
    no file, or where ``bundle.json`` names a file outside of the folder. The folder itself may be
    reached by a link.
    """
    file = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"bundle folder must exist, got {folder}")
    _refuse_links(folder)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] not in FORMATS:
            known = " or ".join(map(str, FORMATS))
            raise BundleError(
                f"bundle must have format {known}, got {content['format']} in {file},"
                f" written by isthmus {content.get('isthmus')}"
            )
        body = {name: value for name, value in content.items() if name not in ("format", "sha256")}
        if _checksum(body) != content["sha256"]:
            raise BundleError(f"bundle file {file} is damaged: its checksum does not match")
        if (content["format"] == SEVERAL) != ("parts" in body):
            raise BundleError(
                f"bundle file {file} is damaged: its format is not that of its content"
            )
        files = {str(name): str(checksum) for name, checksum in content["files"].items()}
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"bundle file {file} is damaged: {error}") from error
    for name in files:
        _refuse_outside(name, file)
    for name, checksum in files.items():
        _check_file(folder / name, checksum)
    return content


def _checksum(body: dict[str, Any]) -> str:
    """Of the manifest's content, however it is laid out."""
    text = json.dumps(body, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_links(folder: Path) -> None:
    """Refuse a folder that holds anything but folders and files of its own; nothing is opened."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise BundleError(f"a bundle must hold no link, got {path} to {os.readlink(path)}")
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BundleError(f"a bundle must hold files only, got {path}, which is none")


def _refuse_outside(name: str, manifest: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise BundleError(f"a bundle must name files of its own folder, got {name!r} in {manifest}")


def _check_file(file: Path, checksum: str) -> None:
    try:
        found = sha256(file)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"bundle file {file} is missing") from None
    except (OSError, ValueError) as fault:  # a folder, a name that no file can have
        raise BundleError(f"bundle file {file} cannot be read: {fault}") from fault
    if found != checksum:
        raise BundleError(f"bundle file {file} is damaged: its checksum does not match")
