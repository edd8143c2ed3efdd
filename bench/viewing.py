"""How soon `isthmus view` answers with the table of 500 runs: at first, and when one of them has changed.

Every answer is asked for over HTTP, and each looks at the whole folder anew.
"""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Row, alternate, at_most
from isthmus.config import Config, validate
from isthmus.viewing import runs_folder
from isthmus.viewing.runs_folder import RunsFolder
from isthmus.viewing.view_server import ViewServer

COUNT, LOOKS, FEATURES = 500, 40, 20
BOUND = 0.5  # seconds


def seconds_of_a_table(folder: Path) -> list[Row]:
    """Seconds until the page of 500 runs is there."""
    home = written_runs(folder / "many")
    runs_folder.COALESCED = runs_folder.RESTS = 0  # no answer is that of the walk before

    def first() -> None:
        with served(home) as port:
            ask(port)

    with served(home) as port:
        size = ask(port)
        looks = home / "run-250" / "metrics.jsonl"

        def again() -> None:
            with looks.open("a") as file:
                file.write(look_line(LOOKS))
            ask(port)

        taken = alternate({"first": first, "again": again})
    values = {"page": f"{size / 1e6:.2f} MB", "files": f"{3 * COUNT:,}"}
    return [
        at_most(
            f"17 view: {COUNT} runs, one has changed, seconds", taken["again"], BOUND, **values
        ),
        at_most(
            f"17 view: {COUNT} runs, read for the first time, seconds", taken["first"], 3, **values
        ),
    ]


def written_runs(home: Path) -> Path:
    """Folders with the JSON of a run, its whole config and its looks."""
    features = {f"feature_{number}": {"kind": "categorical"} for number in range(FEATURES)}
    data = {"domain": "tab", "label": "click", "table": "clicks.parquet"}
    config = validate(Config, {"data": {**data, "features": features}})
    state = {
        "state": "finished",
        "dataset_key": "0" * 64,
        "table": "/data/clicks.parquet",
        "domains": [f"domain {number}" for number in range(50)],
        "n_domains": 50,
        "threads": 2,
        "isthmus": "0.1.0",
        "torch": "2.13.0",
        "parameters": 1_234_567,
        "best_step": 900,
        "steps": 1_000,
        "seconds": 123.4,
        "format": 1,
    }
    first = home / "run-0"
    first.mkdir(parents=True)
    (first / "run.json").write_text(json.dumps(state, indent=2))
    (first / "config.yaml").write_text(config.to_yaml())
    (first / "metrics.jsonl").write_text("".join(map(look_line, range(LOOKS))))
    for number in range(1, COUNT):
        shutil.copytree(first, home / f"run-{number}")
    return home


def look_line(number: int) -> str:
    """One look as a fit writes it."""
    metrics = {
        f"{metric}_{scope}": 0.5 + number / 1_000
        for metric in ("auc", "logloss")
        for scope in ("pooled", "macro", "weighted", "worst")
    }
    look = {"method": "joint", "step": number, "epoch": number / 2, "loss": 0.5, "better": True}
    return json.dumps({**look, "phase": 1, "start": False, **metrics}) + "\n"


@contextmanager
def served(home: Path) -> Iterator[int]:
    """A server that has read nothing yet; gives its port."""
    server = ViewServer(RunsFolder(home), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(port: int) -> int:
    """Ask for the table; gives its bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    page = answer.read()
    connection.close()
    if answer.status != 200 or page.count(b"<tr data-id=") != COUNT:
        raise RuntimeError(f"the table must have {COUNT} rows, got status {answer.status}")
    return len(page)
