"""A process that encodes tables as one rank of several, order after order, for test_shares.py.

``python encodes_of_shares.py ORDERS.json``: a list of ``config`` (the data section), ``table`` and ``name``. The
encoded tables go to caches named after order and number of ranks, what is refused to ``ORDERS-SIZE-RANK.json``.
An order may say ``die``: at which stage rank 1 is killed.
"""

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from isthmus.data import Dataset
from isthmus.data.tables import parquet_file
from isthmus.errors import IsthmusError
from isthmus.ranks import Ranks, leave, start_ranks
from isthmus.schema import DataConfig

STRETCH_ROWS = 150
PATIENCE = 60.0


def encoded(order: dict[str, Any], folder: Path, ranks: Ranks) -> Dataset:
    def progress(stage: str, done: int, rows: int) -> None:
        assert 0 < done <= rows
        if ranks.rank == 1 and order.get("die") == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    return Dataset.from_table(
        DataConfig.model_validate(order["config"]),
        order["table"],
        cache=folder / f"{order['name']}-{ranks.size}",
        block_rows=70,
        progress=progress,
        ranks=ranks,
    )


def obey(order: dict[str, Any], folder: Path, ranks: Ranks) -> dict[str, str]:
    try:
        return {"key": encoded(order, folder, ranks).key}
    except IsthmusError as fault:
        return {"fault": type(fault).__name__, "text": str(fault)}


def main(file: Path) -> None:
    parquet_file.STRETCH_ROWS = STRETCH_ROWS
    orders = json.loads(file.read_text())
    dies = any("die" in order for order in orders)
    ranks = start_ranks(patience=timedelta(seconds=8 if dies else PATIENCE))
    told = [obey(order, file.parent, ranks) for order in orders]
    file.with_name(f"{file.stem}-{ranks.size}-{ranks.rank}.json").write_text(json.dumps(told))
    leave(1 if dies else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
