"""Processes that form a gloo group and run one function each, forked by one server that imports once.

    found = on_ranks("sharded_scenarios", tmp_path, worlds=(2, 4))

calls ``sharded_scenarios.run(group, folder)`` in two processes, then in four, and gives what each
returned: tensors by name, passed through files. A process that fails fails the call, with its fault.
"""

import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist

GROUP_SECONDS = 60
SECONDS = 600  # on a machine with much else to do


def on_ranks(
    module: str, folder: Path, worlds: Sequence[int] = (2, 4), function: str = "run"
) -> dict[int, list[dict[str, Tensor]]]:
    call = [sys.executable, __file__, module, function, str(folder), *map(str, worlds)]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        call,
        env={**os.environ, "PYTHONPATH": path},
        timeout=SECONDS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {
        world: [load_file(folder / f"found-{world}-{rank}") for rank in range(world)]
        for world in worlds
    }


def serve(module: str, function: str, folder: Path, worlds: Sequence[int]) -> int:
    """Fork each world in turn; give the number of processes that failed."""
    call = getattr(importlib.import_module(module), function)
    torch.set_num_threads(1)
    failed = 0
    for world in worlds:
        started = []
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                # gloo aborts at the interpreter's own exit, on torch 2.13
                os._exit(rank_of(call, folder, rank, world))
            started.append(pid)
        failed += sum(os.waitpid(pid, 0)[1] != 0 for pid in started)
    return failed


def rank_of(call, folder: Path, rank: int, world: int) -> int:
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store-{world}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=GROUP_SECONDS),
        )
        found = call(dist.group.WORLD, folder)
        tensors = {name: tensor.contiguous().clone() for name, tensor in found.items()}
        save_file(tensors, folder / f"found-{world}-{rank}")
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001, the caller tells of it
        sys.stderr.write(f"process {rank} of {world}: {traceback.format_exc()}\n")
        return 1
    return 0


if __name__ == "__main__":
    name, of, place, *counts = sys.argv[1:]
    sys.exit(min(serve(name, of, Path(place), [int(count) for count in counts]), 1))
