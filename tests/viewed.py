"""A server of `isthmus view` in a thread, and how a test asks it."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import isthmus
from isthmus.viewing.runs_folder import RunsFolder
from isthmus.viewing.view_server import ViewServer
from small_runs import clicks, settings

PAGE = "<!doctype html><title>a page</title><p>of a study</p>"


def write_home(folder: Path) -> Path:
    """Three runs, of which one has other test rows, and pages beside them."""
    table = clicks(600)
    for name, seed, split in (("plain", 0, 0), ("again", 1, 0), ("moved", 0, 5)):
        config = settings(seed=seed, epochs=1)
        config["data"]["split"]["seed"] = split
        if name == "plain":
            config["model"]["adapter"] = {"name": "none"}
        isthmus.fit(config, table, out=folder / "runs" / name)
    (folder / "runs" / "plain" / "report.html").write_text(PAGE)
    for kind, mark in (("tuned", "study.json"), ("contest", "benchmark.json")):
        (folder / kind).mkdir()
        (folder / kind / mark).write_text("{}")
        (folder / kind / "report.html").write_text(PAGE)
        (folder / kind / "secret.html").write_text("not served")
    return folder


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
