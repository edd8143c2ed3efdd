"""Number 14: what a request costs, against endpoints of the same framework that only parse. ``-m bench.serving``.

A table of 32 columns: 16 of texts or integers, 15 numbers, the domain. Every server has one worker with one
thread; the client is another process on the other core, with 4 connections. The opponents parse the same
request and answer with constants: one by Starlette's own ``request.json()``, one by msgspec into the same types.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import isthmus
from bench.measure import RUNS, Row, alternate, at_least, at_most, informative
from isthmus.bundle import Bundle
from isthmus.exporting.graph_file import session_of
from isthmus.exporting.served_graph import GraphInput, graph_arrays
from isthmus.serving.doors.arrow_stream import MEDIA
from isthmus.serving.doors.row_json import RowReader

ROWS, BULK = 100, 10_000
TABLE = 40_000
CONNECTIONS = 4
SECONDS = 3.0  # of one measurement of the throughput
HALF_LOAD = 10.0  # seconds
COMMAND = "from isthmus.cli import app; app(prog_name='isthmus')"
ADAPTERS = {"mlp": {}, "hamur": {"adapter": {"name": "hamur"}}}


def table(rows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = [50, 500, 5000, 20]
    columns: dict[str, Any] = {
        f"text_{at}": [f"value {v}" for v in rng.integers(0, sizes[at % 4], rows)]
        for at in range(10)
    }
    columns |= {f"id_{at}": rng.integers(0, [1000, 20_000][at % 2], rows) for at in range(6)}
    columns |= {f"number_{at}": rng.normal(size=rows) for at in range(15)}
    columns["shop"] = [f"shop {v}" for v in rng.integers(0, 5, rows)]
    return pl.DataFrame(columns)


def fit(folder: Path, name: str) -> Path:
    frame = table(TABLE, 0)
    labels = np.random.default_rng(1).integers(0, 2, TABLE)
    features = {c: "numeric" if c.startswith("number") else "categorical" for c in frame.columns}
    config = {
        "data": {"label": "label", "domain": "shop", "features": features},
        "model": {"backbone": {"name": "mlp", "widths": [256, 128]}, **ADAPTERS[name]},
        "train": {"epochs": 1},
    }
    frame = frame.with_columns(label=labels)
    run = isthmus.fit(config, frame, out=folder / name, cache=folder / "cache")
    isthmus.export(run)
    return run.path


def constants(port: int, bundle: str, rows: int, by_types: bool) -> None:
    """A server that parses a request and answers constants."""
    encoder = Bundle.load(bundle).row_encoder
    reader = RowReader(encoder, max_rows=BULK, max_items=100)
    answer = json.dumps({"scores": [0.5] * rows, "bundle": "0" * 64}).encode()

    async def parsed(request: Request) -> Response:
        await request.json()
        return Response(answer, media_type="application/json")

    async def typed(request: Request) -> Response:
        reader.read(await request.body())
        return Response(answer, media_type="application/json")

    app = Starlette(routes=[Route("/v1/score", typed if by_types else parsed, methods=["POST"])])
    config = uvicorn.Config(
        app,
        port=port,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
    asyncio.run(uvicorn.Server(config).serve())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def request_of(body: bytes, media: str = "application/json") -> bytes:
    head = (
        f"POST /v1/score HTTP/1.1\r\nhost: bench\r\ncontent-type: {media}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> None:
        self._socket.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._socket.recv(1 << 20)
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"an answer must be 200, got {head[:40]!r} {body[:200]!r}")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        left = length - len(body)
        while left > 0:
            left -= len(self._socket.recv(1 << 20))


def throughput(port: int, request: bytes, seconds: float = SECONDS) -> float:
    """Requests a second over some connections that ask without a pause."""
    counts = [0] * CONNECTIONS
    end = time.perf_counter() + seconds

    def ask(at: int) -> None:
        connection = Connection(port)
        while time.perf_counter() < end:
            connection.ask(request)
            counts[at] += 1

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(CONNECTIONS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def waits(port: int, request: bytes, rate: float, seconds: float) -> np.ndarray:
    """Seconds from when each request was due to its answer, requests due at a fixed rate."""
    due = np.arange(int(rate * seconds)) / rate
    taken = np.zeros(len(due))
    begun = time.perf_counter() + 0.1

    def ask(first: int) -> None:
        connection = Connection(port)
        for at in range(first, len(due), CONNECTIONS):
            rest = begun + due[at] - time.perf_counter()
            if rest > 0:
                time.sleep(rest)
            connection.ask(request)
            taken[at] = time.perf_counter() - begun - due[at]

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def median_wait(port: int, request: bytes, times: int = 500) -> float:
    """Median seconds of one request after another, on one connection."""
    connection, taken = Connection(port), []
    for _ in range(times):
        begun = time.perf_counter()
        connection.ask(request)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


class Servers:
    """Processes that listen, until the block ends."""

    def __init__(self) -> None:
        self._stops: list[Callable[[], object]] = []

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for stop in self._stops:
            stop()

    def isthmus(self, bundle: Path) -> int:
        words = [sys.executable, "-c", COMMAND, "serve", str(bundle), "--port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        self._stops.append(lambda: (child.send_signal(signal.SIGTERM), child.wait()))
        assert child.stdout is not None
        line = child.stdout.readline()
        return int(line.split()[0].rpartition(":")[2])

    def constants(self, bundle: Path, rows: int, by_types: bool) -> int:
        port = free_port()
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=constants, args=(port, str(bundle), rows, by_types))
        child.start()
        self._stops.append(lambda: (child.terminate(), child.join()))
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except ConnectionRefusedError:
                time.sleep(0.1)
        raise RuntimeError("the endpoint must listen within a minute")


def medians(ports: dict[str, int], measure: Callable[[int], float], runs: int) -> dict[str, float]:
    """Medians of a measurement of servers that take turns, after one turn that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ports}
    for turn in range(runs + 1):
        for name, port in ports.items():
            value = measure(port)
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def served(bundles: dict[str, Path], runs: int) -> list[Row]:
    """Requests of 100 rows and of one."""
    frame, lines = table(ROWS, 5), []
    many = request_of(json.dumps({"rows": frame.to_dicts()}).encode())
    one = request_of(json.dumps({"rows": frame.head(1).to_dicts()}).encode())
    first = next(iter(bundles.values()))
    with Servers() as servers:
        ports = {name: servers.isthmus(bundle) for name, bundle in bundles.items()}
        ports["json"] = servers.constants(first, ROWS, False)
        ports["msgspec"] = servers.constants(first, ROWS, True)
        rate = medians(ports, lambda port: throughput(port, many), runs)
        told = {name: f"{value * ROWS:,.0f} rows/s" for name, value in rate.items()}
        for name in bundles:
            bounds: tuple[float | None, float | None] = (
                (0.9, 0.4) if name == "mlp" else (None, None)
            )
            for other, bound in zip(("json", "msgspec"), bounds, strict=True):
                title = f"14 {name}, 100 JSON rows a request, rows/s over constants by {other}"
                values = {name: told[name], other: told[other]}
                ratio = rate[name] / rate[other]
                lines.append(
                    informative(title, ratio, **values)
                    if bound is None
                    else at_least(title, ratio, bound, **values)
                )
        late = waits(ports["mlp"], many, rate["mlp"] / 2, HALF_LOAD) * 1e3
        p50, p99 = np.percentile(late, [50, 99]).tolist()
        values = {"p50": f"{p50:.2f} ms", "p99": f"{p99:.2f} ms", "requests": f"{len(late):,}"}
        lines.append(at_most("14 mlp at half load, p99 over p50", p99 / p50, 5.0, **values))
        alone = medians(ports, lambda port: median_wait(port, one), runs)
        values = {name: f"{alone[name] * 1e3:.2f} ms" for name in ("mlp", "json", "hamur")}
        lines.append(
            at_most(
                "14 mlp, one row, p50 over constants by json",
                alone["mlp"] / alone["json"],
                1.5,
                **values,
            )
        )
        lines.append(bulk(first, ports["mlp"], runs))
    return lines


def bulk(bundle_path: Path, port: int, runs: int) -> Row:
    """10,000 rows as an Arrow stream, against a bare loop of ONNX Runtime whose ids are encoded."""
    frame = table(BULK, 6)
    held = frame.to_arrow()
    plain = pa.schema(
        [
            (f.name, pa.large_string() if pa.types.is_string_view(f.type) else f.type)
            for f in held.schema
        ]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain) as writer:
        writer.write_table(held.cast(plain))
    request = request_of(sink.getvalue().to_pybytes(), MEDIA)
    graphs = bundle_path.parent / "onnx"
    content = json.loads((graphs / "export.json").read_text())
    inputs = tuple(GraphInput(g["name"], g["dtype"], tuple(g["shape"])) for g in content["inputs"])
    arrays = graph_arrays(
        inputs, Bundle.load(bundle_path).row_encoder.encode(frame.to_dicts()).batch()
    )
    session, connection = session_of(graphs / "model.onnx"), Connection(port)
    seconds = alternate(
        {
            "served": lambda: [connection.ask(request) for _ in range(10)],
            "bare": lambda: [session.run(["scores"], arrays) for _ in range(10)],
        },
        runs,
    )
    values = {name: f"{BULK * 10 / taken:,.0f} rows/s" for name, taken in seconds.items()}
    ratio = seconds["bare"] / seconds["served"]
    return at_least(
        "14 mlp, Arrow of 10,000 rows, rows/s over a bare ONNX Runtime loop", ratio, 0.5, **values
    )


def in_python(bundles: dict[str, Path], runs: int) -> list[Row]:
    """`Bundle.score_row` beside the frame of one row that it saves."""
    frame, lines = table(1, 7), []
    row = frame.to_dicts()[0]
    for name, path in bundles.items():
        bundle = Bundle.load(path)
        engine = isthmus.load_engine(path, path.parent / "onnx")
        turns = alternate(
            {
                "score_row": lambda b=bundle: [b.score_row(row) for _ in range(200)],
                "score": lambda b=bundle: [b.score(frame) for _ in range(20)],
                "graphs": lambda e=engine: [e.score_row(row) for _ in range(200)],
            },
            runs,
        )
        values = {
            "torch": f"{turns['score_row'] / 200 * 1e3:.3f} ms",
            "graphs": f"{turns['graphs'] / 200 * 1e3:.3f} ms",
            "a frame of it": f"{turns['score'] / 20 * 1e3:.2f} ms",
        }
        for way, taken in (("torch", turns["score_row"]), ("ONNX Runtime", turns["graphs"])):
            title, each = f"14 {name}, score_row by {way}, ms", taken / 200 * 1e3
            bounded = name == "mlp"
            lines.append(
                at_most(title, each, 0.3, **values)
                if bounded
                else informative(title, each, **values)
            )
    return lines


def everything(folder: Path, runs: int = RUNS) -> list[Row]:
    """Number 14."""
    folder = folder / "serving"
    folder.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bundles = {name: fit(folder, name) / "bundle" for name in ADAPTERS}
    lines = [*in_python(bundles, runs), *served(bundles, runs)]
    torch.set_num_threads(threads)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = everything(Path(folder), given.runs)
    print(json.dumps([line.to_dict() for line in lines], indent=2))


if __name__ == "__main__":
    main()
