"""Number 15: what tables on several processes cost a step, and the bytes that they send.

The step is measured on one process, where all that is left of sharding is what it does to each look-up:
ids made unique, and an exchange with itself. The bytes are counted on two processes. Each has one thread.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed as dist

from bench.measure import Row, alternate, at_most, informative
from bench.models import DIM, STEPS, random_batch, steps_on
from isthmus.errors import ConfigError
from isthmus.sharding import RowWiseTable, lookup_bytes

ROWS = 1_000_000
SIZES = (ROWS, 3707, 3440)


def everything(folder: Path) -> list[Row]:
    """All of number 15."""
    (alone,) = _processes(folder, 1)
    both = _processes(folder, 2)
    plain, dealt = (alone[name] / STEPS * 1e3 for name in ("plain", "row-wise"))
    sent = sum(one["sent"] for one in both) / 2
    told = sum(one["formula"] for one in both) / 2
    rows = []
    if "torchrec" in alone:
        theirs = alone["torchrec"] / STEPS * 1e3
        rows.append(
            at_most(
                f"15 step with {ROWS:,} table rows by TorchRec, one process / plain lazy table",
                theirs / plain,
                1.3,
                torchrec=f"{theirs:.2f} ms",
                plain=f"{plain:.2f} ms",
            )
        )
    return [
        *rows,
        at_most(
            f"15 step with {ROWS:,} table rows dealt by rows, one process / plain lazy table",
            dealt / plain,
            1.5,
            row_wise=f"{dealt:.2f} ms",
            plain=f"{plain:.2f} ms",
        ),
        informative(
            "15 bytes that one of two processes sends in a look-up and its gradient / the formula",
            sent / told,
            sent=f"{sent:,.0f}",
            formula=f"{told:,.0f}",
        ),
    ]


def _processes(folder: Path, world: int) -> list[dict[str, float]]:
    """Run `one_process` so many times at once; a process of its own, since gloo aborts at exit."""
    store = folder / f"store-{world}"
    store.unlink(missing_ok=True)
    call = [sys.executable, "-m", "bench.sharding", str(store), str(world)]
    started = [
        subprocess.Popen([*call, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    return [json.loads(process.communicate()[0]) for process in started]


def one_process(store: str, world: int, rank: int) -> dict[str, float]:
    torch.set_num_threads(1)  # as torchrun has it
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    group = dist.group.WORLD
    assert group is not None
    if world == 1:
        turns = 6
        contestants = {
            "plain": steps_on(ROWS, zipf=True, turns=turns),
            "row-wise": steps_on(ROWS, zipf=True, turns=turns, group=group),
        }
        with contextlib.suppress(ConfigError):
            contestants["torchrec"] = steps_on(
                ROWS, zipf=True, turns=turns, group=group, engine="table_wise"
            )
        found = alternate(contestants, turns - 1)
    else:
        table = RowWiseTable(rows={str(size): size for size in SIZES}, dim=DIM, group=group)
        ids = random_batch(SIZES, True, rank).categorical
        ids = ids + torch.tensor([table.first_row(name) for name in table.slices])
        table(ids).sum().backward()
        table.bring_gradients()
        formula = lookup_bytes(len(ids.unique()), DIM, world)
        found = {"sent": table.exchange.sent, "formula": formula}
    dist.destroy_process_group()
    return found


if __name__ == "__main__":
    print(json.dumps(one_process(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
    os._exit(0)
