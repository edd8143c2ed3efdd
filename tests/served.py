"""A server in processes of its own, on loopback, and how a test asks it."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa

from command_line import ISTHMUS
from forking import children

START = 180.0
TOKEN = "a token of the tests, 32 letters"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Served:
    """A server. ``lines``: what it said."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def post(self, path: str, content: Any = None, **options: Any) -> httpx.Response:
        given = {"content": content} if isinstance(content, bytes) else {"json": content}
        given = {} if content is None else given
        return httpx.post(self.url + path, **given, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def scores(self, rows: list[dict[str, Any]], **options: Any) -> list[float]:
        found = self.post("/v1/score", {"rows": rows}, **options)
        assert found.status_code == 200, found.text
        return found.json()["scores"]

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [
            child
            for child in children(self.process.pid)
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
        ]


@contextlib.contextmanager
def served(*words: Any) -> Iterator[Served]:
    """`isthmus serve` on a free port, until the block ends."""
    command = [*ISTHMUS, "serve", *map(str, words), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        server = Served(process)
        timer = threading.Timer(START, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                server.lines.append(line)
                if line.startswith("http://"):
                    server.url = line.split()[0]
                    break
            timer.cancel()
            assert server.url, "".join(server.lines)
            reader = threading.Thread(
                target=lambda: server.lines.extend(process.stdout or ()), daemon=True
            )
            reader.start()
            yield server
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its JSON has it: moments are texts."""
    return json.loads(json.dumps(row, default=lambda value: value.isoformat()))


def stream(table: pl.DataFrame | pa.Table, **options: Any) -> bytes:
    """A table as an Arrow stream, its texts of a plain type."""
    found = table.to_arrow() if isinstance(table, pl.DataFrame) else table
    plain = pa.schema([(f.name, _plain(f.type)) for f in found.schema])
    found = found.cast(plain)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(found)
    return sink.getvalue().to_pybytes()


def _plain(dtype: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_string_view(dtype) else dtype
