"""Processes that take over the claims of a dead one, all at once: for test_shared_trainings.py.

    python takers_of_claims.py FOLDER COUNT

It says in one line for each process what the process took.
"""

import os
import random
import sys
import time
from pathlib import Path

from isthmus.experiments.peers import Peers, Sharing
from isthmus.experiments.queue import Queue

KEYS = [f"{number:024x}" for number in range(400)]
DEAD = "gone-1-00000000"


def take(folder: Path, seed: int, go: int, say: int) -> None:
    queue = Queue(folder, Peers(folder, Sharing({}, beat=0.1, silence=2.0)))
    while not queue.is_free(KEYS[0]):
        time.sleep(0.05)
    os.write(say, b"ready\n")
    os.read(go, 1)
    generator = random.Random(seed)
    taken = []
    for number, key in enumerate(KEYS):
        if generator.random() < 0.3:  # otherwise with an old view of the folder
            queue.look()
        if number % 20 == 0:
            time.sleep(0.01 * generator.random())
        if queue.is_free(key) and queue.claim(key):
            assert queue.holds(key)
            taken.append(key)
    os.write(say, (" ".join(taken) + "\n").encode())
    os.read(go, 1)  # nobody leaves before all have tried
    os._exit(0)


def main(folder: Path, count: int) -> None:
    wait, go = os.pipe()
    heard = []
    for seed in range(count):
        here, say = os.pipe()
        if os.fork() == 0:
            take(folder, seed, wait, say)
        heard.append(os.fdopen(here))
    for one in heard:
        assert one.readline() == "ready\n"
    os.write(go, b"x" * count)
    for one in heard:
        sys.stdout.write(one.readline())
    os.write(go, b"x" * count)
    for _ in heard:
        assert os.wait()[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
