"""A process that fits in forked children and kills them, on orders from test_kill.py.

Orders are lines of JSON on stdin; each is answered by one line of JSON. A child that is told
``kill_at: n`` sends itself SIGKILL at its n-th write to the disk: before the n-th renaming of a file or
folder, or, where ``half`` is set, after half of the n-th file of tensors. ``kill_after``: this process
sends SIGKILL after so many seconds.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  by the first optimiser: once here, and not in every child

import isthmus
from isthmus import checkpoint
from isthmus.bundle import served
from isthmus.errors import IsthmusError


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_renames(kill_at: int | None) -> list[int]:
    """Count the renamings, and die before the one that is ordered."""
    count = [0]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == kill_at:
                die()
            return function(*args, **kwargs)

        return call

    os.replace, os.rename = counting(os.replace), counting(os.rename)
    return count


def break_tensors(kill_at: int) -> None:
    """Die with half of a file of tensors on the disk."""
    count = [0]
    for module in (checkpoint, served):
        save = module.save_file

        def half(tensors: Any, path: Path, save: Callable[..., Any] = save) -> None:
            save(tensors, path)
            count[0] += 1
            if count[0] == kill_at:
                os.truncate(path, path.stat().st_size // 2)
                die()

        module.save_file = half  # pyright: ignore[reportAttributeAccessIssue]


def child(order: dict[str, Any], answer: int) -> None:
    if order.get("half"):
        break_tensors(order["kill_at"])
        renames = [0]
    else:
        renames = watch_renames(order.get("kill_at"))
    begun = time.perf_counter()
    try:
        isthmus.fit(order["config"], order["table"], out=order["out"], resume=order["resume"])
        told: dict[str, Any] = {"fault": None}
    except IsthmusError as fault:
        told = {"fault": str(fault)}
    told |= {"renames": renames[0], "seconds": time.perf_counter() - begun}
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
    if order.get("kill_after") is not None:
        time.sleep(order["kill_after"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return ended(pid, reading)


def ended(pid: int, reading: int) -> dict[str, Any]:
    """How a child ended, and what it wrote into its pipe."""
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": killed, **(json.loads(told) if told else {})}


def main() -> None:
    # Imported before the forks, so that each child begins at once.
    import torch.utils.tensorboard  # noqa: F401

    _ = isthmus.fit, isthmus.Run
    for line in sys.stdin:
        sys.stdout.write(json.dumps(obey(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
