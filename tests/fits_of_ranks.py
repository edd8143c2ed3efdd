"""A process that fits as one rank of several, order after order, for test_ranks_fit.py.

``python fits_of_ranks.py ORDERS.json``: a list of calls of `isthmus.fit`, each with its ``config`` and,
for a rank that is to see another one, ``config RANK``. What comes of them goes to ``ORDERS-RANK.json``.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import isthmus
from isthmus.errors import IsthmusError
from isthmus.ranks import Ranks, leave, start_ranks


def obey(order: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    config = order.get(f"config {ranks.rank}", order["config"])
    table = order.get(f"table {ranks.rank}", order["table"])
    try:
        run = isthmus.fit(config, table, out=order["out"], resume=order.get("resume", False))
    except IsthmusError as fault:
        return {"fault": type(fault).__name__, "text": str(fault)}
    return {"run": str(run.path), "auc": run.evaluate().pooled.auc}


def main(file: Path) -> None:
    ranks = start_ranks()
    told = [obey(order, ranks) for order in json.loads(file.read_text())]
    file.with_name(f"{file.stem}-{ranks.rank}.json").write_text(json.dumps(told))
    assert threading.active_count() < 4, threading.enumerate()
    leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
