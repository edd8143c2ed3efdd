"""One fit by several processes of this machine: torch's own launcher, started anew after a death."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from isthmus.cli.app import FAULT, INTERRUPTED, LOST

RESTARTS = 3
# A refusal, a fault of Python, the user's wish: another start would end the same way.
FINAL = (FAULT, 1, INTERRUPTED)
STOPPED = (-signal.SIGINT, -signal.SIGTERM)


def fit_together(processes: int, words: Sequence[str], *, out: Path, resume: bool) -> None:
    """Let so many processes run ``isthmus fit *words`` as one, in the run folder ``out``.

    Where a process is killed, all end, and start again from the last checkpoint, 3 times at most. The
    cores are shared out evenly, unless ``OMP_NUM_THREADS`` says how many each process takes. Raises
    typer.Exit with the code of the process that failed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    for start in range(RESTARTS + 1):
        again = ["--resume"] if resume or start else []
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
        )
        launch = elastic_launch(config, sys.executable)
        try:
            with _only_the_children_talk():
                launch("-m", "isthmus", "fit", *words, "--out", str(out), *again)
        except ChildFailedError as failed:
            codes = [one.exitcode for one in failed.failures.values()]
            killed = any(code < 0 and code not in STOPPED for code in codes)
            told = [code for code in FINAL if code in codes]
            stopped = any(code in STOPPED for code in codes)
            if (not killed and (told or stopped)) or start == RESTARTS:
                raise typer.Exit(told[0] if told else LOST) from None
        except SignalException:
            raise KeyboardInterrupt from None
        else:
            return


@contextmanager
def _only_the_children_talk() -> Iterator[None]:
    """Keep the launcher's own account of a failure out of the way: the process that failed told it."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
