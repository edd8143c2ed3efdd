"""The server: threads of the standard library, answers from `ViewAnswers`, and news while somebody listens."""

import ipaddress
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from isthmus.errors import RunError
from isthmus.report.runs_table import page_list, row_texts
from isthmus.viewing.answers import ALWAYS, TEXT, Answer, Stream, ViewAnswers
from isthmus.viewing.runs_folder import RunsFolder, Seen

MOST_CONNECTIONS = 64
MOST_STREAMS = 24  # each holds a connection as long as its page is open
PATIENCE = 30.0  # seconds for a client that says or takes nothing
PAUSE = 1.0  # seconds between two looks at the folder
BEAT = 15.0  # seconds after which a stream says that it is alive
QUIET = (ConnectionError, TimeoutError)  # a reader who goes away


class ViewServer(ThreadingHTTPServer):
    """Serves one folder. At most `MOST_CONNECTIONS` connections are held, each by one thread."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: RunsFolder, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.folder, self.answers = folder, ViewAnswers(folder, host)
        self.connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.streams = threading.BoundedSemaphore(MOST_STREAMS)
        self.ended = threading.Event()
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Bind, and ask no name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or close it where too many are held."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader who goes away."""
        if not isinstance(sys.exception(), QUIET):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Let streams end, and close."""
        self.ended.set()
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "isthmus", ""
    timeout = PATIENCE

    @property
    def _view(self) -> ViewServer:
        assert isinstance(self.server, ViewServer)
        return self.server

    def handle_one_request(self) -> None:
        """Answer one request, whatever its method is."""
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if len(self.raw_requestline) > 65536:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(414)
                return
            if not self.raw_requestline:
                self.close_connection = True
            elif self.parse_request():
                self._reply()
        except TimeoutError:
            self.close_connection = True

    def _reply(self) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        found = self._view.answers.answer(self.command, self.path, headers)
        if headers.keys() & {"content-length", "transfer-encoding"}:
            self.close_connection = True  # nobody reads a body here
        if isinstance(found, Answer):
            self._send(found)
        elif self.command == "HEAD":
            self._send(Answer(200, b"", "text/event-stream"))
        elif self._view.streams.acquire(blocking=False):
            try:
                self._stream(found)
            finally:
                self._view.streams.release()
        else:
            self._send(Answer(503, b"too many pages listen already\n"))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self._headers(answer.kind, answer.headers)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _headers(self, kind: str, more: Any) -> None:
        policy = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox"}
        for name, value in {"Content-Type": kind, **ALWAYS, **policy, **more}.items():
            self.send_header(name, value)

    def _stream(self, wanted: Stream) -> None:
        """Send what changes, until the reader or the server goes away."""
        self.close_connection = True
        self.send_response(200)
        self._headers("text/event-stream", {"Connection": "close"})
        self.end_headers()
        if wanted.since is None:  # a page of a server that is no more
            self.wfile.write(b"event: again\ndata: 1\n\n")
            return
        self.wfile.write(b"retry: 2000\n\n")
        since, spoke = wanted.since, time.monotonic()
        folder = self._view.folder
        while not self._view.ended.is_set():
            seen = folder.look()
            if seen.version > since:
                news = json.dumps(_news(seen, since))
                self.wfile.write(
                    f"id: {folder.token}.{seen.version}\nevent: runs\ndata: {news}\n\n".encode()
                )
                since, spoke = seen.version, time.monotonic()
            elif time.monotonic() - spoke > BEAT:
                self.wfile.write(b": still here\n\n")
                spoke = time.monotonic()
            self._view.ended.wait(PAUSE)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request."""
        del message, explain
        self.close_connection = True
        self._send(Answer(int(code), b"this is no request that is answered here\n", TEXT))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _news(seen: Seen, since: int) -> dict[str, Any]:
    """What changed after a version: rows as HTML, runs that are gone, and the pages where they changed."""
    changed = [seen.rows[key] for key, at in seen.since.items() if at > since]
    return {
        "rows": row_texts(changed),
        "gone": [key for key, at in seen.gone.items() if at > since],
        "pages": page_list(seen.pages) if seen.pages_since > since else None,
    }


def view(
    folder: str | Path, *, host: str = "127.0.0.1", port: int = 8090, tell: Callable[[str], None]
) -> None:
    """Serve all runs under a folder as one table, until it is interrupted.

    ``port``: 0 for any that is free. ``tell``: is called with the address, and with a warning where
    ``host`` can be reached from elsewhere. Raises RunError where the folder does not exist, or where
    nothing can listen there.
    """
    runs = RunsFolder(folder)
    try:
        server = ViewServer(runs, host, port)
    except (OSError, OverflowError) as fault:
        why = getattr(fault, "strerror", None) or str(fault)
        raise RunError(f"nothing can listen on {host}:{port}: {why}") from fault
    with server:
        found = len(runs.look().rows)  # the first walk reads everything; later ones what changed
        shown = f"[{host}]" if ":" in host else host
        if not _is_loopback(server.server_address[0]):
            tell(f"warning: everybody who reaches {host} can read these runs")
        tell(f"{found:,} runs of {runs.name} at http://{shown}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            tell("stopped")


def _is_loopback(address: Any) -> bool:
    try:
        return ipaddress.ip_address(str(address).split("%")[0]).is_loopback
    except ValueError:
        return False
