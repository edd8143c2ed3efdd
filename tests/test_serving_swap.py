"""A reload under load, a worker that is killed, and a stop while requests are under way."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from isthmus.bundle import Bundle
from rows_of_every_kind import drawn, frame, run_of_every_kind
from served import BEARER, TOKEN, Served, as_json, served


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of one table: the second has another calibration of names, and so another checksum."""
    folder = tmp_path_factory.mktemp("swap")
    one = run_of_every_kind(folder / "one", integers=False).path / "bundle"
    bundle = Bundle.load(one)
    with_other = bundle.model.state_dict()
    for tensor in with_other.values():
        if tensor.is_floating_point():
            tensor.mul_(1.5)
    bundle.save(folder / "two")
    return one, folder / "two"


def turn(link: Path, to: Path) -> None:
    """Let a link lead elsewhere, in one step."""
    other = link.with_name("other")
    other.symlink_to(to)
    other.rename(link)


class Asking:
    """Threads that ask for scores until they are told to stop. ``seen``: (time, checksum or fault)."""

    def __init__(self, server: Served, row: dict[str, Any]) -> None:
        self.seen: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._server, self._row = server, row
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(timeout=60, headers=BEARER) as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                found = client.post(f"{self._server.url}/v1/score", json={"rows": [self._row]})
                told = found.json().get("bundle", found.text)
                self.seen.append((begun, told))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("swaps", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_a_reload_under_load_drops_nothing(bundles: tuple[Path, Path], tmp_path: Path, swaps: int):
    (tmp_path / "token").write_text(TOKEN)
    link = tmp_path / "live"
    link.symlink_to(bundles[0])
    checksums = [Bundle.load(path).checksum for path in bundles]
    assert checksums[0] != checksums[1]
    shop = Bundle.load(bundles[0]).domains[0]
    row = as_json(frame(drawn(1, 9), pl.Series([shop])).to_dicts()[0])
    words = (link, "--workers", 2, "--token-file", tmp_path / "token", "--backend", "torch")
    with served(*words) as server:
        asking = Asking(server, row)
        acknowledged = []
        for number in range(1, swaps + 1):
            turn(link, bundles[number % 2])
            found = server.post("/v1/model/reload", headers=BEARER)
            assert found.status_code == 200, found.text
            assert found.json() == {"bundle": checksums[number % 2]}
            acknowledged.append((time.monotonic(), checksums[number % 2]))
            time.sleep(0.3)
        # A bundle that is damaged is not swapped in, and the old one goes on.
        broken = tmp_path / "broken"
        shutil.copytree(bundles[1], broken)
        weights = broken / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        turn(link, broken)
        found = server.post("/v1/model/reload", headers=BEARER)
        assert found.status_code == 503
        assert "weights.safetensors is damaged" in found.json()["error"]
        assert str(tmp_path) not in found.json()["error"]
        asking.end()
        assert {told for _, told in asking.seen} == set(checksums)
        for begun, told in asking.seen:
            past = [checksum for at, checksum in acknowledged if at < begun]
            later = [checksum for at, checksum in acknowledged if at >= begun]
            # Before the next reload is acknowledged, either of the two may answer.
            assert told in {(past or [checksums[0]])[-1], *later[:1]}


def test_a_killed_worker_comes_back(bundles: tuple[Path, Path]):
    shop = Bundle.load(bundles[0]).domains[0]
    row = as_json(frame(drawn(1, 9), pl.Series([shop])).to_dicts()[0])
    with served(bundles[0], "--workers", 2, "--backend", "torch") as server:
        before = server.workers
        assert len(before) == 2
        first = server.scores([row])
        os.kill(before[0], signal.SIGKILL)
        for _ in range(5):
            try:
                assert server.scores([row]) == first
            except httpx.TransportError:  # a connection that the dead one had taken
                continue
        limit = time.monotonic() + 120
        while len(server.workers) < 2 and time.monotonic() < limit:
            time.sleep(0.2)
        after = server.workers
        assert len(after) == 2
        assert before[0] not in after
        assert server.scores([row]) == first
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
