"""The demo: is HAMUR better than one shared network here, beyond what another seed does?

Three trainings on one table: (a) a shared MLP that sees the domain as a field, (b) HAMUR on the same
backbone, (a') the MLP again with another seed. The table that comes out shows b - a beside a' - a.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from isthmus import sources
from isthmus.config import Config, load_config
from isthmus.errors import ConfigError
from isthmus.metrics import TextTable
from isthmus.report import side_by_side, to_markdown
from isthmus.run import Listener, Notice, Run, compare, fit
from isthmus.run.notice import silent

DATA_SETS = ("movielens-1m", "synthetic")


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo found; prints as its table and what to do next."""

    table: TextTable
    folder: Path  # with the three runs and the report
    config: Path
    runs: tuple[Run, Run, Run]  # a, b and a'
    seconds: float

    def __str__(self) -> str:
        a, b, again = (run.path for run in self.runs)
        return "\n".join(
            [
                "",
                str(self.table),
                "",
                f"runs: a = {a}, b = {b}, a' = {again}",
                f"report: {self.folder / 'report.md'}",
                "try next:",
                f"  isthmus compare {a} {b}",
                f"  isthmus evaluate {b} --json -",
                f"  isthmus fit {self.config} --set model.towers=per_domain",
                "  isthmus init TABLE --domain COLUMN --label COLUMN     # your own table",
                f"demo finished in {self.seconds:.0f} s",
            ]
        )


def demo(
    data: str = "movielens-1m", *, out: str | Path = "demo", progress: Listener | None = None
) -> Demo:
    """Make the table in ``OUT/DATA``, train three models there, and put them side by side.

    ``data``: ``movielens-1m`` (fetched once, 13.5 MB) or ``synthetic`` (no network). Each call
    trains anew, in the next free ``OUT/DATA/runs-N``; the table and its config are made again
    unless the config was changed by hand, which is refused. Raises IsthmusError.
    """
    begun = time.perf_counter()
    tell = progress or silent
    if data not in DATA_SETS:
        raise ConfigError(f"--data must be one of {', '.join(DATA_SETS)}, got {data!r}")
    place = Path(out) / data
    make = sources.movielens_1m if data == "movielens-1m" else sources.write_synthetic
    make(place, report=lambda line: tell(Notice("table", line)))
    config = place / "config.yaml"
    folder = _next_folder(place)
    adapted = load_config(config)
    shared = load_config(adapted, ["model.adapter={name: none}"])
    again = load_config(shared, [f"train.seed={shared.train.seed + 1}"])
    plain = shared.model.backbone.name
    named = {plain: shared, adapted.model.adapter.name: adapted, f"{plain}-again": again}
    a, b, control = (
        _trained(name, settings, folder, number, tell)
        for number, (name, settings) in enumerate(named.items(), start=1)
    )
    table = side_by_side(a.evaluate(), b.evaluate(), compare(a, b), compare(a, control))
    (folder / "report.md").write_text(to_markdown(table) + "\n", encoding="utf-8")
    return Demo(table, folder, config, (a, b, control), time.perf_counter() - begun)


def _trained(name: str, config: Config, folder: Path, number: int, tell: Listener) -> Run:
    tell(Notice("demo", f"training {number} of 3: {name}, seed {config.train.seed}"))
    return fit(config, out=folder / name, progress=tell)


def _next_folder(place: Path) -> Path:
    """Make the first ``runs-N`` that does not exist."""
    number = 1
    while (place / f"runs-{number}").exists():
        number += 1
    folder = place / f"runs-{number}"
    folder.mkdir()
    return folder
