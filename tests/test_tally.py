"""What a server counts, and how its answers leave: without a server."""

import asyncio
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.requests import EncodedRequest
from isthmus.serving.joined_writes import JoinedWrites
from isthmus.serving.tally import GATHERED_ROWS, Tally, TallyReader

IDS = st.integers(0, 3)
ROW = st.tuples(st.integers(0, 2), st.floats(0, 1, width=32), IDS, IDS, st.lists(IDS, max_size=3))
REQUEST = st.tuples(
    st.sampled_from(["score", "infer"]), st.floats(0.0001, 20), st.lists(ROW, min_size=1)
)


def encoded(
    rows: list[tuple[int, float, int, int, list[int]]],
) -> tuple[EncodedRequest, np.ndarray]:
    """Rows of two domains, two columns of ids, a list of ids and a list of numbers."""
    lengths = [0, *(len(row[4]) for row in rows)]
    items = np.array([item for row in rows for item in row[4]], dtype=np.int32)
    numbers = np.zeros(0, dtype=np.float32), np.zeros(len(rows) + 1, dtype=np.int64)
    found = EncodedRequest(
        np.array([row[2:4] for row in rows], dtype=np.int32),
        np.zeros((len(rows), 0), dtype=np.float32),
        ((items, np.cumsum(lengths)), numbers),
        np.array([row[0] for row in rows], dtype=np.int32),
    )
    return found, np.array([row[1] for row in rows], dtype=np.float64)


def read(folder: Path) -> dict[tuple[str, ...], float]:
    """What is not 0, by name and labels."""
    found = (one for each in TallyReader(folder).collect() for one in each.samples)
    return {(one.name, *one.labels.values()): one.value for one in found if one.value}


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(REQUEST, max_size=6), flushed=st.integers(1, 3))
def test_counts_are_those_of_each_request_alone(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[str, float, list[tuple[int, float, int, int, list[int]]]]],
    flushed: int,
):
    folder = tmp_path_factory.mktemp("tallies")
    tally = Tally(folder / "000000", ["a", "b"], ["x", "y", "list"])
    right: dict[tuple[str, ...], float] = defaultdict(float)
    for at, (door, seconds, rows) in enumerate(requests):
        tally.rows(door, *encoded(rows))
        tally.request(door, 200, seconds)
        if at % flushed == 0:
            tally.flush()
        right["isthmus_requests_total", door, "200"] += 1
        right["isthmus_request_seconds_count", door] += 1
        right["isthmus_request_seconds_sum", door] += seconds
        right["isthmus_rows_total", door] += len(rows)
        for domain, score, x, y, items in rows:
            name = ["(unknown)", "a", "b"][domain]
            right["isthmus_domain_rows_total", name] += 1
            right["isthmus_domain_scores_total", name] += score
            for column, ids in (("x", [x]), ("y", [y]), ("list", items)):
                right["isthmus_ids_total", column] += len(ids)
                right["isthmus_unknown_ids_total", column] += ids.count(0)
    tally.flush()
    found = {key: value for key, value in read(folder).items() if not key[0].endswith("_bucket")}
    assert found == pytest.approx({key: value for key, value in right.items() if value})


def test_a_status_that_is_not_listed_counts_as_500_and_a_latency_in_its_bucket(tmp_path: Path):
    tally = Tally(tmp_path / "000000", ["a"], [])
    tally.request("other", 418, 0.003)
    tally.request("other", 404, 0.005)  # the edge belongs to the bucket that it ends
    assert read(tmp_path) == {}  # nothing is in the file before it is added
    tally.flush()
    found = read(tmp_path)
    assert found["isthmus_requests_total", "other", "500"] == 1
    assert found["isthmus_requests_total", "other", "404"] == 1
    buckets = {key[2]: value for key, value in found.items() if key[0].endswith("_bucket")}
    assert "0.0025" not in buckets
    assert buckets["0.005"] == buckets["+Inf"] == 2


def test_what_is_gathered_is_bounded(tmp_path: Path):
    tally = Tally(tmp_path / "000000", ["a", "b"], ["x", "y", "list"])
    rows, scores = encoded([(1, 0.5, 1, 1, [])] * (GATHERED_ROWS // 2))
    tally.rows("score", rows, scores)
    assert not tally.full
    tally.rows("score", rows, scores)
    assert tally.full
    tally.flush()
    assert not tally.full


class Sent(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_head_and_body_leave_together():
    async def told() -> list[bytes]:
        sent = Sent()
        joined = JoinedWrites(sent, asyncio.get_running_loop())
        joined.write(b"head ")
        joined.write(b"body")
        assert sent.writes == []
        await asyncio.sleep(0)
        joined.write(b"next head ")
        joined.write(b"next body")
        joined.close()  # takes what is held with it
        assert sent.closed
        joined.write(b"too late")
        await asyncio.sleep(0)
        return sent.writes

    assert asyncio.run(told()) == [b"head body", b"next head next body"]
