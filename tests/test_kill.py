"""kill -9 at any moment of fit, then resume: the same weights, bit for bit."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import isthmus
from small_runs import clicks, settings

SRC = Path(isthmus.__file__).parents[1]


class Killer:
    """Fits in processes of their own, which can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(SRC),
            "ISTHMUS_CACHE": str(folder / "cache"),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fits_to_kill.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.table = folder / "clicks.parquet"
        pq.write_table(clicks(), self.table)

    def fit(self, out: Path, *, update: str = "dense", **order: Any) -> dict[str, Any]:
        """Order one fit; the answer says whether it was killed."""
        config = settings(checkpoint_minutes=0, embedding_update=update, batch_rows=180)
        order = {
            "config": config,
            "table": str(self.table),
            "out": str(out),
            "resume": False,
            **order,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer.get("fault") is None, answer
        return answer


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("kill"))
    yield killer
    killer.process.communicate(timeout=60)
    assert killer.process.returncode == 0


@pytest.fixture(scope="module", params=["dense", pytest.param("lazy", marks=pytest.mark.soak)])
def whole(killer: Killer, request: pytest.FixtureRequest) -> tuple[str, Path, dict[str, Any]]:
    """A training that nobody disturbed: update of embeddings, folder, and how it went."""
    out = killer.folder / f"whole-{request.param}"
    return request.param, out, killer.fit(out, update=request.param)


def result(folder: Path) -> dict[str, bytes]:
    """All that a resumed run must share with an undisturbed one."""
    names = ("bundle/weights.safetensors", "metrics.jsonl", "scores/test.parquet")
    return {name: (folder / name).read_bytes() for name in names}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if "part-" in path.name or ".tmp" in path.name]


def test_an_undisturbed_training_is_repeatable(killer: Killer, whole: Any, tmp_path: Path):
    update, folder, told = whole
    assert not told["killed"]
    assert killer.fit(tmp_path / "again", update=update)["killed"] is False
    assert result(tmp_path / "again") == result(folder)


def moments(renames: int, update: str) -> list[int]:
    """The first renamings, some in the middle, and the last ones."""
    if update == "lazy":  # what differs is in the checkpoints only
        return [renames // 3, renames // 2]
    return sorted({1, 2, 3, 4, 5, renames // 2, *range(renames - 5, renames + 1)})


def test_killed_at_a_write_and_resumed(killer: Killer, whole: Any, tmp_path: Path):
    update, folder, _ = whole
    renames = killer.fit(tmp_path / "count", update=update)["renames"]
    assert renames > 20, "checkpoints must be among them"
    for moment in moments(renames, update):
        out = tmp_path / f"run-{moment}"
        assert killer.fit(out, update=update, kill_at=moment)["killed"], moment
        assert not (out / "run.json").exists() or b"finished" not in (out / "run.json").read_bytes()
        assert killer.fit(out, update=update, resume=True)["killed"] is False
        assert result(out) == result(folder), moment
        assert leftovers(out) == [], moment


def test_killed_with_half_a_file_of_tensors(killer: Killer, whole: Any, tmp_path: Path):
    update, folder, _ = whole
    # The first and a later checkpoint, and the weights of the bundle, which come last.
    for moment in (1, 4, 9):
        out = tmp_path / f"run-{moment}"
        assert killer.fit(out, update=update, kill_at=moment, half=True)["killed"], moment
        assert killer.fit(out, update=update, resume=True)["killed"] is False
        assert result(out) == result(folder), moment


def test_killed_again_and_again(killer: Killer, whole: Any, tmp_path: Path):
    update, folder, _ = whole
    out = tmp_path / "run"
    answers = [
        killer.fit(out, update=update, resume=True, kill_after=0.1 * attempt)
        for attempt in range(1, 6)
    ]
    assert answers[0]["killed"]
    assert killer.fit(out, update=update, resume=True)["killed"] is False
    assert result(out) == result(folder)


def test_killed_while_the_table_is_encoded(killer: Killer, tmp_path: Path):
    """The cache has no entry yet: the first renaming is the encoded table's."""
    fresh = Killer(tmp_path)
    try:
        assert fresh.fit(tmp_path / "run", kill_at=1)["killed"]
        assert not (tmp_path / "run").exists(), "the table comes before the run folder"
        assert fresh.fit(tmp_path / "run", resume=True)["killed"] is False
        assert killer.fit(tmp_path / "whole")["killed"] is False
        assert result(tmp_path / "run") == result(tmp_path / "whole")
    finally:
        fresh.process.communicate(timeout=60)
