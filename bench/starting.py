"""Number 18: what the command line and the package take to start. ``-m bench.starting``.

Seconds are those of the processor, in a process of its own: on a quiet machine they are the seconds that one
waits, and a busy one moves them less. Python's own start is part of the first number.
"""

import resource
import statistics
import subprocess
import sys
import time

from bench.measure import RUNS, Row, at_most, load_now

HELP = ["-c", "from isthmus.cli import app; app(prog_name='isthmus')", "--help"]
IMPORT = """
import time
begun = time.process_time()
import isthmus
print(time.process_time() - begun)
"""


def of_children(words: list[str]) -> tuple[float, float]:
    """Seconds of processor and clock of one call of Python."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    waited, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, waited


def import_seconds() -> float:
    """Seconds of processor that ``import isthmus`` takes, once Python runs."""
    told = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True
    )
    return float(told.stdout)


def everything() -> list[Row]:
    of_children(HELP)  # once, so that the files lie in memory
    helps = [of_children(HELP) for _ in range(RUNS)]
    bare = statistics.median(of_children(["-c", "pass"])[0] for _ in range(RUNS))
    imports = statistics.median(import_seconds() for _ in range(RUNS))
    used, waited = (statistics.median(column) for column in zip(*helps, strict=True))
    return [
        at_most(
            "18 isthmus --help, seconds of the processor",
            used,
            0.3,
            python=f"{bare:.3f} s",
            waited=f"{waited:.2f} s",
            load=f"{load_now():.0f}",
        ),
        at_most("18 import isthmus, seconds of the processor", imports, 0.1),
    ]


if __name__ == "__main__":
    for row in everything():
        print(row)
