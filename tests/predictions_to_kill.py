"""A process that predicts in forked children and kills them, on orders from test_predict_resumed.py.

Orders are lines of JSON on stdin; each is answered by one line of JSON. A child that is told ``kill_at:
n`` sends itself SIGKILL before its n-th renaming of a file; ``kill_scoring: n``: before it scores its
n-th block. ``limit``: no file of the child may grow beyond so many bytes.
"""

import json
import os
import resource
import sys
import warnings
from typing import Any

import isthmus
from fits_to_kill import die, ended, watch_renames
from isthmus.bundle import Bundle, served
from isthmus.data.batch import Batch
from isthmus.errors import IsthmusError
from isthmus.run.output import finished_rows

served.BLOCK_ROWS, finished_rows.PIECE_ROWS = 100, 250


def watch_scoring(kill_at: int | None) -> list[int]:
    """Count the rows that are scored, and die before the block that is ordered."""
    counts = [0, 0]
    score = Bundle.logits_of

    def counting(self: Bundle, batch: Batch) -> Any:
        counts[0] += 1
        counts[1] += batch.rows
        if counts[0] == kill_at:
            die()
        return score(self, batch)

    Bundle.logits_of = counting
    return counts


def child(order: dict[str, Any], answer: int) -> None:
    renames, counts = watch_renames(order.get("kill_at")), watch_scoring(order.get("kill_scoring"))
    if order.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
    told: dict[str, Any] = {"fault": None}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            run = isthmus.Run.open(order["run"])
            told["rows"] = run.predict_to(order["table"], order["out"], **order.get("options", {}))
        except IsthmusError as fault:
            told["fault"] = str(fault)
    told |= {"renames": renames[0], "scored": counts[1], "warned": [str(w.message) for w in warned]}
    os.write(answer, json.dumps(told).encode())


def obey(order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(order, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return ended(pid, reading)


def main() -> None:
    # Imported before the forks, so that each child begins at once.
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    _ = isthmus.Run
    for line in sys.stdin:
        sys.stdout.write(json.dumps(obey(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
