"""The demo: what ``isthmus init`` writes, beside HAMUR on it and LightGBM alone, and another seed.

Trainings on one table: (a) the config that ``init`` writes, (b) the same with HAMUR, (c) a boosted forest
alone, and (a') (a) again with another seed. The table that comes out shows b - a and c - a beside a' - a.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from isthmus import sources
from isthmus.config import Config, load_config
from isthmus.data.encoding.trees import is_installed
from isthmus.disk import write_whole
from isthmus.errors import ConfigError
from isthmus.inspect import inspect_table
from isthmus.metrics import TextTable
from isthmus.report import side_by_side, to_markdown
from isthmus.run import Listener, Notice, Run, compare, fit
from isthmus.run.notice import silent

DATA_SETS = ("movielens-1m", "synthetic")
HAMUR = "model.adapter={name: hamur, bottleneck: 32, rank: 8}"


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo found; prints as its table and what to do next.

    ``runs``: init, hamur, trees (left out where LightGBM is not installed) and init-again.
    """

    table: TextTable
    folder: Path  # with the runs and the report
    config: Path
    runs: tuple[Run, ...]
    seconds: float

    def __str__(self) -> str:
        init, hamur = self.runs[0].path, self.runs[1].path
        data = load_config(self.config).data
        return "\n".join(
            [
                "",
                str(self.table),
                "",
                f"report: {self.folder / 'report.md'}",
                "runs: " + ", ".join(str(run.path) for run in self.runs),
                f"a is what `isthmus init` writes for {data.table}: {self.config}",
                "try next:",
                f"  isthmus compare {init} {hamur}",
                f"  isthmus evaluate {init} --json -",
                f"  isthmus diagnose {self.config} --out diagnosis --level quick --dry-run",
                "  isthmus init TABLE --domain COLUMN --label COLUMN     # your own table",
                f"demo finished in {self.seconds:.0f} s",
            ]
        )


def demo(
    data: str = "movielens-1m", *, out: str | Path = "demo", progress: Listener | None = None
) -> Demo:
    """Make the table in ``OUT/DATA``, train the models there, and put them side by side.

    ``data``: ``movielens-1m`` (fetched once, 13.5 MB) or ``synthetic`` (no network). Each call
    writes ``OUT/DATA/init.yaml`` and trains anew, in the next free ``OUT/DATA/runs-N``. The table is
    made again unless the config beside it was changed by hand, which is refused. Raises IsthmusError.
    """
    begun = time.perf_counter()
    tell = progress or silent
    if data not in DATA_SETS:
        raise ConfigError(f"--data must be one of {', '.join(DATA_SETS)}, got {data!r}")
    place = Path(out) / data
    make = sources.movielens_1m if data == "movielens-1m" else sources.write_synthetic
    make(place, report=lambda line: tell(Notice("table", line)))
    known = load_config(place / "config.yaml").data
    found = inspect_table(known.table, known.domain, known.label.column)
    config = place / "init.yaml"
    write_whole(config, found.config_text(folder=place))
    folder = _next_folder(place)
    init = load_config(config)
    named = {"init": init, "hamur": load_config(init, [HAMUR])}
    if is_installed():  # from the file, where keys are left out: trees have defaults of their own
        named["trees"] = load_config(config, ["model.name=trees"])
    named["init-again"] = load_config(init, [f"train.seed={init.train.seed + 1}"])
    runs = [
        _trained(name, settings, folder, f"{number} of {len(named)}", tell)
        for number, (name, settings) in enumerate(named.items(), start=1)
    ]
    a, *others, again = runs
    beside = [(other.evaluate(), compare(a, other)) for other in others]
    shown = side_by_side(a.evaluate(), beside, compare(a, again))
    write_whole(folder / "report.md", to_markdown(shown) + "\n")
    return Demo(shown, folder, config, tuple(runs), time.perf_counter() - begun)


def _trained(name: str, config: Config, folder: Path, which: str, tell: Listener) -> Run:
    tell(Notice("demo", f"training {which}: {name}, seed {config.train.seed}"))
    return fit(config, out=folder / name, progress=tell)


def _next_folder(place: Path) -> Path:
    """Make the first ``runs-N`` that does not exist."""
    number = 1
    while (place / f"runs-{number}").exists():
        number += 1
    folder = place / f"runs-{number}"
    folder.mkdir()
    return folder
