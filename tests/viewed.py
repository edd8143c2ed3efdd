"""A server of `isthmus view` in a thread, and how a test asks it."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isthmus.viewing.runs_folder import RunsFolder
from isthmus.viewing.view_server import ViewServer


@dataclass
class Got:
    """One answer."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Viewed:
    """A server that runs."""

    server: ViewServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def get(self, target: str, *, method: str = "GET", **headers: str) -> Got:
        """Ask for exactly this target; nothing is tidied up before it is sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, target, skip_host="Host" in named)
            for name, value in named.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Got(answer.status, answer.read().decode(), told)
        finally:
            connection.close()


@contextlib.contextmanager
def viewed(folder: Path, host: str = "127.0.0.1") -> Iterator[Viewed]:
    """`isthmus view` on a free port, until the block ends."""
    server = ViewServer(RunsFolder(folder), host, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Viewed(server, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
