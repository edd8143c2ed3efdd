"""A process that is one rank of several and meets a fault, for test_ranks_faults.py: no table, no model.

``python faults_of_ranks.py WHAT SECONDS MEETING``: what happens, how long a rank waits for the others, and how
long at the start.
"""

import sys
import time
from datetime import timedelta

import torch

from isthmus.errors import IsthmusError
from isthmus.ranks import Ranks, leave, start_ranks


def stay_away(ranks: Ranks) -> None:
    """Rank 1 is alive and does not come."""
    if ranks.is_first:
        ranks.sum(torch.ones(2))
    else:
        time.sleep(3 * ranks.patience.total_seconds())


def say_nothing(ranks: Ranks) -> None:
    """Rank 0 is alive and never gives what the others wait for, nor a sign of life."""
    if ranks.is_first:
        time.sleep(3 * ranks.patience.total_seconds())
    else:
        ranks.first(lambda: None)


def take_long(ranks: Ranks) -> None:
    """Rank 0 works for longer than a rank waits."""
    told = ranks.first(lambda: time.sleep(3 * ranks.patience.total_seconds()) or {"x": [1, None]})
    assert told == {"x": [1, None]}


def go_well(ranks: Ranks) -> None:
    """All that ranks do together."""
    rank = ranks.rank
    assert ranks.sum(torch.tensor([rank + 1.0, 1.0])).tolist() == [3.0, 2.0]
    found = ranks.gather(torch.full((rank * 2, 3), float(rank)))
    assert [tuple(one.shape) for one in found] == [(0, 3), (2, 3)]
    assert (found[1] == 1).all()
    assert ranks.tell({"é": rank}) == [{"é": 0}, {"é": 1}]
    mine = torch.full((2,), float(rank))
    ranks.copy_from_first(mine)
    assert mine.tolist() == [0.0, 0.0]
    assert ranks.first(lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert ranks.every(lambda: rank) == rank


def main(what: str, seconds: float, meeting: float) -> None:
    code = 0
    try:
        ranks = start_ranks(patience=timedelta(seconds=seconds), meeting=timedelta(seconds=meeting))
        globals()[what](ranks)
    except IsthmusError as fault:
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
        code = 2
    leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
