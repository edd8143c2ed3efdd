"""The results in docs/benchmark.md: every model of the package on six tables. ``make benchmark``.

Each table is one benchmark in a folder of its own, so a stopped command goes on where it was. Nothing
is chosen here: models, trunk, trials and seeds were fixed beforehand. The two splits of MovieLens-1M
have smaller ones, because a training takes 20 times as long there.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from isthmus.benchmarking import Benchmark, benchmark
from isthmus.disk import write_whole
from isthmus.report import to_markdown
from isthmus.run import Notice
from isthmus.sources import insteval, movielens_1m
from isthmus.sources.planted import angles, planted

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- results: written by make benchmark -->", "<!-- results: end -->"
PLANTED_ROWS = 10_000  # of each domain
LEVELS = {  # degrees between the two camps of two domains each
    "agree": (0, "agree: what one camp likes, the other likes"),
    "unrelated": (90, "unrelated: one camp says nothing of the other"),
    "conflict": (180, "conflict: what one camp likes, the other dislikes"),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """``trunk``: parameters at most. ``trials``: of each model's search. ``seeds``: trainings after it."""

    trunk: int
    trials: int
    seeds: int


# Ten seeds, because with five the control's own spread hid the margin of the planted conflict: a choice
# made after a first reading of its test rows, and the only one.
PLANTED, QUICK, SLOW = Terms(100_000, 8, 10), Terms(100_000, 8, 5), Terms(30_000, 3, 3)


@dataclass(frozen=True, slots=True)
class Subject:
    """One table of the page. ``config``: makes the table where it is missing, and gives a config."""

    name: str
    title: str
    config: Callable[[Path], dict[str, Any]]
    terms: Terms = QUICK


def subjects(rows: int) -> tuple[Subject, ...]:
    """Every table, the quick ones first. ``rows``: of each planted domain."""
    made = [
        Subject(
            f"planted-{name}",
            f"Planted, {told}",
            lambda folder, name=name, degrees=degrees: planted_config(folder, name, degrees, rows),
            PLANTED,
        )
        for name, (degrees, told) in LEVELS.items()
    ]
    return (
        *made,
        Subject("insteval", "InstEval by department, random split", insteval_config),
        Subject("movielens-random", "MovieLens-1M by age, random split", movielens_config, SLOW),
        Subject(
            "movielens-time",
            "MovieLens-1M by age, time split",
            lambda folder: by_time(movielens_config(folder)),
            SLOW,
        ),
    )


def planted_config(folder: Path, name: str, degrees: float, rows: int) -> dict[str, Any]:
    """Two camps of two domains, at an angle to each other."""
    made = planted(rows=rows, relation=angles([0, 0, degrees, degrees]), items=rows // 20, seed=1)
    path = folder / f"planted-{name}-{rows}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(made.table, path)
    return {
        "data": made.config(str(path.absolute())),
        "model": {"backbone": {"name": "mlp", "widths": [256, 128]}},
        "train": {"epochs": 20, "patience": 2},
    }


def insteval_config(folder: Path) -> dict[str, Any]:
    """The config that ``isthmus data insteval`` writes."""
    return _brought(folder / "insteval", insteval)


def movielens_config(folder: Path) -> dict[str, Any]:
    """The config that ``isthmus data movielens-1m`` writes, with a look once an epoch."""
    config = _brought(folder / "movielens-1m", movielens_1m)
    return {**config, "train": {**config["train"], "looks_per_epoch": 1}}


def _brought(place: Path, source: Callable[[Path], Path]) -> dict[str, Any]:
    if not (place / "config.yaml").exists():  # a table written anew would begin everything anew
        source(place)
    config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["table"] = str((place / config["data"]["table"]).absolute())
    return config


def by_time(config: dict[str, Any]) -> dict[str, Any]:
    """The same table, the last rows tested."""
    split = {"by": "time", "fractions": [0.8, 0.1, 0.1]}
    return {**config, "data": {**config["data"], "split": split}}


def finished(folder: Path, rows: int) -> list[tuple[Subject, Benchmark]]:
    """The tables whose benchmark is finished, also by an earlier call."""
    places = [(one, folder / one.name) for one in subjects(rows)]
    return [
        (one, Benchmark.open(place)) for one, place in places if (place / "report.json").exists()
    ]


def results(found: Sequence[tuple[Subject, Benchmark]], wanted: Sequence[Subject]) -> Iterator[str]:
    """The lines between the marks of the page. Each table says its own trials and seeds."""
    done = {subject.name for subject, _ in found}
    if missing := [subject.title for subject in wanted if subject.name not in done]:
        yield f"Not run yet: {'; '.join(missing)}."
    for subject, one in found:
        yield f"### {subject.title}"
        yield f"[The page](pages/benchmark-{subject.name}.html)."
        yield to_markdown(one.table())


def put(page: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} must hold the marks {BEGIN} and {END}")
    body = "\n\n".join(lines)
    write_whole(page, f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")


def main(arguments: list[str] | None = None, tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--docs", type=Path, default=DOCS, help="where benchmark.md stands")
    parser.add_argument("--only", default="", help="comma-separated names of tables")
    parser.add_argument("--models", default="", help="comma-separated; default: every model")
    parser.add_argument("--trunk", type=int, help="in place of the table's own")
    parser.add_argument("--trials", type=int, help="in place of the table's own")
    parser.add_argument("--seeds", type=int, help="in place of the table's own")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=PLANTED_ROWS, help="of each planted domain")
    asked = parser.parse_args(arguments)
    wanted = [name for name in asked.only.split(",") if name]
    chosen = [one for one in subjects(asked.rows) if not wanted or one.name in wanted]

    def say(notice: Notice) -> None:
        if notice.done is None or notice.text.endswith("cost measured"):
            tell(str(notice))

    for subject in chosen:
        tell(subject.title)
        one = benchmark(
            subject.config(asked.folder / "tables"),
            asked.folder / subject.name,
            models=asked.models.split(",") if asked.models else None,
            trunk=asked.trunk or subject.terms.trunk,
            trials=asked.trials or subject.terms.trials,
            seeds=asked.seeds or subject.terms.seeds,
            jobs=asked.jobs,
            progress=say,
        )
        page = asked.docs / "pages" / f"benchmark-{subject.name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, (one.path / "report.html").read_text(encoding="utf-8"))
        lines = results(finished(asked.folder, asked.rows), subjects(asked.rows))
        put(asked.docs / "benchmark.md", list(lines))


if __name__ == "__main__":
    main()
