"""The search of one contender's recipe: a study of `isthmus.tuning`, by which nothing else is chosen."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isthmus.benchmarking.contenders import Kind
from isthmus.benchmarking.equal_terms import Terms
from isthmus.benchmarking.own_networks import attempt_own
from isthmus.data import Dataset
from isthmus.experiments.workers import AbstractJob, Opened
from isthmus.run.notice import Listener, silent
from isthmus.tuning import Tuning
from isthmus.tuning.attempt import Attempting, attempt
from isthmus.tuning.running import RunningStudy
from isthmus.tuning.study_folder import StudyFolder, StudyIdentity
from isthmus.tuning.tune_plan import TrialBudget, chosen_recipes

ATTEMPTING: dict[Kind, Attempting] = {
    "blind": partial(attempt, blind=True),
    "solo": attempt_own,
}


@dataclass(frozen=True, slots=True)
class StudyJob(AbstractJob):
    """Search until ``trials`` have ended in ``folder``."""

    terms: Terms
    dataset: Path
    folder: Path
    trials: int

    def run(self, opened: Opened) -> None:
        """Search in a process that tells nobody."""
        search(self.terms, opened(self.dataset), self.folder, self.trials)


def search(
    terms: Terms, dataset: Dataset, folder: Path, trials: int, tell: Listener = silent
) -> Tuning:
    """Search, or go on where a killed search stopped. ``tell`` hears of each look and each end."""
    from isthmus.tuning.search import Search

    space = terms.space(dataset)
    recipes, left_out = chosen_recipes(space)
    place = StudyFolder(folder)
    names = tuple(recipe.name for recipe in recipes)
    identity = StudyIdentity(terms.config, dataset.key, space.to_dict(), names)
    place.check(terms.config)
    with place.opened(identity):
        study = RunningStudy(
            place,
            dataset,
            Search(place, space, recipes),
            TrialBudget(trials),
            left_out,
            tell,
            ATTEMPTING.get(terms.contender.kind),
        )
        study.search.queue_stopped()
        return study.run()


def ended(folder: Path) -> Tuning | None:
    """Read a study as far as it went; None where it has not begun."""
    return Tuning.open(folder) if (folder / "trials.json").exists() else None
