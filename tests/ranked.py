"""Processes that form a gloo group and run one function each, started cheaply from one server.

    found = on_ranks(2, "sharded_scenarios", tmp_path)

calls ``sharded_scenarios.run(group, folder)`` in two processes, and gives what each returned: tensors
by name, passed through files. A process that fails fails the call, with the fault's text.
"""

import importlib
import multiprocessing
import os
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist

SECONDS = 120


def on_ranks(
    world: int, module: str, folder: Path, function: str = "run"
) -> list[dict[str, Tensor]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, module])
    place = Path(tempfile.mkdtemp(dir=folder))
    args = (world, module, function, place, folder)
    started = [context.Process(target=_one, args=(rank, *args)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    for process in started:
        if process.is_alive():
            process.kill()
    faults = sorted(place.glob("fault-*"))
    assert not faults, "\n".join(file.read_text() for file in faults)
    assert [process.exitcode for process in started] == [0] * world
    return [load_file(place / f"found-{rank}") for rank in range(world)]


def _one(
    rank: int, world: int, module: str, function: str, place: Path, folder: Path
) -> None:  # pragma: no cover, another process
    torch.set_num_threads(1)
    code = 0
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{place}/store",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=SECONDS / 2),
        )
        found = getattr(importlib.import_module(module), function)(dist.group.WORLD, folder)
        save_file(
            {name: t.contiguous().clone() for name, t in found.items()}, place / f"found-{rank}"
        )
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001, the caller tells of it
        (place / f"fault-{rank}").write_text(f"rank {rank}: {traceback.format_exc()}")
        code = 1
    os._exit(code)  # gloo aborts at the interpreter's own exit, on torch 2.13
