"""A process that tunes and sends itself SIGKILL after so many looks: CONFIG OUT TRIALS LOOKS.

The growing of a forest counts as a look: trees have no other.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import isthmus
from isthmus.tuning import attempt
from isthmus.tuning.attempt import SeenLook
from isthmus.tuning.search import OpenTrial


def main() -> None:
    config, out, trials, looks = sys.argv[1:]
    torch.set_num_threads(1)
    goes_on, grow, left = OpenTrial.goes_on, attempt.grow, [int(looks)]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(self: OpenTrial, look: SeenLook) -> bool:
        count()
        return goes_on(self, look)

    def dying_forest(*rows: Any) -> Any:
        count()
        return grow(*rows)

    OpenTrial.goes_on = dying
    attempt.grow = dying_forest
    isthmus.tune(Path(config), out, trials=int(trials))


if __name__ == "__main__":
    main()
