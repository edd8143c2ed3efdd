"""Requests at a fixed rate from a few connections, for as long as a test asks."""

import http.client
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

CONNECTIONS = 3


@dataclass
class Load:
    """What a load has met. ``faults``: statuses and errors other than 200."""

    answered: int = 0
    faults: list[str] = field(default_factory=list)


def put_load(url: str, body: bytes, *, seconds: float, rate: float | None = None) -> Load:
    """Ask ``url`` for scores from several threads; ``rate``: requests a second in all, None for no pause."""
    load, lock = Load(), threading.Lock()
    begun = time.monotonic()
    place = urlsplit(url).netloc

    def ask(first: int) -> None:
        connection = http.client.HTTPConnection(place, timeout=60)
        number = first
        while time.monotonic() < begun + seconds:
            if rate is not None:
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            number += CONNECTIONS
            try:
                connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
                found = connection.getresponse()
                text = found.read()
                fault = None if found.status == 200 else f"{found.status}: {text[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
                connection.close()
            with lock:
                load.answered += fault is None
                load.faults += [] if fault is None else [fault]
        connection.close()

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def memory_of(process: int) -> int:
    """Bytes of anonymous memory that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"a process must tell its memory, got none of {process}")
