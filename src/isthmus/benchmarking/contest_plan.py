"""What a benchmark will do, about how long that takes, and how much of it is left."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.benchmarking.equal_terms import Terms
from isthmus.benchmarking.study_job import ended
from isthmus.data import Dataset
from isthmus.experiments.arms import joint_and_adapted
from isthmus.experiments.cost import probe
from isthmus.experiments.outcome import sized_for
from isthmus.metrics.text_table import NOTHING, TextTable, count_text
from isthmus.report.diagnosis.words import duration
from isthmus.tuning.tune_plan import trial_seconds

COST_SECONDS = 10.0  # to measure what one contender costs


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPlan:
    """What a benchmark is about to do. ``seconds``: expected, for what is left.

    ``each``: expected seconds of one training, by contender. ``ended``: trials that ended before.
    """

    data: str
    split: str
    monitor: str
    trunk: int
    trials: int
    seeds: int
    jobs: int
    terms: tuple[Terms, ...]
    left_out: Mapping[str, str]
    each: Mapping[str, float]
    ended: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        table = TextTable(
            title=(
                f"benchmark of {count_text(len(self.terms), 'model')}: {self.trials} trials for each,"
                f" then {count_text(self.seeds, 'seed')} with the best setting of each"
            ),
            header=("model", "what it is", "trunk", "all", "a training", "trials ended"),
            rows=tuple(self._row(one) for one in self.terms),
            notes=(
                f"{self.data}; {self.split}",
                f"trunk: at most {self.trunk:,} parameters; score: {self.monitor} of the validation"
                " rows",
                *self._methods(),
                *(f"left out: {name}: {why}" for name, why in self.left_out.items()),
                f"about {duration(self.seconds)} to go"
                + (f" with {self.jobs} at a time" if self.jobs > 1 else ""),
            ),
            left=(0, 1),
        )
        return str(table)

    def _methods(self) -> Iterator[str]:
        """Say which networks the config's method trains, where it is not joint."""
        by: dict[str, list[str]] = {}
        for one in self.terms:
            if one.sizes is not None:
                by.setdefault(one.config.train.method.name, []).append(one.name)
        if by.keys() - {"joint"}:
            told = (f"{method}: {', '.join(names)}" for method, names in by.items())
            yield f"trained by {'; by '.join(told)}"

    def _row(self, of: Terms) -> tuple[str, ...]:
        sizes = of.sizes
        return (
            of.name,
            of.contender.told,
            *((NOTHING, NOTHING) if sizes is None else (f"{sizes.trunk:,}", f"{sizes.total:,}")),
            f"about {duration(self.each[of.name])}",
            f"{self.ended[of.name]} of {self.trials}",
        )


def expected_seconds(
    terms: Sequence[Terms], dataset: Dataset, forest: Dataset | None
) -> dict[str, float]:
    """Give the seconds of one training of each contender: a few steps of each are taken.

    ``dataset``: what networks read; ``forest``: what trees read, of which a small one is grown.
    """
    found = {}
    for one in terms:
        read = forest if one.config.model.is_trees else dataset
        assert read is not None
        model, settings = sized_for(one.config.model, read), one.config.train
        pace = probe(model, settings, read, jobs=1)
        plain, _ = joint_and_adapted(model)  # what an adapter costs is in the pace
        found[one.name] = trial_seconds(one.config.model_copy(update={"model": plain}), read, pace)
    return found


@dataclass(slots=True)
class ContestClock:
    """How much of a benchmark is left. ``each``: expected seconds of one training, by contender.

    What has ended corrects what is expected: of a contender, the mean of its own trials; of the
    others, the expectation times how far it was off so far.
    """

    each: Mapping[str, float]
    trials: int
    seeds: int
    jobs: int
    done: dict[str, tuple[int, float]] = field(default_factory=dict)  # trials and their seconds
    trained: int = 0  # trainings with a best recipe
    measured: int = 0  # costs

    def __post_init__(self) -> None:
        self.done = {name: self.done.get(name, (0, 0.0)) for name in self.each}

    def seconds_of(self, name: str) -> float:
        """Expected seconds of one more training of a contender."""
        count, seconds = self.done[name]
        if count:
            return seconds / count
        known = [(self.each[one] * n, spent) for one, (n, spent) in self.done.items() if n]
        expected = sum(one for one, _ in known)
        return self.each[name] * (sum(spent for _, spent in known) / expected if expected else 1.0)

    @property
    def left(self) -> float:
        """Seconds that are expected to be left."""
        searching = sum(
            max(0, self.trials - count) * self.seconds_of(name)
            for name, (count, _) in self.done.items()
        )
        final = sum(self.seeds * self.seconds_of(name) for name in self.each)
        of = max(1, self.seeds * len(self.each))
        training = final * max(0.0, 1 - self.trained / of)
        costs = COST_SECONDS * max(0, len(self.each) - self.measured)
        return (searching + training) / self.jobs + costs

    def share(self, spent: float) -> float:
        """Give how much is done, from 0 to 1, after ``spent`` seconds of this call."""
        return min(0.999, spent / max(spent + self.left, 1e-9))


def trials_before(folders: Mapping[str, Path]) -> dict[str, tuple[int, float]]:
    """Give the trials of each contender that ended in an earlier call, and their seconds."""
    found = {}
    for name, folder in folders.items():
        study = ended(folder)
        report = None if study is None else study.report
        found[name] = (0, 0.0) if report is None else (len(report["trials"]), report["seconds"])
    return found


class Elapsed:
    """Seconds since the object was made."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.began
