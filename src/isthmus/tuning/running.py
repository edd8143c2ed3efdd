"""tune() takes a config, and gives a folder with the best recipe that a budget finds for its table.

Kill it at any moment, and give the same command again: the study goes on. The test rows are never
read. See `isthmus.tuning.study_folder` for the files, `isthmus.tuning.search` for the search.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.config import Config
from isthmus.data import Dataset, open_table
from isthmus.data.store.dataset import dataset_key
from isthmus.errors import ConfigError, RunError, SchemaError
from isthmus.experiments.arms import joint_and_adapted
from isthmus.experiments.cost import probe
from isthmus.experiments.outcome import sized_for
from isthmus.metrics.text_table import TextTable, count_text, number
from isthmus.printable import printable, shown
from isthmus.recipe import SettledConfig
from isthmus.report import to_markdown
from isthmus.report.diagnosis.words import duration
from isthmus.report.tuning import trial_table, tuning_page
from isthmus.run.notice import Listener, Notice, encoding, silent
from isthmus.schema.address import full_name
from isthmus.train import Monitor, check_monitor
from isthmus.tuning.attempt import Attempting, SeenLook, attempt
from isthmus.tuning.constraint import metric_of, trial_gains, validation_rows
from isthmus.tuning.space import Space
from isthmus.tuning.study_folder import StudyFolder, StudyIdentity
from isthmus.tuning.tune_plan import TrialBudget, chosen_recipes, plan_of

if TYPE_CHECKING:
    from isthmus.tuning.search import OpenTrial, Search

STUDIES = Path("studies")


@dataclass(frozen=True, slots=True)
class Tuning:
    """A study. ``path``: its folder; ``report``: what ``trials.json`` holds. ``str`` is the table."""

    path: Path
    report: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Tuning":
        """Read a study's folder. Raises RunError where no trial has ended in it."""
        file = Path(path) / "trials.json"
        try:
            return cls(Path(path), json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"a study must have a trial that ended, got no {file}") from None
        except ValueError as fault:
            raise RunError(f"{file} is damaged: {fault}") from fault

    @property
    def best(self) -> dict[str, Any] | None:
        """The best feasible trial as plain values, or None."""
        place = self.report["best"]
        return None if place is None else self.report["trials"][place]

    def table(self) -> TextTable:
        """Show the trials, the best first."""
        return trial_table(self.report)

    def to_dict(self) -> dict[str, Any]:
        """Give what ``trials.json`` holds."""
        return self.report

    def __str__(self) -> str:
        return str(self.table())


def tune(
    config: str | Path | Mapping[str, Any] | Config,
    out: str | Path | None = None,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    set: Sequence[str] = (),
    recipe: str | None = None,
    progress: Listener | None = None,
) -> Tuning:
    """Search a recipe for the table of a config: model and training, never the data.

    Of ``model.name: trees``, how the forest is grown: the keys of ``data.trees``.

    ``config``, ``set``, ``recipe``, ``progress``: as for `isthmus.fit`. The config must name its table.
    What the recipe says is not searched: the study stays one of that system.
    ``out``: the study folder; the default is ``studies/NAME``. Where the folder holds a study of the
    same config and table, the study goes on.
    ``trials``: trials that end, in all parts of the study together; 40 where there is no budget.
    ``minutes``: no trial begins after so many minutes of trials, in all parts together. A trial that
    runs by then comes to its end, so a result never depends on the clock.

    The score of a trial is ``train.monitor`` at the best look at the validation rows. A trial that
    makes some domain surely worse than the first one did is never the best.

    Raises ConfigError, SchemaError or RunError, which names the key, file, row or folder. A refused
    study leaves no folder. A training whose loss is not finite is a failed trial, and no error.
    """
    tell = progress or silent
    check_optuna()
    budget = TrialBudget(trials, minutes)
    settled = SettledConfig.of(config, set, recipe)
    settings = with_table(settled.config)
    folder = StudyFolder(_target(config, out))
    folder.check(settings)
    opened = open_table(settings.data.table)
    key = dataset_key(settings.data, opened.fingerprint(verify_content=False))
    folder.check_table(key)
    dataset = Dataset.from_table(settings.data, opened, progress=encoding(tell))
    check_validation(settings, dataset)
    settled.check(dataset, printable(opened.source))
    if settled.told:
        tell(Notice("tune", f"recipe {settled.told}"))
    fitted = settings.model_copy(update={"model": sized_for(settings.model, dataset)})
    space = Space.of(fitted, dataset, held=settled.held)
    recipes, left_out = chosen_recipes(space)
    tell(Notice("tune", "taking a few steps to see how fast they go"))
    plain, _ = joint_and_adapted(fitted.model)  # costs are told from those without an adapter
    pace = probe(plain, settings.train, dataset, jobs=1)
    names = tuple(recipe.name for recipe in recipes)
    identity = StudyIdentity(settings, key, space.to_dict(), names)
    with folder.opened(identity):
        from isthmus.tuning.search import Search

        study = RunningStudy(
            folder, dataset, Search(folder, space, recipes), budget, left_out, tell
        )
        queued = study.search.queue_stopped()
        plan = plan_of(
            space,
            dataset,
            pace,
            budget,
            recipes=recipes,
            left_out=left_out,
            ended=len(study.search.records()),
            spent=study.search.seconds,
        )
        tell(Notice("tune", str(shown(plan))))
        if queued:
            tell(Notice("tune", f"{queued} trial was stopped in its middle, and begins again"))
        try:
            return study.run()
        except KeyboardInterrupt:
            again = f"the same command with --out {printable(str(folder.path))} goes on"
            tell(Notice("tune", f"stopped; {again}"))
            raise


class RunningStudy:
    """The parts of a study that is running.

    ``attempting``: how a trial is trained; None: as `isthmus.tuning.attempt.attempt` does.
    """

    def __init__(
        self,
        folder: StudyFolder,
        dataset: Dataset,
        search: "Search",
        budget: TrialBudget,
        left_out: Mapping[str, str],
        tell: Listener,
        attempting: Attempting | None = None,
    ) -> None:
        self.attempting = attempting
        self.folder, self.dataset, self.search = folder, dataset, search
        self.budget, self.left_out, self.tell = budget, left_out, tell
        self.monitor: Monitor = search.space.config.train.monitor

    def run(self) -> Tuning:
        """Try one point after the other, until the budget is spent."""
        report = self.write()
        while self.budget.is_left(len(report["trials"]), report["seconds"]):
            self.try_one(self.search.next(), report)
            report = self.write()
        told = f"{count_text(len(report['trials']), 'trial')} ended, {duration(report['seconds'])}"
        self.tell(Notice("tune", told, 1.0))
        return Tuning(self.folder.path, report)

    def try_one(self, trial: "OpenTrial", report: Mapping[str, Any]) -> None:
        """Train one trial, and keep how it ended."""
        config = self.search.space.configured(trial.params)
        spent = self.budget.share(len(report["trials"]), report["seconds"])
        name = f"trial {trial.number} ({trial.recipe or 'TPE'})"

        def go_on(look: SeenLook) -> bool:
            text = f"{name}, epoch {look.epoch:.2f}: {self.monitor} {look.score:.4f}"
            self.tell(Notice("tune", text, spent))
            return trial.goes_on(look)

        began = time.perf_counter()
        try:
            found = (self.attempting or attempt)(config, self.dataset, go_on)
        except (RunError, ConfigError) as fault:  # a method may not suit the trial's network
            trial.fail(str(fault), time.perf_counter() - began)
            self.tell(Notice("tune", f"{name} failed: {fault}"))
            return
        if found is None:
            trial.prune(time.perf_counter() - began)
            self.tell(Notice("tune", f"{name} pruned"))
            return
        score = found.best.metrics[self.monitor]
        assert score is not None  # checked before the study began
        if not self.search.compared:
            self.folder.write_reference(found.logits)
        sides = (self.folder.read_reference(len(found.logits)), found.logits)
        before, after = (validation_rows(config, self.dataset, logits) for logits in sides)
        gains = trial_gains(before, after, metric_of(self.monitor))
        trial.complete(score, found, gains, time.perf_counter() - began)
        self.tell(Notice("tune", f"{name}: {self.monitor} {number(score)}"))

    def write(self) -> dict[str, Any]:
        """Write the files that people read, and give what they hold."""
        from isthmus.tuning.account import account

        report = account(self.search, self.dataset, str(self.budget), self.left_out)
        self.folder.write_report(
            report,
            markdown=to_markdown(trial_table(report, shown=None)),
            page=tuning_page(report),
            best=self.best_config(report),
        )
        return report

    def best_config(self, report: Mapping[str, Any]) -> str:
        """Give the best trial's config as YAML, or nothing where there is none."""
        if report["best"] is None:
            return ""
        best = report["trials"][report["best"]]
        told = f"trial {best['number']} ({best['recipe'] or 'TPE'})"
        return (
            f"# {told} of a study: {self.monitor} {number(best['score'])} on the validation rows.\n"
            f"{self.search.space.configured(best['params']).to_yaml()}"
        )


def check_optuna(what: str = "tune") -> None:
    """Raise ConfigError, which says how to install it, where Optuna is missing."""
    if find_spec("optuna") is None:
        raise ConfigError(f"{what} needs Optuna: pip install 'isthmus[tune]'")


def check_validation(config: Config, dataset: Dataset) -> None:
    """Raise SchemaError or ConfigError where the validation rows give no score."""
    rows = dataset.rows("validation")
    if len(rows) < 2:
        raise SchemaError(
            f"the validation split, by which trials are chosen, must hold at least 2 rows, got"
            f" {len(rows)} (data.split.fractions)"
        )
    check_monitor(config.train.monitor, rows, dataset.n_domains)


def with_table(config: Config) -> Config:
    """Name the table by its full path, so that best.yaml finds the table from any folder."""
    table = config.data.table
    if table is None:
        raise ConfigError("data.table must name a table, got none")
    data = config.data.model_copy(update={"table": full_name(table)})
    return config.model_copy(update={"data": data})


def _target(config: Any, out: str | Path | None) -> Path:
    """Choose the study folder: ``out``, or one that bears the name of the config's file."""
    if out is not None:
        return Path(out)
    if not isinstance(config, str | Path):
        return STUDIES / "study"
    path = Path(config).absolute()
    return STUDIES / (path.parent.name if path.stem == "config" else path.stem or "study")
