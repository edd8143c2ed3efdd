"""Write docs/accuracy.md: what ``init`` writes, against what a user would pick instead.

Every result has a folder, so a stopped command goes on where it was. Nothing is chosen on test rows:
each contestant has one config, or chooses on validation rows, and is read on the test rows once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from bench.accuracy.finished import read
from bench.accuracy.page import AXIS, EDGE, PICTURE, bars, write
from bench.accuracy.shelf import Shelf
from bench.accuracy.tables import subjects
from bench.accuracy.trainings import train_missing
from bench.chart import drawn
from isthmus.disk import write_whole

SEEDS = 3
DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: list[str] | None = None, tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="comma-separated names of tables")
    parser.add_argument("--page-only", action="store_true", help="write the page, train nothing")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    shelves = [Shelf(folder, subject) for subject in subjects(folder / "tables")]
    only = set(filter(None, options.only.split(",")))
    for shelf in shelves:
        if not options.page_only and (not only or shelf.subject.name in only):
            train_missing(shelf, options.seeds, tell)
    read_all = {shelf.subject.title: read(shelf, options.seeds) for shelf in shelves}
    held = [found for found in read_all.values() if found is not None]
    write_whole(DOCS / PICTURE, drawn(bars(held), AXIS, EDGE))
    page = write(held, [title for title, found in read_all.items() if found is None])
    write_whole(DOCS / "accuracy.md", page)


if __name__ == "__main__":
    main()
