"""How a process joins the others that torchrun started with it, and how it leaves them."""

import os
import sys
import threading
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from isthmus.errors import ConfigError
from isthmus.ranks.ranks import ALONE, RankError, Ranks, reason_of

PATIENCE = timedelta(seconds=60)
SLACK = 1.0  # seconds that torch may take to say that nobody came
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_started: list[Ranks] = []  # the ranks of this process, once they are started


def start_ranks(*, patience: timedelta = PATIENCE, meeting: timedelta = PATIENCE) -> Ranks:
    """Join the processes that ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` tell of.

    torchrun sets them. Without ``RANK`` and ``WORLD_SIZE``, and with a world of 1, the process is alone.
    A second call gives what the first one gave. On a machine with GPUs the process takes the GPU with
    the number ``LOCAL_RANK``. ``meeting``: how long a rank waits for the others to start; ``patience``: how long it waits for them
    later.

    Raises ConfigError where the variables do not make sense, or there are fewer GPUs than processes of
    this machine; RankError where the others do not come, or the port is in use.
    """
    if _started:
        return _started[0]
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys() or _number("WORLD_SIZE") == 1:
        return ALONE
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise ConfigError(
            f"several processes need the environment variables {', '.join(NEEDED)}, which torchrun sets,"
            f" got none of {', '.join(missing)}"
        )
    if dist.is_initialized():
        raise ConfigError(
            "fit starts the process group by itself, so none must be there, got one with backend"
            f" {dist.get_backend()!r}"
        )
    rank, size, local = _number("RANK"), _number("WORLD_SIZE"), _local()
    if not 0 <= rank < size:
        raise ConfigError(f"RANK must be from 0 to below WORLD_SIZE, got {rank} of {size}")
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        if local >= (devices := torch.cuda.device_count()):
            raise ConfigError(
                f"each process of a machine needs a GPU of its own, got {devices} for LOCAL_RANK"
                f" {local}; CUDA_VISIBLE_DEVICES= trains on the CPU"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        # torchrun keeps one store over its restarts, with the addresses of processes that are gone.
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"start {start}", _met(rank, size, meeting))
        store.set_timeout(patience)
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=patience,
        )
    except (RuntimeError, ValueError) as fault:
        raise RankError(
            f"rank {rank} of {size} must meet the others at {place} within"
            f" {meeting.total_seconds():g} s, got: {reason_of(fault)}"
        ) from fault
    ranks = Ranks(rank, size, local, PrefixStore("isthmus", store), patience)
    _started.append(ranks)
    return ranks


def _met(rank: int, size: int, meeting: timedelta) -> Store:
    """The store that all ranks share.

    In a thread, because torch waits without an end for a stranger at the port that says nothing.
    """
    found: list[Store] = []
    faults: list[Exception] = []

    def meet() -> None:
        try:
            store, _, _ = next(rendezvous("env://", rank, size, timeout=meeting))
            found.append(store)
        except (RuntimeError, ValueError) as fault:
            faults.append(fault)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    thread.join(meeting.total_seconds() + SLACK)
    if faults:
        raise faults[0]
    if not found:
        raise RuntimeError("no answer; another program may hold the port")
    return found[0]


def leave(code: int) -> None:
    """End this process, where it is one of several; otherwise do nothing.

    On torch 2.13 gloo aborts now and then when the interpreter ends by itself ("terminate called
    without an active exception"). So the process ends here. ``code``: its exit code; with 0 the ranks
    wait for each other first.
    """
    if not _started:
        return
    if code == 0:
        try:
            _started[0].barrier()
        except RankError:
            code = 1
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _local() -> int:
    return _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else _number("RANK")


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text)
