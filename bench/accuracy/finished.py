"""What is finished of a table, read from its folders; and the recipe that the other tables choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from bench.accuracy.alone import Measured, is_finished, noted
from bench.accuracy.contestants import (
    FORESTS,
    INIT,
    RECIPES,
    TUNED,
    TUNED_FOREST,
    is_tuned,
    names_of,
    seeds_of,
)
from bench.accuracy.forests import LOGITS, SETTINGS
from bench.accuracy.shelf import READ_AS, Shelf
from bench.accuracy.tables import Subject
from bench.accuracy.trainings import better_forest, tuned_forest
from isthmus.metrics import Evaluation, ScoredRows, evaluate_rows
from isthmus.run import Run


@dataclass(frozen=True, slots=True)
class Cost:
    """What a contestant took: mean seconds over seeds, encoding and search included; peak memory."""

    seconds: float
    mebibytes: float


@dataclass(frozen=True, slots=True)
class Found:
    """All of one table. ``scored``: test rows by contestant, a part for each seed.

    ``validation``: the pooled AUC on validation rows of each candidate for what ``init`` writes,
    the mean over seeds. ``commits``: that the results were measured with.
    """

    subject: Subject
    scored: dict[str, list[ScoredRows]]
    costs: dict[str, Cost]
    validation: dict[str, float]
    commits: frozenset[str]

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.scored[INIT])

    @property
    def names(self) -> tuple[str, ...]:
        """The contestants in the order of the page."""
        return tuple(name for name in names_of(self.subject) if name in self.scored)

    def evaluation(self, name: str) -> Evaluation:
        """The figures of a contestant on test rows, the mean over seeds."""
        return evaluate_rows(self.scored[name])

    def forest(self) -> str:
        """The best forest by the mean of pooled and macro AUC on test rows.

        The choice by test rows favours the forest, never the network.
        """

        def height(name: str) -> float:
            of = self.evaluation(name)
            return (of.pooled.auc or 0.0) + (of.macro.auc or 0.0)

        return max((name for name in (*FORESTS, TUNED_FOREST) if name in self.scored), key=height)


def read(shelf: Shelf, seeds: int) -> Found | None:
    """Read a table whose contestants are all finished; else None."""
    subject = shelf.subject
    many = range(seeds_of(subject, seeds))
    runs = {one.name: [shelf.network(one, seed) for seed in many] for one in RECIPES}
    forests = {name: shelf.forest(name, SETTINGS[name]) for name in FORESTS}
    search: list[Path] = []
    encodings = {one.name: shelf.encoding(one) for one in RECIPES}
    encodings |= {name: shelf.encoding(READ_AS[name]) for name in FORESTS}
    trained_runs = [place for places in runs.values() for place in places]
    if not _all_finished([*encodings.values(), *forests.values(), *trained_runs]):
        return None
    if is_tuned(subject):
        forests[TUNED_FOREST] = tuned_forest(shelf)
        encodings[TUNED_FOREST] = shelf.encoding(READ_AS[better_forest(shelf)])
        runs[TUNED] = [shelf.tuned() / f"seed-{seed}" for seed in many]
        search = [shelf.tuned() / "search"]
        if not _all_finished([forests[TUNED_FOREST], *runs[TUNED], *search]):
            return None
    scored = {name: [Run.open(one).scored("test") for one in of] for name, of in runs.items()}
    for name, place in forests.items():
        logits = np.load(place / LOGITS, allow_pickle=False)
        scored[name] = [replace(scored[INIT][0], logits=logits, source=name)] * len(many)
    trained = {name: [noted(one) for one in of] for name, of in runs.items()}
    trained |= {name: [noted(place)] for name, place in forests.items()}
    before = {name: [noted(place)] for name, place in encodings.items()}
    before[TUNED] = [*before[INIT], *(noted(place) for place in search)]
    return Found(
        subject,
        scored,
        {name: _cost(before[name], notes) for name, notes in trained.items()},
        {one.name: _mean_auc(trained[one.name]) for one in RECIPES},
        frozenset(note.commit for notes in (*trained.values(), *before.values()) for note in notes),
    )


def _all_finished(places: Sequence[Path]) -> bool:
    return all(is_finished(place) for place in places)


def _cost(before: Sequence[Measured], trained: Sequence[Measured]) -> Cost:
    """``before``: what is done once; ``trained``: a note for each seed."""
    seconds = sum(one.seconds for one in before) + np.mean([one.seconds for one in trained])
    return Cost(float(seconds), max(one.mebibytes for one in (*before, *trained)))


def _mean_auc(notes: Sequence[Measured]) -> float:
    return float(np.mean([note.auc for note in notes if note.auc is not None]))


def chosen_without(left_out: Subject, held: Sequence[Found]) -> str | None:
    """The recipe that the tables of other sources would make the default; None without any."""
    validation: dict[str, list[Mapping[str, float]]] = {}
    for found in held:
        if found.subject.source != left_out.source:
            validation.setdefault(found.subject.source, []).append(found.validation)
    return best_recipe([one.name for one in RECIPES], validation) if validation else None


def best_recipe(
    names: Sequence[str], validation: Mapping[str, Sequence[Mapping[str, float]]]
) -> str:
    """The recipe of the lowest mean rank in validation AUC; of equals, the one that is named first.

    ``validation``: for each source the AUC of every recipe, on each of its tables. Ranks of a
    source's tables are averaged before those of the sources, so that each source counts once.
    """
    of_sources = [
        np.mean([rankdata([-table[name] for name in names]) for table in tables], axis=0)
        for tables in validation.values()
    ]
    return names[int(np.argmin(np.mean(of_sources, axis=0)))]
