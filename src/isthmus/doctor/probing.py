"""Imports, tried in a process of their own: one that dies takes nobody along.

The process is given modules, tries one after the other, and then tells what torch and the cache say of
this machine. It writes a line of JSON before and after each step.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

SECONDS = 300  # that all imports may take
SHOWN = 200  # characters of a fault
PROGRAM = "import sys; from isthmus.doctor.probing import main; main(sys.argv[1:])"


@dataclass(slots=True)
class Probed:
    """``faults``: why a module cannot be imported, by its name. ``facts``: what torch and the cache say."""

    faults: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def probe(modules: Sequence[str]) -> Probed:
    """Import each module in another process; after one that kills the process, go on behind it."""
    found, left = Probed(), list(modules)
    while True:
        lines, ending = _lines(left)
        begun = ""
        for line in lines:
            begun = line.get("begin", begun)
            if "fault" in line:
                found.faults[begun] = line["fault"]
            if "facts" in line:
                found.facts = line["facts"]
                return found
        if (
            begun not in left
        ):  # no module is to blame: the process did not begin, or not tell its facts
            found.faults["isthmus"] = ending
            return found
        found.faults[begun] = ending
        left = left[left.index(begun) + 1 :]


def _lines(modules: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """What the process told, and how it ended."""
    # Without the present folder, whose files may bear the names of modules.
    command = [sys.executable, "-P", "-c", PROGRAM, *modules]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
        told, ending = done.stdout, f"the process ended with code {done.returncode}"
        if done.returncode and (last := done.stderr.strip().splitlines()[-1:]):
            ending = f"{ending}: {last[0][:SHOWN]}"
    except subprocess.TimeoutExpired as late:
        told = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else ""
        ending = f"it took more than {SECONDS} s"
    found = []
    for line in told.splitlines():
        if line.startswith("{"):  # a module may print, too
            found.append(json.loads(line))
    return found, ending


def main(modules: Sequence[str]) -> None:
    """Try to import each module, then tell the facts."""
    for module in modules:
        _tell(begin=module)
        try:
            import_module(module)
        except Exception as fault:  # noqa: BLE001  the fault is what was asked for
            first = (str(fault).strip().splitlines() or [""])[0][:SHOWN]
            _tell(fault=f"{type(fault).__name__}: {first}")
    _tell(begin="isthmus")
    _tell(facts=_facts())


def _facts() -> dict[str, Any]:
    import torch

    from isthmus.data.store import cache
    from isthmus.sharding.torchrec_table import OF_FBGEMM

    tables = cache.entries()
    gpus = [torch.cuda.get_device_properties(at) for at in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda or "",
        "gpus": [{"name": gpu.name, "bytes": gpu.total_memory} for gpu in gpus],
        "cache": str(cache.cache_folder()),
        "tables": len(tables),
        "bytes": sum(table.size for table in tables),
        "fbgemm": list(OF_FBGEMM),
    }


def _tell(**line: Any) -> None:
    # In one piece, and at once: the next step may kill the process.
    os.write(1, (json.dumps(line) + "\n").encode())
