"""diagnose() takes a config, and gives a folder with verdicts, numbers, pages and ready configs.

    report.json, report.md, report.html    the same content three times
    figures/                               charts as PNG and SVG, where matplotlib is installed
    configs/                               what each verdict asks for, ready for ``isthmus fit``
    trainings/                             one outcome a training, by content

Give the same folder again, and a killed diagnosis goes on where it stopped. A higher level then
takes over what a lower level trained.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.config import Config, load_config
from isthmus.data.store.dataset import Dataset
from isthmus.data.tables import open_table
from isthmus.diagnosis.level import FOLDS, MIN_FOLDS, SMALL_TABLE, Level, level_named
from isthmus.diagnosis.measures.confirmation import Grouped, grouped
from isthmus.diagnosis.measures.curves import capacity, weightings
from isthmus.diagnosis.measures.from_joint import gradients, likeness
from isthmus.diagnosis.measures.matrices import (
    agreements,
    cross_scores,
    leave_one_out,
    pairwise,
    pairwise_matched,
)
from isthmus.diagnosis.reading import METRICS, Margins
from isthmus.diagnosis.study import DiagnosisPlan, Study, named
from isthmus.diagnosis.support import measure
from isthmus.diagnosis.verdicts.advice import Configs, verdicts
from isthmus.disk import check_place, reason, write_whole
from isthmus.errors import ConfigError, RunError
from isthmus.experiments import Engine
from isthmus.experiments.cost import probe
from isthmus.experiments.outcome import build, sized_for
from isthmus.printable import shown
from isthmus.report.diagnosis import page, to_markdown, to_terminal, write_figures
from isthmus.run.notice import Listener, Notice, encoding, silent
from isthmus.schema import Categorical, CategoricalList, DataConfig

MARGIN = 0.005  # of AUC, and of the logloss as a share
MIN_COUNT = 2  # values of one train row alone teach the unknown, in every arm


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finished diagnosis. ``path``: its folder; ``report``: what ``report.json`` holds."""

    path: Path
    report: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Diagnosis":
        """Read the folder of a finished diagnosis. Raises RunError where there is none."""
        file = Path(path) / "report.json"
        try:
            return cls(Path(path), json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"a diagnosis must be finished, got no {file}") from None
        except ValueError as fault:
            raise RunError(f"{file} is damaged: {fault}") from fault

    def to_dict(self) -> dict[str, Any]:
        """Give what ``report.json`` holds."""
        return self.report

    def __str__(self) -> str:
        return to_terminal(shown(self.report))


def diagnose(
    config: str | Path | Mapping[str, Any] | Config,
    table: Any = None,
    out: str | Path = "diagnosis",
    *,
    level: str = "standard",
    set: Sequence[str] = (),
    margin: float = MARGIN,
    item: str | None = None,
    jobs: int = 1,
    cache: str | Path | None = None,
    progress: Listener | None = None,
) -> Diagnosis:
    """Measure whether training together helps or hurts each domain, and what to do about it.

    ``config``, ``table``, ``set``, ``cache``, ``progress``: as for `isthmus.fit`.
    ``out``: the folder to write. Finished trainings in the folder are not trained again.
    ``level``: ``quick``, ``standard`` or ``full``.
    ``margin``: the difference that does not matter, in AUC and as a share of the logloss. Fix the
    margin before you look at results.
    ``item``: a categorical feature. Test rows are then clustered by the feature's values, too.
    ``jobs``: processes of one thread each. A script that asks for more than 1 needs
    ``if __name__ == "__main__"``.

    Raises ConfigError, SchemaError or RunError, which names the key, column, domain or folder.
    """
    with prepared(
        config,
        table,
        out,
        level=level_named(level),
        set=set,
        margin=margin,
        item=item,
        jobs=jobs,
        cache=cache,
        progress=progress,
    ) as (study, folder):
        plan = _plan(study)
        study.tell(str(shown(plan)), None)
        return _run(study, plan, folder)


def plan_diagnosis(
    config: str | Path | Mapping[str, Any] | Config,
    table: Any = None,
    out: str | Path = "diagnosis",
    *,
    level: str = "standard",
    set: Sequence[str] = (),
    margin: float = MARGIN,
    item: str | None = None,
    jobs: int = 1,
    cache: str | Path | None = None,
    progress: Listener | None = None,
) -> DiagnosisPlan:
    """Tell what `diagnose` would train with the same arguments, and about how long that takes.

    The table is encoded, and a few steps are taken to measure how fast they go. Nothing is trained.
    """
    with prepared(
        config,
        table,
        out,
        level=level_named(level),
        set=set,
        margin=margin,
        item=item,
        jobs=jobs,
        cache=cache,
        progress=progress,
    ) as (study, _):
        return _plan(study)


@contextmanager
def prepared(
    config: str | Path | Mapping[str, Any] | Config,
    table: Any = None,
    out: str | Path = "diagnosis",
    *,
    level: Level,
    set: Sequence[str] = (),
    margin: float = MARGIN,
    item: str | None = None,
    jobs: int = 1,
    cache: str | Path | None = None,
    progress: Listener | None = None,
) -> Iterator[tuple[Study, Path]]:
    """Check everything, encode the table, and open the engine. Give the study and its folder.

    The arguments are those of `diagnose`.
    """
    tell = progress or silent
    if not 0 < margin < 0.5:
        raise ConfigError(f"margin must be above 0 and below 0.5, got {margin}")
    original = load_config(config, set)
    if (why := original.model.unsound) is not None:
        raise ConfigError(f"a diagnosis advises models that are served, but {why}")
    if (method := original.train.method.name) != "joint":
        raise ConfigError(
            "a diagnosis compares joint with solo trainings, so train.method must be 'joint', got"
            f" {method!r}"
        )
    if original.model.is_trees:
        level = level.for_trees()
    source = original.data.table if table is None else table
    if source is None:
        raise ConfigError("data.table must name a table, or a table must be given, got neither")
    folder = Path(out)
    with _writable(folder):
        check_place(folder / "trainings")
    opened = open_table(source)
    original = _with_table(original, source)
    data = encoded_as(original.data)
    replicates = _replicates(data, opened.rows, level)
    datasets = [
        Dataset.from_table(one, opened, cache=cache, progress=encoding(tell)) for one in replicates
    ]
    original = original.model_copy(update={"model": sized_for(original.model, datasets[0])})
    measured = measure(datasets, pairs=level.dear)
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with Engine(datasets, folder / "trainings", jobs=jobs) as engine:
        study = Study(
            original=original,
            config=original.model_copy(update={"data": data}),
            datasets=datasets,
            measured=measured,
            level=level,
            engine=engine,
            margins=Margins(auc=margin, logloss=margin),
            item=item,
            tell=lambda text, done: tell(Notice("diagnose", text, done)),
        )
        engine.tell = study.progress
        yield study, folder


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Raise RunError, which names the folder, where the disk does not take what is written."""
    try:
        yield
    except OSError as fault:
        raise RunError(
            f"the folder of a diagnosis must be writable at {folder}, got: {reason(fault)}"
        ) from fault


def _with_table(config: Config, source: Any) -> Config:
    """Name the table in the config by its full path, so that copies of the config find it.

    A frame has no path, and the config then names no table.
    """
    path = None
    if isinstance(source, str | Path):
        path = str(Path(source).expanduser().absolute())
    return config.model_copy(update={"data": config.data.model_copy(update={"table": path})})


def encoded_as(data: DataConfig) -> DataConfig:
    """Give the data section of a diagnosis: the domain can be an input, and the unknown is trained.

    A value of a single train row is unknown to every arm, so solo and joint alike train the
    unknown. A domain that is no feature is encoded too, and hidden from the arms.
    """
    features = dict(data.features)
    for name, feature in features.items():
        own = isinstance(feature, Categorical | CategoricalList) and not (
            feature.shares or feature.hash_buckets
        )
        if own and feature.min_count < MIN_COUNT:  # type: ignore[union-attr]
            features[name] = feature.model_copy(update={"min_count": MIN_COUNT})
    features.setdefault(data.domain, Categorical())
    return data.model_copy(update={"features": features})


def _replicates(data: DataConfig, rows: int, level: Level) -> list[DataConfig]:
    """Give one data section for each fold of a small table, and a single one for any other table.

    Replicates are seeds where there is a single data section. Two folds would leave one degree of
    freedom, so a level of two replicates takes two seeds of the first fold.
    """
    if data.split.by == "time" or rows >= SMALL_TABLE:
        return [data]
    validation = min(data.split.fractions[1], 0.5 - 1 / FOLDS)
    fractions = (1 - validation - 1 / FOLDS, validation, 1 / FOLDS)
    return [
        data.model_copy(
            update={
                "split": data.split.model_copy(
                    update={"fractions": fractions, "rotation": k / FOLDS}
                )
            }
        )
        for k in range(level.seeds if level.seeds >= MIN_FOLDS else 1)
    ]


def _plan(study: Study) -> DiagnosisPlan:
    study.tell("taking a few steps to see how fast they go", None)
    arms = study.arms
    if study.level.adapted:
        build(study.phases.adapted()[0], arms.dataset(0))  # now, not after hours of trainings
    pace = probe(arms.model, arms.config.train, arms.dataset(0), jobs=study.engine.jobs)
    return study.plan(pace)


def _run(study: Study, plan: DiagnosisPlan, folder: Path) -> Diagnosis:
    level = study.level
    study.choose()
    study.train_arms()
    found = study.effects()
    matrix: dict[str, Any] = dict.fromkeys(
        ("cross_score", "pairwise", "pairwise_matched", "leave_one_out", "gradients")
    )
    matrix["cross_score"] = cross_scores(study)
    groups: Grouped | None = None
    curve = weighting = None
    if level.dear:
        matrix["pairwise"], affinity = pairwise(study)
        matrix["pairwise_matched"] = pairwise_matched(study)
        matrix["leave_one_out"] = leave_one_out(study)
        groups = grouped(study, affinity)
    if level.dear and level.network:
        curve = capacity(study)
        weighting = weightings(study)
    like = None
    if level.stages:
        matrix["gradients"] = gradients(study)
        like = likeness(study, matrix["pairwise"])
    matrix["spearman"] = agreements(matrix)
    advice = verdicts(study, found, groups)
    with _writable(folder):
        configs = Configs(study, folder / "configs")
        domains = {}
        for name in study.measured.names:
            domains[name] = {
                **asdict(study.measured.support[name]),
                **{metric: named(found[name][metric]) for metric in METRICS},
                **advice[name].to_dict(),
                "config": configs.of(name, advice[name].verdict),
                "command": configs.command(name, advice[name].verdict),
                "flags": study.flags(name),
            }
        for name, why in study.measured.left_out.items():
            domains[name] = _left_out(study, name, why)
        report = {
            "plan": study.told_plan(plan),
            "margin": study.margins.auc,
            "margin_logloss": study.margins.logloss,
            "seeds": level.seeds,
            "split": "test",
            "domains": domains,
            "matrix": matrix,
            "capacity": curve,
            "groups": None if groups is None else groups.told,
            "likeness": like,
            "weighting": weighting,
        }
        _write(report, folder, study)
    return Diagnosis(folder, report)


def _left_out(study: Study, name: str, why: str) -> dict[str, Any]:
    """Give the report of a domain that nothing was trained for, with the reason."""
    return {
        **asdict(study.measured.support[name]),
        "auc": None,
        "logloss": None,
        "verdict": "not enough data",
        "finding": None,
        "certainty": "cannot tell",
        "why": f"Left out: {why}.",
        "with": [],
        "verdict_auc": "not enough data",
        "verdict_logloss": "not enough data",
        "agree": True,
        "config": None,
        "command": None,
        "flags": [],
    }


def _write(report: dict[str, Any], folder: Path, study: Study) -> None:
    try:
        write_figures(report, folder / "figures")
    except ModuleNotFoundError as missing:
        study.tell(f"no figures are written: {missing}", None)
    write_whole(folder / "report.md", to_markdown(report))
    write_whole(folder / "report.html", page(report))
    # The last of them: where it stands, the diagnosis is finished.
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(folder / "report.json", text + "\n")


def processes() -> int:
    """Give the number of cores. The command line runs so many trainings at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
