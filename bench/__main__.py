"""Every number of docs/bench.md, in one process: ``make bench``. Prints Markdown, then JSON."""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench import (
    adapters,
    batch,
    data,
    diagnosis,
    extending,
    inputs,
    models,
    networks,
    processes,
    recipes,
    serving,
    sharding,
    starting,
    viewing,
)
from bench.measure import Row, load_now

PAGE = Path(__file__).parents[1] / "docs" / "bench.md"
RECORD = PAGE.with_suffix(".json")
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/bench.md as well")
    parser.add_argument("--only", default="", help="comma-separated numbers, such as 2,3")
    parser.add_argument("--folder", type=Path, help="keep tables and runs here [default: not]")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    torch.set_num_threads(CORES)
    load = load_now()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["ISTHMUS_CACHE"] = str(folder / "cache")  # goes with the tables it is of
        parts: dict[str, Callable[[], list[Row]]] = {
            "1": lambda: models.training(folder),
            "2": adapters.step_against_backbone,
            "3": adapters.many_domains,
            "4": models.large_tables,
            "5": lambda: data.everything(folder),
            "6": lambda: diagnosis.everything(folder),
            "7": lambda: inputs.everything(folder),
            "8": adapters.attached_step,
            "9": lambda: networks.everything(folder),
            "10": networks.sparse_experts,
            "11": lambda: recipes.steps(folder),
            "12": lambda: batch.everything(folder),
            "13": lambda: extending.seconds_of_extend(folder),
            "14": lambda: serving.everything(folder),
            "15": lambda: sharding.everything(folder),
            "16": lambda: processes.everything(folder),
            "17": lambda: viewing.seconds_of_a_table(folder),
            "18": starting.everything,
        }
        for number, part in parts.items():
            if not only or number in only:
                found = part()
                rows += found
                if options.write:
                    write(found, number, load)
    print(to_markdown(rows, load))
    print(json.dumps([row.to_dict() for row in rows], indent=2))


def write(found: list[Row], number: str, load: float) -> None:
    """Put one number's lines in place of its former ones, on the page and in the record."""
    held = [Row(**row) for row in json.loads(RECORD.read_text())] if RECORD.exists() else []
    others = (row for row in held if number_of(row) != int(number))
    rows = sorted([*found, *others], key=number_of)
    RECORD.write_text(json.dumps([row.to_dict() for row in rows], indent=2) + "\n")
    PAGE.write_text(to_markdown(rows, load))


def number_of(row: Row) -> int:
    """The number that a line belongs to: how its name begins."""
    return int(row.name.split()[0].rstrip("."))


def to_markdown(rows: list[Row], load: float) -> str:
    lines = [
        "# Bench",
        "",
        "`make bench` writes this page. The contestants take turns in one process, on 2 cores. Each ratio is a ratio of"
        " medians over at least 5 turns, after a warm-up. A bound that is missed stays here and says so.",
        "",
        "Absolute values move with the machine's load. Ratios move much less. A number that was not measured in the last"
        " run keeps its lines. The load is the load of the last run.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__},"
        f" load before the start {load:.2f}.",
        *(["", f"**The machine was not quiet (load {load:.2f}).**"] if load > 0.5 else []),
        "",
        "| number | ratio | bound | met | absolute values |",
        "|---|---:|---|---|---|",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        values = "; ".join(f"{name}: {value}" for name, value in row.values.items())
        lines.append(f"| {row.name} | {ratio} | {row.bound} | {met} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
