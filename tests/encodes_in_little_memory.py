"""A process that encodes rows with a large vocabulary and tells what memory of its own that took.

``python encodes_in_little_memory.py FOLDER``: the folder holds an encoder, and rows in ``rows.parquet``. The
ids go to ``ids.npy``, and the growth of the anonymous memory to stdout, in bytes.
"""

import sys
from pathlib import Path

import numpy as np

from isthmus.data import Encoder, open_table


def anonymous() -> int:
    """Bytes of memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status must tell RssAnon")


def main(folder: Path) -> None:
    blocks = [
        (b.batch, b.first_row, b.file)
        for b in open_table(folder / "rows.parquet").blocks(["user", "item", "tab"], 20_000)
    ]
    before = anonymous()
    encoder = Encoder.load(folder / "encoder")
    ids, most = [], 0
    for block in blocks:
        ids.append(encoder.encode(*block, roles=()).categorical)
        most = max(most, anonymous() - before)
    np.save(folder / "ids.npy", np.concatenate(ids))
    sys.stdout.write(str(most))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
