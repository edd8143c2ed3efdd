"""Writing so that a reader, or a run that was killed, never meets half a file.

Every file is written under a temporary name in its own folder, flushed to the disk, and then renamed.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isthmus.errors import IsthmusError, RunError
from isthmus.printable import printable

LOCK = ".lock"
TEMPORARY = ".part-"  # names that hold this are leftovers of a killed process
SEVERAL = "a process with --shared"  # holds the lock beside others
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # a file system that has none
_TOKEN = os.urandom(3).hex()  # two machines have processes of one number


def temporary_name(path: Path) -> Path:
    """Give the temporary name, beside ``path``, under which this process writes ``path``."""
    return path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{_TOKEN}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write one small file. ``path`` holds the old content or the new, never a part of the new.

    ``path`` may be a device, a pipe or a link to a file. A device or a pipe is written to. Of a link,
    the file that it leads to is written. The device, the pipe or the link itself stays.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with whole_file(path.resolve() if path.is_symlink() else path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Raise RunError in place of OSError, and say what cannot be written and why.

    ``what``: words for ``path``, such as ``run folder``.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        raise RunError(refusal(fault, what, path)) from fault


def refusal(fault: OSError, what: str = "", path: Path | None = None) -> str:
    """Say what the system refused, and why.

    For example ``run folder runs/x cannot be written: Permission denied``. ``what`` was being written
    at ``path``. A fault that is about another place names the other place.
    """
    if fault.errno is None:  # a library's own: its text says what and why
        return printable(str(fault))
    if path is not None and (fault.filename is None or _concerns(fault.filename, path)):
        return printable(f"{what} {path} cannot be written: {reason(fault)}")
    place = "a file" if fault.filename is None else os.fsdecode(fault.filename)
    return printable(f"{place} cannot be used: {reason(fault)}")


def _concerns(name: str | bytes, path: Path) -> bool:
    """Whether a name is that of ``path``, of what is below or above it, or of its temporary."""
    place, path = Path(os.fsdecode(name)).absolute(), path.absolute()
    beside = place.parent == path.parent and TEMPORARY in place.name
    return beside or place.is_relative_to(path) or path.is_relative_to(place)


def reason(fault: Exception) -> str:
    """Say why the system refused, without the number of the fault: ``Permission denied``."""
    number = getattr(fault, "errno", None)
    return str(fault) if number is None else os.strerror(number)


def check_place(path: Path, *, folders: bool = True) -> None:
    """Raise OSError where ``path`` certainly cannot be made. Nothing is written.

    ``folders``: the folders that are missing above ``path`` will be made too.
    """
    above = path.absolute().parents
    place = next(folder for folder in above if folder.exists()) if folders else above[0]
    if not place.exists():
        fault = errno.ENOENT
    elif not place.is_dir():
        fault = errno.ENOTDIR
    elif os.statvfs(place).f_flag & os.ST_RDONLY:
        fault = errno.EROFS
    elif not os.access(place, os.W_OK | os.X_OK):
        fault = errno.EACCES
    else:
        return
    raise OSError(fault, os.strerror(fault), str(place))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path, which becomes ``path`` when the block ends without error."""
    temporary = temporary_name(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def whole_folder(path: Path, *, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Give a temporary folder to fill, which becomes ``path`` when the block ends without error.

    A folder that stands at ``path`` is replaced, unless ``keep`` says of ``path`` that it stays.
    """
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        try:
            os.rename(temporary, path)
        except OSError as fault:
            if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if keep is None or not keep(path):
                shutil.rmtree(path)
                os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(path.parent)


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Say that the folder of temporary files has no room for ``what``: IsthmusError for OSError."""
    try:
        yield
    except OSError as fault:
        import tempfile  # brings half of the standard library along, for one sentence

        raise IsthmusError(
            f"{tempfile.gettempdir()} must have room for {what}, got: {fault}"
            " (the environment variable TMPDIR names another folder)"
        ) from fault


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes in ``folder``.

    The lock ends with the process, also when the process is killed. Raises RunError, naming the
    folder and the other process, while another process holds the lock.
    """
    with _locked(folder, fcntl.LOCK_EX) as handle:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()}\n".encode())
        yield


@contextmanager
def one_of_several(folder: Path) -> Iterator[None]:
    """Write in ``folder`` beside others that do the same, and keep an `only_writer` out.

    Raises RunError as `only_writer` does while one is at work. A file system without locks keeps
    nobody out.
    """
    with ExitStack() as holding:
        try:
            handle = holding.enter_context(_locked(folder, fcntl.LOCK_SH))
            os.truncate(handle, 0)
            os.write(handle, f"{SEVERAL}\n".encode())
        except OSError as fault:
            if fault.errno not in NO_LOCKS:
                raise
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[int]:
    handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 64).decode(errors="replace").strip() or "process unknown"
            raise RunError(
                f"{folder} must have one writer at a time, and {holder} writes there"
            ) from None
        yield handle
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Flush a file or the names in a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in and below ``folder``.

    The caller must be the only writer of ``folder``.
    """
    for path in list(folder.rglob(f".*{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Give the sha256 of a file's content, in hexadecimal digits."""
    import hashlib  # slow to import, and most calls hash nothing

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
