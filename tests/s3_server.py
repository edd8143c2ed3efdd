"""An S3 server on this machine, and a line to it that can be cut.

The server is moto's, in a process of its own. `make test` installs it into ``.s3-server``; the
variable ISTHMUS_S3_SERVER names another folder.
"""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pyarrow import fs

INSTALLED = Path(os.environ.get("ISTHMUS_S3_SERVER", Path(__file__).parents[1] / ".s3-server"))
_SERVE = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


class S3Server:
    """A running server. ``files``: pyarrow's view of it, for what a test puts there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.files = fs.S3FileSystem(
            access_key="test",
            secret_key="test",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{port}",
        )

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["S3Server"]:
        """Start a server; it ends with the block, and with this process."""
        if not (INSTALLED / "moto").is_dir():
            pytest.skip(f"no S3 server in {INSTALLED}: make .s3-server/installed")
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        )
        with server:
            assert server.stdout is not None
            try:
                yield cls(int(server.stdout.readline()))
            finally:
                assert server.stdin is not None
                server.stdin.close()
                server.wait(30)

    def ask(self, method: str, path: str, body: str | None = None) -> str:
        """One plain request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}",
            None if body is None else body.encode(),
            {"Content-Type": "text/plain"},
            method=method,
        )
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()

    def names(self, bucket: str) -> list[str]:
        """Names of all objects in a bucket."""
        found = self.files.get_file_info(fs.FileSelector(bucket, recursive=True))
        return sorted(one.path for one in found if one.type == fs.FileType.File)


class Line:
    """A port that passes bytes on to another one, until it is told to stop.

    ``sent``, ``received``: bytes passed on so far, from and to those who connect.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self.sent = self.received = 0
        self._bound: tuple[str, int] | None = None
        self._answer: bytes | None = None
        self._refused: bytes | None = None
        self._stall: int | None = None
        self._go_on = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @classmethod
    @contextmanager
    def opened(cls, to: int) -> Iterator["Line"]:
        """A line that is closed at the end of the block."""
        line = cls(to)
        try:
            yield line
        finally:
            line.close()

    def cut_after(self, bytes_passed: int, *, of: str) -> None:
        """Cut, for good, when so many more bytes passed. ``of``: "sent" or "received"."""
        self._bound = (of, getattr(self, of) + bytes_passed)

    def stall_after(self, bytes_sent: int) -> None:
        """Pass nothing on, but stay connected, when so many more bytes were sent."""
        self._stall = self.sent + bytes_sent

    def refuse(self, word: bytes) -> None:
        """Hang up on every request that holds this word; all else passes."""
        self._refused = word

    def answer_all(self, status: str) -> None:
        """Answer every further request with this status and nothing else."""
        self._answer = (
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    def close(self) -> None:
        """Close the port and every connection; wait for all threads."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._hang_up()
        self._go_on.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def is_cut(self) -> bool:
        return self._bound is not None and getattr(self, self._bound[0]) >= self._bound[1]

    @property
    def is_stalled(self) -> bool:
        return self._stall is not None and self.sent >= self._stall

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self._answer is not None:
                with near:
                    near.recv(1 << 16)
                    near.sendall(self._answer)
                continue
            if self.is_cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for pair in ((near, far, "sent"), (far, near, "received")):
                self._threads.append(threading.Thread(target=self._pass, args=pair))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, to: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                setattr(self, way, getattr(self, way) + len(data))
                if self.is_cut:
                    break
                if self.is_stalled:
                    self._go_on.wait()
                if self._refused is not None and self._refused in data:
                    break
                to.sendall(data)
        if self.is_cut:
            self._hang_up()
        for end in (source, to):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _hang_up(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
