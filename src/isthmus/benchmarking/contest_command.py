"""benchmark() takes a config and models, and gives a folder with all of them on equal terms.

Kill it at any moment, and give the same command again: it goes on. See
`isthmus.benchmarking.contest_folder` for the files, `isthmus.benchmarking.equal_terms` for the terms.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.benchmarking.contenders import CONTROL, TREES, contenders
from isthmus.benchmarking.contest import Contest
from isthmus.benchmarking.contest_account import Rules, contest_account
from isthmus.benchmarking.contest_folder import ContestFolder
from isthmus.benchmarking.contest_plan import (
    BenchmarkPlan,
    ContestClock,
    expected_seconds,
    trials_before,
)
from isthmus.benchmarking.equal_terms import terms_of, trunk_of
from isthmus.benchmarking.own_networks import OwnNetworks
from isthmus.benchmarking.shared_rows import data_for_trees, with_domain
from isthmus.benchmarking.standing import Contestants
from isthmus.config import Config, load_config
from isthmus.data import Dataset, open_table
from isthmus.errors import ConfigError, RunError, SchemaError
from isthmus.metrics.text_table import TextTable
from isthmus.printable import printable, shown
from isthmus.report import to_markdown
from isthmus.report.benchmark import (
    benchmark_page,
    cost_table,
    quality_table,
    spread_table,
    whole_table,
)
from isthmus.run.notice import Listener, Notice, encoding, silent
from isthmus.run.texts import dataset_text
from isthmus.signature import taking
from isthmus.tuning.running import check_optuna, check_validation, with_table

BENCHMARKS = Path("benchmarks")
TRIALS = 20
SEEDS = 5


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A finished benchmark. ``path``: its folder; ``report``: what ``report.json`` holds."""

    path: Path
    report: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Benchmark":
        """Read the folder of a finished benchmark. Raises RunError where there is none."""
        file = Path(path) / "report.json"
        try:
            return cls(Path(path), json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"a benchmark must be finished, got no {file}") from None
        except ValueError as fault:
            raise RunError(f"{file} is damaged: {fault}") from fault

    def table(self) -> TextTable:
        """Show everything in one table, as ``report.md`` does."""
        return whole_table(self.report)

    def to_dict(self) -> dict[str, Any]:
        """Give what ``report.json`` holds."""
        return self.report

    def __str__(self) -> str:
        tables = (quality_table, spread_table, cost_table)
        return "\n\n".join(str(table(self.report)) for table in tables)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A benchmark of which everything is checked. Nothing of it is trained."""

    folder: ContestFolder
    rules: Rules
    dataset: Dataset
    forest: Dataset | None
    plan: BenchmarkPlan
    clock: ContestClock
    tell: Listener


def _prepared(
    config: str | Path | Mapping[str, Any] | Config,
    out: str | Path | None = None,
    *,
    models: Sequence[str] | None = None,
    trunk: int | None = None,
    trials: int = TRIALS,
    seeds: int = SEEDS,
    jobs: int = 1,
    set: Sequence[str] = (),
    progress: Listener | None = None,
) -> _Ready:
    """Check everything, encode the table, and size the models. The arguments are those of `benchmark`."""
    tell = progress or silent
    check_optuna("benchmark")
    for name, count in (("trials", trials), ("seeds", seeds), ("jobs", jobs)):
        if count < 1:
            raise ConfigError(f"{name} must be 1 or more, got {count}")
    chosen = contenders(models)
    settings = with_domain(with_table(load_config(config, set)))
    folder = ContestFolder(_target(config, out))
    folder.check(settings)
    opened = open_table(settings.data.table)
    dataset = Dataset.from_table(settings.data, opened, progress=encoding(tell))
    check_validation(settings, dataset)
    if not len(dataset.rows("test")):
        raise SchemaError(
            "the test split, on which models are compared, must hold rows, got none"
            " (data.split.fractions)"
        )
    if trunk is None:
        trunk = trunk_of(settings, dataset)
    left_out: dict[str, str] = {}
    alone = OwnNetworks(dataset).refusal()
    if alone is not None:
        left_out |= {one.name: alone for one in chosen if one.kind == "solo"}
    for one in chosen:
        if one.recipe is not None:
            try:
                train = one.recipe.over(settings).train
                one.recipe.check(dataset, printable(opened.source), train)
            except ConfigError as fault:
                left_out[one.name] = str(fault)
    forest = None
    of_trees = data_for_trees(settings.data)
    if isinstance(of_trees, str):
        left_out[TREES] = of_trees
    else:
        forest = Dataset.from_table(of_trees, opened, progress=encoding(tell))
    kept = [one for one in chosen if one.name not in left_out]
    terms, nothing_to_widen = terms_of(settings, kept, trunk, dataset)
    left_out |= nothing_to_widen
    tell(Notice("benchmark", "taking a few steps to see how fast they go"))
    each = expected_seconds(terms, dataset, forest)
    before = trials_before({one.name: folder.study(one) for one in terms})
    clock = ContestClock(each, trials, seeds, jobs, before)
    split = settings.data.split
    plan = BenchmarkPlan(
        data=dataset_text(dataset),
        split=f"split by {split.by}, test rows read once, at the end",
        monitor=settings.train.monitor,
        trunk=trunk,
        trials=trials,
        seeds=seeds,
        jobs=jobs,
        terms=terms,
        left_out=left_out,
        each=each,
        ended={name: count for name, (count, _) in before.items()},
        seconds=clock.left,
    )
    rules = Rules(config=settings, trunk=trunk, trials=trials, seeds=seeds)
    return _Ready(folder, rules, dataset, forest, plan, clock, tell)


@taking(_prepared)
def benchmark(*given: Any, **named: Any) -> Benchmark:
    """Compare models of one table on equal terms: rows, size, search, seeds.

    ``config``, ``set``, ``progress``: as for `isthmus.fit`. The config must name its table.
    ``out``: the folder to write; the default is ``benchmarks/NAME``. Where the folder holds a
    benchmark of the same config, table and trunk, what has ended is taken from there.
    ``models``: names as in `isthmus.benchmarking.contenders`; None for every backbone, HAMUR, and all
    controls. The shared MLP with the domain and the trees are always there.
    ``trunk``: the most parameters of a trunk; the default is the size of the config's own network.
    ``trials``: of each model's search, the config as it stands included.
    ``seeds``: trainings of each model with its best setting, with the seeds after ``train.seed``, which
    is that of the search.
    ``jobs``: processes of one thread each. A script that asks for more than 1 needs
    ``if __name__ == "__main__"``; costs are measured in a process of their own in any case.

    Raises ConfigError, SchemaError or RunError, which names the model, key, row or folder. A refused
    benchmark leaves no folder.
    """
    ready = _prepared(*given, **named)
    ready.tell(Notice("benchmark", str(shown(ready.plan))))
    with ready.folder.opened(ready.rules.config, ready.dataset.key, ready.rules.trunk):
        try:
            return _run(ready)
        except KeyboardInterrupt:
            again = printable(str(ready.folder.path))
            told = f"stopped; the same command with --out {again} goes on"
            ready.tell(Notice("benchmark", told))
            raise


@taking(_prepared)
def plan_benchmark(*given: Any, **named: Any) -> BenchmarkPlan:
    """Tell what `benchmark` would train with the same arguments, and about how long that takes.

    The table is encoded, and a few steps are taken to measure how fast they go. Nothing is trained.
    """
    return _prepared(*given, **named).plan


def _run(ready: _Ready) -> Benchmark:
    contest = Contest(
        ready.folder, ready.dataset, ready.forest, ready.plan.terms, ready.clock, ready.tell
    )
    trained, failed = contest.run()
    standing = Contestants({one.terms.name: contest.scored(one) for one in trained}, CONTROL)
    left_out = {**ready.plan.left_out, **failed}
    report = contest_account(ready.rules, ready.dataset, trained, standing, left_out)
    ready.folder.write_report(report, to_markdown(whole_table(report)), benchmark_page(report))
    ready.tell(Notice("benchmark", "everything is measured", 1.0))
    return Benchmark(ready.folder.path, report)


def _target(config: Any, out: str | Path | None) -> Path:
    """Choose the folder: ``out``, or one that bears the name of the config's file."""
    if out is not None:
        return Path(out)
    if not isinstance(config, str | Path):
        return BENCHMARKS / "benchmark"
    path = Path(config).absolute()
    return BENCHMARKS / (path.parent.name if path.stem == "config" else path.stem or "benchmark")
