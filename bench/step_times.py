"""Measured steps of one training by 1, 2 and 4 processes, which the model of docs/scale_simulation.md explains.

    python -m bench.step_times OUT.json

All processes share one core, each has one thread, and tables are dealt by rows. So the work of all of them
adds up, messages included. The cases take turns, and a case counts with the median of its turns. A case of 0
rows is no step: it sums `PROBE` numbers over the processes, which tells what a byte costs.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import distributed as dist

from bench.models import DIM, random_batch
from isthmus.data.batch import Batch
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.objectives import binary_cross_entropy
from isthmus.optimisers import build_optimiser
from isthmus.ranks import Ranks
from isthmus.schema import FittedField
from isthmus.sharding import RowWiseTable, shard_tables
from isthmus.train.device import keep_freed_memory
from isthmus.train.ranked import SharedStep

SIZES = (200_000, 3707, 3440, 22)
WIDTHS = (256, 128)
WORLDS = (1, 2, 4)
BATCHES = (1024, 2048, 4096)  # rows of all processes together
PROBE = 1 << 22
WARM_UP, STEPS = 1, 3
SECONDS, LEAST_TURNS = 110, 2


def network() -> DomainModel:
    fields = [
        FittedField(f"column {place}", "categorical", DIM, table=f"table {place}", table_rows=size)
        for place, size in enumerate(SIZES)
    ]
    torch.manual_seed(0)
    config = {"backbone": {"name": "mlp", "widths": WIDTHS, "dropout": 0.0, "norm": "none"}}
    return build_network(
        ModelConfig.model_validate(config),
        (*fields, FittedField("age", "numeric", 1)),
        n_domains=SIZES[-1],
    )


class Training:
    """One process of a world at its steps."""

    def __init__(self, store: str, world: int, rank: int) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        self.world, self.rank = world, rank
        self.model = network()
        shard_tables(self.model, dist.group.WORLD)
        self.optimiser = build_optimiser(self.model, lr=1e-3, embedding_update="lazy")
        self.shared = SharedStep(Ranks(rank=rank, size=world), (self.model,))
        (table,) = self.model.tables()
        assert isinstance(table, RowWiseTable)
        self.table = table
        self.first = torch.tensor([table.first_row(name) for name in table.slices])

    def steps(self, rows: int, seed: int) -> dict[str, float]:
        """Medians of some steps: seconds, different rows asked for, bytes of look-ups sent."""
        if not rows:
            return self.probe()
        seconds, asked, sent = [], [], []
        for place in range(WARM_UP + STEPS):
            batch = random_batch(
                SIZES, True, (seed + place) * self.world + self.rank, rows=rows // self.world
            )
            asked.append(len((batch.categorical + self.first).unique()))
            before = self.table.exchange.sent
            taken = self.step(batch)
            sent.append(self.table.exchange.sent - before)
            if place >= WARM_UP:
                seconds.append(taken)
        return {
            "seconds": statistics.median(seconds),
            "asked": statistics.median(asked),
            "sent": statistics.median(sent),
            "dense": sum(parameter.numel() for parameter in self.shared.dense),
        }

    def probe(self) -> dict[str, float]:
        numbers = torch.zeros(PROBE)
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        taken = time.perf_counter() - start
        return {"seconds": taken, "asked": 0, "sent": 0, "dense": PROBE}

    def step(self, batch: Batch) -> float:
        """Seconds of one step of all processes."""
        dist.barrier()
        start = time.perf_counter()
        self.optimiser.zero_grad()
        whole = self.shared.begin(batch, (False, False))
        logits = self.model(batch)
        mass, _ = whole()
        loss = binary_cross_entropy(logits, batch.label, mass=mass)
        loss.backward()
        self.shared.sum(loss.detach(), {}, share=1 / self.world)
        self.optimiser.step()
        dist.barrier()
        return time.perf_counter() - start


def obey(orders: Connection, store: str, world: int, rank: int) -> None:
    """Take steps as each order says, by the number of their rows and a seed; end at an order of -1 rows."""
    training = Training(store, world, rank)
    while (order := orders.recv())[0] >= 0:
        orders.send(training.steps(*order))
    os._exit(0)  # gloo aborts at the interpreter's own exit


def start(folder: Path, world: int) -> list[Connection]:
    """Processes of one world, forked, so that none imports torch again."""
    lines, fork = [], get_context("fork")
    for rank in range(world):
        here, there = fork.Pipe()
        fork.Process(target=obey, args=(there, str(folder / f"store-{world}"), world, rank)).start()
        lines.append(here)
    return lines


def ask(lines: Sequence[Connection], rows: int, seed: int) -> dict[str, float]:
    """What one world says of some steps, its slowest process for all."""
    for line in lines:
        line.send((rows, seed))
    told = [line.recv() for line in lines]
    found = {name: statistics.mean(one[name] for one in told) for name in told[0]}
    return found | {"seconds": max(one["seconds"] for one in told)}


def measured(folder: Path) -> list[dict[str, float]]:
    """A line a case: processes, rows, the median of the seconds, and per process what it asked and sent."""
    worlds = {world: start(folder, world) for world in WORLDS}
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    began, turn = time.perf_counter(), 0
    while turn < LEAST_TURNS or time.perf_counter() < began + SECONDS:
        turn += 1
        for world, lines in worlds.items():
            for rows in (*BATCHES, *((0,) if world > 1 else ())):
                found.setdefault((world, rows), []).append(ask(lines, rows, 100 * turn))
    for line in (one for lines in worlds.values() for one in lines):
        line.send((-1, 0))
    return [
        {"processes": world, "batch_rows": rows}
        | {name: statistics.median(one[name] for one in turns) for name in turns[0]}
        | {"turns": len(turns)}
        for (world, rows), turns in found.items()
    ]


def main(words: Sequence[str]) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(Path(folder))
    Path(words[0]).write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
