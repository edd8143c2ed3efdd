"""Worlds of a few processes on this machine, as torchrun would start them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import isthmus

HERE = Path(__file__).parent
SRC = Path(isthmus.__file__).parents[1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(**changes: Any) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if "RANK" not in name},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SRC), str(HERE)]),
        **{name: str(value) for name, value in changes.items()},
    }


def start_world(
    size: int, words: Sequence[Any], *, each: Sequence[dict[str, Any]] = (), **changes: Any
) -> list[subprocess.Popen[str]]:
    """Start ``python *words`` as so many ranks. ``each``: changes of the environment by rank."""
    port = changes.pop("MASTER_PORT", None) or free_port()
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(
                RANK=rank,
                LOCAL_RANK=rank,
                WORLD_SIZE=size,
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                **changes,
                **(each[rank] if each else {}),
            ),
        )
        for rank in range(size)
    ]


def ends(world: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each rank, which must all end in that time."""
    found = []
    try:
        for process in world:
            out, err = process.communicate(timeout=seconds)
            found.append((process.returncode, out, err))
    finally:
        for process in world:
            process.kill()
            process.communicate()
    return found
