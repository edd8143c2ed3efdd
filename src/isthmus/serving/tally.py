"""What a server has answered, counted in files that its processes share, and told to Prometheus.

A process counts in an array of its own, which is a memory-mapped file: counting is an addition of NumPy, made
for the requests of some hundredths of a second together, and a scrape, by whichever process it reaches, adds
the files of all. A file outlives its process, so a counter never falls. Each bundle has its own files, since its domains and columns are its own; series of one name are
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
GATHERED_ROWS, GATHERED_REQUESTS = 4096, 256  # before they are added to the file

_DOOR = {name: at for at, name in enumerate(DOORS)}
_STATUS = {status: at for at, status in enumerate(STATUSES)}


class Tally:
    """The counts of one process for one bundle. One thread writes.

    What is counted is gathered first, and `flush` adds it to the file: the steps of NumPy are few, however
    many requests there were.
    """

    def __init__(self, folder: Path, domains: Sequence[str], columns: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = {"domains": [UNKNOWN, *domains], "columns": list(columns)}
        write_whole(folder / NAMES, json.dumps(names))
        size = sum(_sizes(len(names["domains"]), len(columns)))
        file = np.memmap(
            folder / f"{os.getpid()}.counts", dtype=np.float64, mode="w+", shape=(size,)
        )
        # A plain view: each step of a memmap makes another memmap, which costs more than the step.
        self._parts = _Parts(file.view(np.ndarray), len(names["domains"]), len(columns))
        self._domains = len(names["domains"])
        self._answered: list[tuple[int, int, float]] = []
        self._scored: list[tuple[int, Encoded, np.ndarray]] = []
        self._rows = 0

    def request(self, door: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._answered.append((_DOOR[door], _STATUS.get(status, _STATUS[500]), seconds))

    def rows(self, door: str, rows: Encoded, scores: np.ndarray) -> None:
        """Count the rows of a request, their scores by domain, and the ids that are unknown."""
        self._scored.append((_DOOR[door], rows, scores))
        self._rows += len(scores)

    @property
    def full(self) -> bool:
        """Whether so much is gathered that it should be added now."""
        return self._rows >= GATHERED_ROWS or len(self._answered) >= GATHERED_REQUESTS

    def flush(self) -> None:
        """Add what was gathered to the file."""
        if self._answered:
            answered, self._answered = self._answered, []
            self._add_requests(answered)
        if self._scored:
            scored, self._scored, self._rows = self._scored, [], 0
            self._add_rows(scored)

    def _add_requests(self, answered: list[tuple[int, int, float]]) -> None:
        doors, statuses, taken = zip(*answered, strict=True)
        at, seconds = np.array(doors), np.array(taken)
        np.add.at(self._parts.requests, (at, np.array(statuses)), 1)
        np.add.at(self._parts.latency, (at, np.searchsorted(SECONDS, seconds)), 1)
        np.add.at(self._parts.latency, (at, np.full(len(at), -1)), seconds)

    def _add_rows(self, scored: list[tuple[int, Encoded, np.ndarray]]) -> None:
        parts, several = self._parts, [rows for _, rows, _ in scored]
        for door, rows, _ in scored:
            parts.rows[door] += len(rows.domain)
        domain = np.concatenate([rows.domain for rows in several])
        scores = np.concatenate([scores for _, _, scores in scored])
        parts.domain_rows += np.bincount(domain, minlength=self._domains)
        parts.domain_scores += np.bincount(domain, scores, minlength=self._domains)
        singles = several[0].categorical.shape[1]
        ids = np.concatenate([rows.categorical for rows in several])
        parts.unknown[:singles] += (ids == 0).sum(axis=0)
        parts.values[:singles] += len(domain)
        for at, lists in enumerate(_lists_of_ids(several), start=singles):
            values = np.concatenate(lists)
            parts.unknown[at] += np.count_nonzero(values == 0)
            parts.values[at] += len(values)


def _lists_of_ids(several: Sequence[Encoded]) -> Iterator[list[np.ndarray]]:
    """For each list of ids, its values in all requests."""
    for lists in zip(*(rows.lists for rows in several), strict=True):
        if lists[0][0].dtype.kind == "i":
            yield [values for values, _ in lists]


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
