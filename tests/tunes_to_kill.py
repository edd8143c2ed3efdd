"""A process that tunes and sends itself SIGKILL after so many looks: CONFIG OUT TRIALS LOOKS."""

import os
import signal
import sys
from pathlib import Path

import torch

import isthmus
from isthmus.tuning.attempt import SeenLook
from isthmus.tuning.search import OpenTrial


def main() -> None:
    config, out, trials, looks = sys.argv[1:]
    torch.set_num_threads(1)
    goes_on, left = OpenTrial.goes_on, [int(looks)]

    def dying(self: OpenTrial, look: SeenLook) -> bool:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return goes_on(self, look)

    OpenTrial.goes_on = dying
    isthmus.tune(Path(config), out, trials=int(trials))


if __name__ == "__main__":
    main()
