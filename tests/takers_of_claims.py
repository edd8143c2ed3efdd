"""A process that takes over claims of a dead one, against others: for test_shared_trainings.py.

    python takers_of_claims.py FOLDER SEED

It says ``ready`` when it has found the owner dead, waits for a line, and says what it took.
"""

import random
import sys
import time
from pathlib import Path

from isthmus.experiments.peers import Peers, Sharing
from isthmus.experiments.queue import Queue

KEYS = [f"{number:024x}" for number in range(400)]
DEAD = "gone-1-00000000"


def main(folder: Path, seed: int) -> None:
    queue = Queue(folder, Peers(folder, Sharing({}, beat=0.1, silence=3.0)))
    while not queue.is_free(KEYS[0]):
        time.sleep(0.05)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    generator = random.Random(seed)
    taken = []
    for number, key in enumerate(KEYS):
        if generator.random() < 0.3:  # otherwise with an old view of the folder
            queue.look()
        if number % 50 == 0:
            time.sleep(0.01 * generator.random())
        if queue.is_free(key) and queue.claim(key):
            assert queue.holds(key)
            taken.append(key)
    sys.stdout.write(" ".join(taken) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()  # nobody leaves before all have tried


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
