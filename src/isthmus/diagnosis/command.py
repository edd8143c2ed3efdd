"""diagnose() takes a config, and gives a folder with verdicts, numbers, pages and ready configs.

    report.json, report.md, report.html    the same content three times
    figures/                               charts as PNG and SVG, where matplotlib is installed
    configs/                               what each verdict asks for, ready for ``isthmus fit``
    trainings/                             one outcome a training, by content

Give the same folder again, and a killed diagnosis goes on where it stopped. A higher level then
takes over what a lower level trained.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.config import Config, load_config
from isthmus.data.store.dataset import Dataset
from isthmus.data.tables import open_table
from isthmus.diagnosis.abstract_study import DiagnosisPlan
from isthmus.diagnosis.encoded import encoded_as, forests_of, replicated
from isthmus.diagnosis.finished import Diagnosis, measured, told, writable, write_report
from isthmus.diagnosis.learners.diagnosing import diagnose_learner, prepared_learner
from isthmus.diagnosis.learners.learner import DomainRows, Learner
from isthmus.diagnosis.learners.row_metrics import RowMean
from isthmus.diagnosis.level import Level, level_named
from isthmus.diagnosis.measures.from_joint import gradients, likeness
from isthmus.diagnosis.measures.matrices import pairwise_matched
from isthmus.diagnosis.measures.new_domain import new_domain
from isthmus.diagnosis.reading import Margins
from isthmus.diagnosis.study import Study
from isthmus.diagnosis.support import check_newcomers, measure
from isthmus.diagnosis.verdicts.advice import Configs
from isthmus.disk import check_place
from isthmus.errors import ConfigError
from isthmus.experiments import Engine, Sharing
from isthmus.experiments.cost import probe
from isthmus.experiments.outcome import build, sized_for
from isthmus.printable import shown
from isthmus.run.notice import Listener, Notice, encoding, silent
from isthmus.schema.address import full_name
from isthmus.signature import taking

MARGIN = 0.005  # of AUC, and of the logloss as a share


@dataclass(frozen=True, slots=True)
class _Opened:
    """A diagnosis that can begin. ``plan``: tell what will be trained; ``run``: train and judge."""

    plan: Callable[[], DiagnosisPlan]
    run: Callable[[], Diagnosis]


@contextmanager
def _opened(
    config: str | Path | Mapping[str, Any] | Config | None = None,
    table: Any = None,
    out: str | Path = "diagnosis",
    *,
    learner: Learner | None = None,
    domains: Mapping[str, DomainRows] | None = None,
    metrics: Sequence[str | RowMean] | None = None,
    seeds: int | None = None,
    level: str = "standard",
    new_domain: bool = False,
    set: Sequence[str] = (),
    margin: float | Mapping[str, float] = MARGIN,
    item: str | None = None,
    jobs: int = 1,
    shared: bool = False,
    cache: str | Path | None = None,
    progress: Listener | None = None,
) -> Iterator[_Opened]:
    """Check everything, and open the engine. The arguments are those of `diagnose`."""
    if learner is not None:
        _only_learner(
            config=config,
            table=table,
            set=set,
            item=item,
            jobs=jobs,
            shared=shared or None,
            cache=cache,
            new_domain=new_domain or None,
        )
        with prepared_learner(
            learner,
            domains or {},
            out,
            level=level,
            margin=margin,
            metrics=metrics,
            seeds=seeds,
            progress=progress,
        ) as learned:
            yield _Opened(learned.plan, partial(diagnose_learner, learned, out))
        return
    with prepared(
        _config_of(config, domains=domains, metrics=metrics, seeds=seeds),
        table,
        out,
        level=_level(level, new_domain=new_domain),
        set=set,
        margin=_number(margin),
        item=item,
        jobs=jobs,
        shared=shared,
        cache=cache,
        progress=progress,
    ) as (study, folder):
        yield _Opened(partial(_plan, study), partial(_run, study, folder))


@taking(_opened)
def diagnose(*given: Any, **named: Any) -> Diagnosis:
    """Measure whether training together helps or hurts each domain, and what to do about it.

    ``out``: the folder to write. Finished trainings in the folder are not trained again.
    ``level``: ``quick``, ``standard`` or ``full``. ``new_domain``: measure also what a domain gets
    before it has rows, and how many rows of its own it takes: see `isthmus.diagnosis.measures.new_domain`.
    A table of 3 domains or more, and one of our networks.
    ``margin``: the difference that does not matter: of AUC and any other metric of which more is
    better, as it is; of a loss, as a share of the solo's. Fix the margin before you look at
    results. With a learner it may be one number by metric.

    Of a table and one of our networks:

    ``config``, ``table``, ``set``, ``cache``, ``progress``: as for `isthmus.fit`.
    ``item``: a categorical feature. Test rows are then clustered by the feature's values, too.
    ``jobs``: processes of one thread each. A script that asks for more than 1 needs
    ``if __name__ == "__main__"``.
    ``shared``: others run the same call on the same folder, on any machines, and each training is
    run by one of them; all of them end with the whole report. Needs ``if __name__ == "__main__"``,
    too.

    Of any other model, in place of ``config``:

    ``learner``: see `isthmus.diagnosis.Learner`.
    ``domains``: `isthmus.diagnosis.DomainRows` by name.
    ``metrics``: ``auc``, ``accuracy``, ``logloss``, ``squared_error`` or `RowMean`; the first one
    leads. By default ``auc`` of labels 0 and 1, ``accuracy`` of other classes, else
    ``squared_error``.
    ``seeds``: replicates in place of the level's; at least 2.

    Raises ConfigError, SchemaError or RunError, which names the key, column, domain or folder.
    """
    with _opened(*given, **named) as opened:
        return opened.run()


@taking(_opened)
def plan_diagnosis(*given: Any, **named: Any) -> DiagnosisPlan:
    """Tell what `diagnose` would train with the same arguments, and about how long that takes.

    The table is encoded, and a few steps are taken to measure how fast they go. Nothing is trained.
    How long a learner takes is not told.
    """
    with _opened(*given, **named) as opened:
        return opened.plan()


def _level(name: str, *, new_domain: bool) -> Level:
    level = level_named(name)
    return level.with_newcomers() if new_domain else level


def _only_learner(**given: Any) -> None:
    """Raise ConfigError where an argument of a table is given with a learner."""
    defaults = {"set": (), "jobs": 1}
    odd = [
        name for name, value in given.items() if value is not None and value != defaults.get(name)
    ]
    if odd:
        raise ConfigError(f"a learner brings its own rows and settings: {odd[0]} must not be given")


def _config_of(config: Any, **given: Any) -> Any:
    """Give the config. Raises ConfigError without one, and for arguments of a learner."""
    odd = [name for name, value in given.items() if value is not None]
    if odd:
        raise ConfigError(f"{odd[0]} goes with a learner, got none")
    if config is None:
        raise ConfigError("a diagnosis needs a config, or a learner and its domains, got neither")
    return config


def _number(margin: float | Mapping[str, float]) -> float:
    if isinstance(margin, Mapping):
        raise ConfigError(f"margin must be one number without a learner, got {dict(margin)}")
    return margin


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
    shared: bool = False,
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
        if level.newcomers:
            raise ConfigError(
                "a new domain is measured of a network, beside trees, so model.name must be 'network',"
                " got 'trees'"
            )
        level = level.for_trees()
    source = original.data.table if table is None else table
    if source is None:
        raise ConfigError("data.table must name a table, or a table must be given, got neither")
    folder = Path(out)
    with writable(folder):
        check_place(folder / "trainings")
    opened = open_table(source)
    original = _with_table(original, source)
    data = encoded_as(original.data)
    replicates = replicated(data, opened.rows, level)
    datasets = [
        Dataset.from_table(one, opened, cache=cache, progress=encoding(tell)) for one in replicates
    ]
    original = original.model_copy(update={"model": sized_for(original.model, datasets[0])})
    if level.newcomers:
        check_newcomers(datasets)
    domains = measure(datasets, pairs=level.dear)
    forests, no_forests = [], None
    if level.newcomers:
        forests, no_forests = forests_of(replicates, opened, cache, tell)
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sharing = None
    if shared:
        terms = {
            "level": asdict(level),
            "margin": margin,
            "item": item,
            "config": original.model_dump(mode="json"),
            "files of the table": opened.fingerprint(),
        }
        sharing = Sharing(terms)
    with Engine([*datasets, *forests], folder / "trainings", jobs=jobs, sharing=sharing) as engine:
        study = Study(
            original=original,
            config=original.model_copy(update={"data": data}),
            datasets=datasets,
            measured=domains,
            level=level,
            engine=engine,
            margins=Margins(auc=margin, logloss=margin),
            item=item,
            tell=lambda text, done: tell(Notice("diagnose", text, done)),
            forests=forests,
            no_forests=no_forests,
        )
        engine.tell = study.progress
        yield study, folder


def _with_table(config: Config, source: Any) -> Config:
    """Name the table in the config by its full path, so that copies of the config find it.

    A frame has no path, and the config then names no table.
    """
    path = full_name(source) if isinstance(source, str | Path) else None
    return config.model_copy(update={"data": config.data.model_copy(update={"table": path})})


def _plan(study: Study) -> DiagnosisPlan:
    study.tell("taking a few steps to see how fast they go", None)
    arms = study.arms
    if study.level.adapted:
        build(study.phases.adapted()[0], arms.dataset(0))  # now, not after hours of trainings
    pace = probe(arms.model, arms.config.train, arms.dataset(0), jobs=study.engine.jobs)
    if arms.has_forests:
        trees = arms.trees(0, arms.dataset(0).domain_names[:1], arms.dataset(0).domain_names[0])
        forest = arms.datasets[trees.replicate]
        grown = probe(trees.model, trees.train, forest, jobs=study.engine.jobs)
        pace = replace(pace, forest_rows=grown.rows)
    return study.plan(pace)


def _run(study: Study, folder: Path) -> Diagnosis:
    plan = _plan(study)
    study.tell(str(shown(plan)), None)
    level = study.level
    found = measured(study)
    matrix = found.matrix
    if level.dear:
        matrix["pairwise_matched"] = pairwise_matched(study)
    like = None
    if level.stages:
        matrix["gradients"] = gradients(study)
        like = likeness(study, matrix["pairwise"])
    newcomers = new_domain(study) if level.newcomers else None
    with writable(folder):
        configs = Configs(study, folder / "configs")
        advised = {
            name: (
                configs.of(name, found.advice[name].verdict),
                configs.command(name, found.advice[name].verdict),
            )
            for name in study.measured.names
        }
    report = told(study, plan, found, advised=advised, likeness=like, newcomers=newcomers)
    write_report(report, folder, study.tell)
    return Diagnosis(folder, report)


def processes() -> int:
    """Give the number of cores. The command line runs so many trainings at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
