"""A benchmark that sends itself SIGKILL at the n-th notice that holds a text: CONFIG OUT TEXT N."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from small_benchmarks import small_benchmark


def main() -> None:
    config, out, text, number = sys.argv[1:]
    torch.set_num_threads(1)
    left = [int(number)]

    def dying(notice: Any) -> None:
        left[0] -= text in notice.text
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    small_benchmark(Path(config), Path(out), progress=dying)


if __name__ == "__main__":
    main()
