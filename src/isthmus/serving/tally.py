"""What a server has answered, counted in files that its processes share, and told to Prometheus.

A process counts in an array of its own, which is a memory-mapped file: counting is an addition of NumPy, and
a scrape, by whichever process it reaches, adds the files of all. A file outlives its process, so a counter
never falls. Each bundle has its own files, since its domains and columns are its own; series of one name are
added over the bundles.

    FOLDER/GENERATION/names.json       the domains and columns that the arrays stand for
    FOLDER/GENERATION/PROCESS.counts   float64
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from isthmus.disk import write_whole
from isthmus.monitoring import Drift
from isthmus.serving.scoring_engine import Encoded

DOORS = ("score", "arrow", "infer", "invocations", "other")
STATUSES = (200, 400, 401, 403, 404, 405, 413, 415, 422, 500, 503)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNKNOWN = "(unknown)"  # what series call the rows of no trained domain
NAMES = "names.json"


class Tally:
    """The counts of one process for one bundle. One thread writes."""

    def __init__(self, folder: Path, domains: Sequence[str], columns: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = {"domains": [UNKNOWN, *domains], "columns": list(columns)}
        write_whole(folder / NAMES, json.dumps(names))
        size = sum(_sizes(len(names["domains"]), len(columns)))
        self._file = np.memmap(
            folder / f"{os.getpid()}.counts", dtype=np.float64, mode="w+", shape=(size,)
        )
        parts = _Parts(self._file, len(names["domains"]), len(columns))
        self._parts, self._domains = parts, len(names["domains"])

    def request(self, door: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        at = DOORS.index(door)
        known = status if status in STATUSES else 500
        self._parts.requests[at, STATUSES.index(known)] += 1
        self._parts.latency[at, int(np.searchsorted(SECONDS, seconds))] += 1
        self._parts.latency[at, -1] += seconds

    def rows(self, door: str, rows: Encoded, scores: np.ndarray) -> None:
        """Count the rows of a request, their scores by domain, and the ids that are unknown."""
        parts, domain = self._parts, rows.domain
        parts.rows[DOORS.index(door)] += len(domain)
        parts.domain_rows += np.bincount(domain, minlength=self._domains)
        parts.domain_scores += np.bincount(domain, scores, minlength=self._domains)
        singles = rows.categorical.shape[1]
        parts.unknown[:singles] += (rows.categorical == 0).sum(axis=0)
        parts.values[:singles] += len(domain)
        ids = [values for values, _ in rows.lists if values.dtype.kind == "i"]
        for at, values in enumerate(ids, start=singles):
            parts.unknown[at] += np.count_nonzero(values == 0)
            parts.values[at] += len(values)


class _Parts:
    """Views of one array."""

    def __init__(self, array: np.ndarray, domains: int, columns: int) -> None:
        ends = np.cumsum(_sizes(domains, columns))[:-1]
        requests, latency, rows, domain_rows, scores, unknown, values = np.split(array, ends)
        self.requests = requests.reshape(len(DOORS), len(STATUSES))
        self.latency = latency.reshape(len(DOORS), len(SECONDS) + 2)  # one more bucket; the sum
        self.rows, self.domain_rows, self.domain_scores = rows, domain_rows, scores
        self.unknown, self.values = unknown, values


def _sizes(domains: int, columns: int) -> tuple[int, ...]:
    doors = len(DOORS)
    return (
        doors * len(STATUSES),
        doors * (len(SECONDS) + 2),
        doors,
        domains,
        domains,
        columns,
        columns,
    )


class TallyReader:
    """Adds the files of all processes, for a registry of prometheus_client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """The series of every counter."""
        doors = np.zeros((len(DOORS), len(STATUSES)))
        latency = np.zeros((len(DOORS), len(SECONDS) + 2))
        rows = np.zeros(len(DOORS))
        by_domain: dict[str, np.ndarray] = {}
        by_column: dict[str, np.ndarray] = {}
        for parts, names in self._found():
            doors += parts.requests
            latency += parts.latency
            rows += parts.rows
            _add(by_domain, names["domains"], parts.domain_rows, parts.domain_scores)
            _add(by_column, names["columns"], parts.unknown, parts.values)
        yield _counter(
            "isthmus_requests",
            "Requests answered, by door and status.",
            ("door", "status"),
            (
                ((door, str(status)), count)
                for door, counts in zip(DOORS, doors.tolist(), strict=True)
                for status, count in zip(STATUSES, counts, strict=True)
                if count
            ),
        )
        told = (((door,), count) for door, count in zip(DOORS[:-1], rows.tolist(), strict=False))
        yield _counter("isthmus_rows", "Rows scored, by door.", ("door",), told)
        histogram = HistogramMetricFamily(
            "isthmus_request_seconds",
            "Seconds from a request's first byte to its answer's last.",
            labels=("door",),
        )
        for door, counts in zip(DOORS, latency, strict=True):
            upto = np.cumsum(counts[:-1]).tolist()
            ends = [*map(str, SECONDS), "+Inf"]
            histogram.add_metric((door,), list(zip(ends, upto, strict=True)), float(counts[-1]))
        yield histogram
        for name, text, names, found, place in (
            ("isthmus_domain_rows", "Rows scored, by domain.", ("domain",), by_domain, 0),
            ("isthmus_domain_scores", "Sum of scores, by domain.", ("domain",), by_domain, 1),
            ("isthmus_unknown_ids", "Ids that are unknown, by column.", ("column",), by_column, 0),
            ("isthmus_ids", "Ids looked up, by column.", ("column",), by_column, 1),
        ):
            pairs = (((key,), float(value[place])) for key, value in found.items())
            yield _counter(name, text, names, pairs)

    def _found(self) -> Iterator[tuple[_Parts, dict[str, list[str]]]]:
        for folder in sorted(self._folder.iterdir()):
            if not (folder / NAMES).is_file():
                continue
            names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
            size = sum(_sizes(len(names["domains"]), len(names["columns"])))
            for file in sorted(folder.glob("*.counts")):
                array = np.fromfile(file, dtype=np.float64)
                if len(array) == size:  # not one that another process is just making
                    yield _Parts(array, len(names["domains"]), len(names["columns"])), names


class DriftReader:
    """Tells the domains that left their training interval, by the rows of all processes."""

    def __init__(self, flags: Callable[[], Sequence[Drift]]) -> None:
        self._flags = flags

    def collect(self) -> Iterator[Metric]:
        """1 for each flag that is up."""
        family: Any = GaugeMetricFamily(
            "isthmus_drift", "A domain left its training interval.", labels=("domain", "what")
        )
        for one in self._flags():
            family.add_metric((one.domain or UNKNOWN, one.what), 1.0)
        yield family


def _add(into: dict[str, np.ndarray], names: list[str], *counts: np.ndarray) -> None:
    for name, found in zip(names, np.stack(counts, axis=1), strict=True):
        into[name] = into[name] + found if name in into else found


def _counter(
    name: str, text: str, labels: Sequence[str], pairs: Iterator[tuple[tuple[str, ...], float]]
) -> Metric:
    family: Any = CounterMetricFamily(name, text, labels=labels)
    for key, value in pairs:
        family.add_metric(key, value)
    return family
