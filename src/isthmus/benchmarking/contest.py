"""A benchmark at work: each contender is searched, trained with every seed, and measured.

Everything that has ended lies on disk by what decided it, so a benchmark that was killed goes on where
it stopped. Test rows are read when all is trained; nothing is chosen by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.benchmarking.contenders import CONTROL, TREES
from isthmus.benchmarking.contest_folder import ContestFolder
from isthmus.benchmarking.contest_plan import ContestClock, Elapsed, trials_before
from isthmus.benchmarking.equal_terms import Terms
from isthmus.benchmarking.measured_cost import CostJob, RateAndPeak, read_cost
from isthmus.benchmarking.own_networks import OwnNetworks
from isthmus.benchmarking.study_job import StudyJob, search
from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.experiments import Engine, Outcome, Training
from isthmus.experiments.workers import AbstractJob, Workers
from isthmus.metrics import ScoredRows
from isthmus.report.diagnosis.words import duration
from isthmus.run.external import group_numbers
from isthmus.run.notice import Listener, Notice, encoding
from isthmus.tuning import Tuning
from isthmus.tuning.space import changed_config


@dataclass(frozen=True, slots=True)
class Trained:
    """A contender with its best recipe.

    ``outcomes``: for each seed, the outcome of one training, or of one for each domain.
    """

    terms: Terms
    config: Config
    study: Tuning
    outcomes: tuple[tuple[Outcome, ...], ...]
    cost: RateAndPeak


class Contest:
    """The parts of a benchmark that is running.

    ``dataset``: what networks read; ``forest``: what trees read, the same rows; None without trees.
    When all is searched, the forest that ``forest`` was encoded with is that of the best setting.
    """

    def __init__(
        self,
        folder: ContestFolder,
        dataset: Dataset,
        forest: Dataset | None,
        terms: Sequence[Terms],
        clock: ContestClock,
        tell: Listener,
    ) -> None:
        self.folder, self.dataset, self.forest = folder, dataset, forest
        self.terms, self.clock, self.tell = tuple(terms), clock, tell
        self.elapsed = Elapsed()

    def run(self) -> tuple[list[Trained], dict[str, str]]:
        """Do what is missing, and give each contender, and those that failed with the reason."""
        studies = self._search()
        configs, failed = self._chosen(studies)
        if TREES in configs:
            data = configs[TREES].data
            self.forest = Dataset.from_table(data, progress=encoding(self.tell))
        outcomes = self._train(configs)
        found = []
        for one in self.terms:
            if one.name in configs:
                cost = self._cost(one, configs[one.name])
                study, config = studies[one.name], configs[one.name]
                found.append(Trained(one, config, study, outcomes[one.name], cost))
        return found, failed

    def scored(self, trained: Trained) -> list[ScoredRows]:
        """Give the test rows as a contender scored them, a part for each seed."""
        kind = trained.terms.contender.kind
        dataset = self._dataset(trained.terms)
        rows = dataset.rows("test")
        parts = []
        for outcomes in trained.outcomes:
            if kind == "solo":
                logits = OwnNetworks(dataset).logits("test", list(outcomes))
            else:
                logits = outcomes[0].logits("test")
            parts.append(
                ScoredRows(
                    split="test",
                    row=np.asarray(rows.row),
                    logits=logits,
                    label=rows.label > 0,
                    domain=np.asarray(rows.domain),
                    names=dataset.domain_names,
                    weight=rows.weight,
                    group=group_numbers(rows.group),
                    negative_rate=dataset.config.negative_rate,
                    source=trained.terms.name,
                )
            )
        return parts

    def _dataset(self, terms: Terms) -> Dataset:
        if terms.name != TREES:
            return self.dataset
        assert self.forest is not None
        return self.forest

    def _search(self) -> dict[str, Tuning]:
        trials = self.clock.trials
        for one in self.terms:
            if (count := self.clock.done[one.name][0]) > trials:
                raise RunError(
                    f"trials must be {count} or more, as many as {one.name} had in"
                    f" {self.folder.path}, got {trials}"
                )
        if self.clock.jobs > 1:
            jobs = [
                StudyJob(one, self._dataset(one).folder, self.folder.study(one), trials)
                for one in self.terms
            ]
            self._beside(jobs)
        found = {}
        for one in self.terms:
            place, dataset = self.folder.study(one), self._dataset(one)
            found[one.name] = search(one, dataset, place, trials, self._hearing(one))
            report = found[one.name].report
            self.clock.done[one.name] = (len(report["trials"]), report["seconds"])
            self._say(f"{one.name}: searched, {len(report['trials'])} trials")
        return found

    def _beside(self, jobs: Sequence[StudyJob]) -> None:
        """Search several contenders at a time, in processes of one thread each."""
        names, places = [job.terms.name for job in jobs], [job.folder for job in jobs]
        workers = Workers(self.clock.jobs)
        try:
            for number, fault in workers.run(jobs):
                if fault is not None:
                    raise RunError(f"{names[number]}: {fault}")
                self.clock.done |= trials_before({names[number]: places[number]})
                self._say(f"{names[number]}: searched")
        finally:
            workers.stop()

    def _hearing(self, terms: Terms) -> Listener:
        """What hears a study: its news, and how much of the whole benchmark is left."""
        before, began = self.clock.done[terms.name][1], Elapsed()

        def hear(notice: Notice) -> None:
            if notice.done is None:
                self.tell(Notice("benchmark", f"{terms.name}: {notice.text}"))
                return
            count = round(notice.done * self.clock.trials)
            self.clock.done[terms.name] = (count, before + began.seconds)
            self._say(f"{terms.name}, {notice.text}")

        return hear

    def _say(self, text: str) -> None:
        share = self.clock.share(self.elapsed.seconds)
        left = duration(self.clock.left)
        self.tell(Notice("benchmark", f"about {left} left; {text}", share))

    def _chosen(self, studies: Mapping[str, Tuning]) -> tuple[dict[str, Config], dict[str, str]]:
        """Give the best config of each contender, and those without one with the reason."""
        configs, failed = {}, {}
        for one in self.terms:
            study = studies[one.name]
            if study.best is None:
                failed[one.name] = "no trial was completed: " + _reason(study)
            elif one.name == TREES and not study.best["changes"]:
                configs[one.name] = one.config  # which the table is encoded with
            else:
                configs[one.name] = changed_config(one.config, study.best["params"])
        if CONTROL in failed:
            raise RunError(f"the control must complete a trial, but {failed[CONTROL]}")
        return configs, failed

    def trainings(self, terms: Terms, config: Config, seed: int) -> list[Training]:
        """Give the trainings of one seed: one, or one for each domain."""
        settled = config.model_copy(
            update={"train": config.train.model_copy(update={"seed": seed})}
        )
        kind = terms.contender.kind
        if kind == "solo":
            return OwnNetworks(self.dataset).trainings(settled)
        if kind == "trees":  # which no seed moves
            return [Training(model=config.model, train=config.train, replicate=1)]
        return [Training(model=settled.model, train=settled.train, blind=kind == "blind")]

    def _train(self, configs: Mapping[str, Config]) -> dict[str, tuple[tuple[Outcome, ...], ...]]:
        """Train every contender with every seed."""
        wanted = {
            (one.name, number): self.trainings(
                one, configs[one.name], configs[one.name].train.seed + 1 + number
            )
            for one in self.terms
            if one.name in configs
            for number in range(self.clock.seeds)
        }
        every = list(dict.fromkeys(one for trainings in wanted.values() for one in trainings))

        def tell(what: str, done: int, of: int, training: Training) -> None:
            self.clock.trained = round(self.clock.seeds * len(self.clock.each) * done / of)
            self._say(f"{what} {done} of {of}, seed {training.train.seed}")

        datasets = (self.dataset,) if self.forest is None else (self.dataset, self.forest)
        with Engine(datasets, self.folder.trainings, jobs=self.clock.jobs, tell=tell) as engine:
            engine.run(every, "training with the best setting")
            found = {key: tuple(map(engine.outcome, of)) for key, of in wanted.items()}
        names = dict.fromkeys(name for name, _ in wanted)
        return {
            name: tuple(found[name, number] for number in range(self.clock.seeds)) for name in names
        }

    def _cost(self, terms: Terms, config: Config) -> RateAndPeak:
        """Read or measure what a contender costs, in a new process."""
        training = self._measured(terms, config)
        dataset = self._dataset(terms)
        file = self.folder.cost(training.key(dataset))
        found = read_cost(file)
        if found is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._alone(CostJob(training, dataset.folder, file), terms.name)
            found = read_cost(file)
            assert found is not None
        self.clock.measured += 1
        self._say(f"{terms.name}: cost measured")
        return found

    def _measured(self, terms: Terms, config: Config) -> Training:
        """The training whose cost is told: with the config's own batch, as every network's."""
        train = config.train.model_copy(update={"batch_rows": terms.config.train.batch_rows})
        settled = config.model_copy(update={"train": train})
        trainings = self.trainings(terms, settled, train.seed)
        if terms.contender.kind != "solo":
            return trainings[0]
        counts = self.dataset.summary()["train"]
        return max(trainings, key=lambda one: counts[(one.domains or ("",))[0]].rows)

    def _alone(self, job: AbstractJob, name: str) -> None:
        workers = Workers(1)
        try:
            for _, fault in workers.run([job]):
                if fault is not None:
                    raise RunError(f"{name}: its cost must be measured, but {fault}")
        finally:
            workers.stop()


def _reason(study: Tuning) -> str:
    return next(
        (one["reason"] for one in study.report["trials"] if one["reason"]),
        "every trial makes some domain worse",
    )
