"""A scored file on an object store: whole, or not there.

pyarrow completes an upload whenever a stream to a store is closed, also when the stream is forgotten
after an error. So a file is written on this machine first, and then sent in a thread that no signal
reaches and that closes the stream after the last byte. A part that fails ends the upload: pyarrow
keeps the fault of a part that it sends in the background, and then completes nothing. A process that
dies meanwhile leaves parts that no reader sees.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pyarrow import fs

from isthmus.data.tables.places.remote_file import filesystem_of, no_bucket, store_faults
from isthmus.disk import temporary_name
from isthmus.errors import RunError
from isthmus.schema.address import Address

_PIECE = 8 << 20  # bytes
# On these an object appears when its upload is complete; elsewhere a file grows under its name.
_APPEAR_WHOLE = ("s3", "gs")


class Target:
    """The object that a scored file becomes. Made before a row is scored.

    Raises ``RunError`` where an object is there already, and as `store_faults` does.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        if not address.key:
            raise RunError(f"file to write must have a name behind the bucket, got {address}")
        self._filesystem, root = filesystem_of(address)
        self._path = f"{root}/{address.key}"
        with store_faults(address):
            if self._filesystem.get_file_info(self._path).type != fs.FileType.NotFound:
                raise RunError(f"file to write must not exist yet, got {address}")
            if address.scheme != "hdfs":
                bucket = self._filesystem.get_file_info(root)
                if bucket.type == fs.FileType.NotFound:
                    raise no_bucket(address)

    @contextmanager
    def written(self) -> Iterator[Path]:
        """Give a path to write to; what stands there when the block ends without error is sent."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / Path(self.address.key).name
            yield file
            self.send(file)

    def send(self, file: Path) -> None:
        """Put a file of this machine there; the object has all of its bytes, or is not there."""
        with store_faults(self.address):
            if self.address.scheme in _APPEAR_WHOLE:
                self._copy(file, self._path)
                return
            beside = str(temporary_name(Path(self._path)))
            try:
                self._copy(file, beside)
                self._filesystem.move(beside, self._path)
            except BaseException:
                if self._filesystem.get_file_info(beside).type != fs.FileType.NotFound:
                    self._filesystem.delete_file(beside)
                raise

    def _copy(self, file: Path, path: str) -> None:
        with ThreadPoolExecutor(1) as sender:
            sender.submit(self._send_all, file, path).result()

    def _send_all(self, file: Path, path: str) -> None:
        # `copy_files` of pyarrow says nothing where the end of an upload fails.
        with file.open("rb") as source:
            stream = self._filesystem.open_output_stream(path)
            try:
                while piece := source.read(_PIECE):
                    stream.write(piece)
            except BaseException:
                # Closing completes nothing where the store failed, and a torn object where the disk did.
                with suppress(OSError):
                    stream.close()
                    self._filesystem.delete_file(path)
                raise
            stream.close()
