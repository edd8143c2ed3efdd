"""A process with an engine, to be killed by test_engine_kill.py and test_shared_trainings.py.

    python trainings_to_kill.py '{"table": ..., "cache": ..., "folder": ..., "jobs": ...}'

It says one line after each training, and ``end`` and how many it trained when all are finished. With
``shared`` the folder is shared with other such processes; its value is a term that all must agree on.
"""

import json
import sys
from pathlib import Path
from typing import Any

from isthmus.config import Config, validate
from isthmus.data import Dataset
from isthmus.experiments import Engine, Sharing, Training
from isthmus.train import Budget
from small_runs import settings

DOMAINS = ("home", "search", "mail")
BEAT, SILENCE = 0.2, 4.0  # seconds


def config(*, often: bool = True) -> Config:
    """``often``: a checkpoint after every step, so that a killed training goes on in its middle."""
    minutes = 0 if often else 10
    train = {"checkpoint_minutes": minutes, "batch_rows": 64, "epochs": 4, "patience": 4}
    return validate(Config, settings(**train))


def trainings(config: Config, seeds: int = 2) -> list[Training]:
    """All and each alone, with so many seeds, and a second stage of each; the starts are not named."""
    wanted = []
    for seed in range(seeds):
        train = config.train.model_copy(update={"seed": seed})
        joint = Training(model=config.model, train=train)
        for name in DOMAINS:
            wanted.append(Training(model=config.model, train=train, domains=(name,)))
            wanted.append(
                Training(
                    model=config.model,
                    train=train,
                    domains=(name,),
                    scored=(name,),
                    start=joint,
                    budget=Budget(steps=20, looks=4),
                )
            )
    return wanted


def main(order: dict[str, Any]) -> None:
    settled = config(often=not order["shared"])
    dataset = Dataset.from_table(settled.data, order["table"], cache=order["cache"])

    def tell(what: str, done: int, of: int, training: Training) -> None:
        sys.stdout.write(f"{what} {done} of {of}\n")
        sys.stdout.flush()

    sharing = Sharing({"level": order["shared"]}, beat=BEAT, silence=SILENCE)
    with Engine(
        [dataset],
        Path(order["folder"]),
        jobs=order["jobs"],
        tell=tell,
        sharing=sharing if order["shared"] else None,
    ) as engine:
        engine.run(trainings(settled, order["seeds"]), "done")
        sys.stdout.write(f"end {engine.trained_here} {engine.trained} {engine.cached}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
