"""What a study will do and how long that takes, and the budget that bounds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.config import Config
from isthmus.data import Dataset
from isthmus.data.store.teaching import FORESTS
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.cost import Pace
from isthmus.metrics.text_table import count_text
from isthmus.report.diagnosis.words import duration
from isthmus.run.texts import dataset_text
from isthmus.tuning.portfolio import FOREST_PORTFOLIO, PORTFOLIO, PortfolioRecipe
from isthmus.tuning.space import Space

TRIALS = 40  # where no budget is given


@dataclass(frozen=True, slots=True)
class TrialBudget:
    """How many trials, or how many minutes, a study has in all, over all its parts.

    Neither stands for 40 trials. Raises ConfigError where both are given, or one is not above 0.
    """

    trials: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and self.minutes is not None:
            raise ConfigError(
                "a budget must be trials or minutes,"
                f" got trials {self.trials} and minutes {self.minutes:g}"
            )
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"trials must be 1 or more, got {self.trials}")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes must be above 0, got {self.minutes}")

    @property
    def most(self) -> int | None:
        """The number of trials; None where minutes are given."""
        return (self.trials or TRIALS) if self.minutes is None else None

    def is_left(self, ended: int, seconds: float) -> bool:
        """Whether another trial may begin, after ``ended`` trials that took ``seconds``."""
        return ended < self.most if self.most is not None else seconds < 60 * (self.minutes or 0)

    def share(self, ended: int, seconds: float) -> float:
        """Give how much of the budget is spent, from 0 to 1."""
        spent = ended / self.most if self.most else seconds / (60 * (self.minutes or 1))
        return min(1.0, spent)

    def __str__(self) -> str:
        return f"{self.most} trials" if self.minutes is None else f"{self.minutes:g} minutes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunePlan:
    """What a study is about to do.

    ``data``: rows and domains in words. ``megabytes``: of the encoded rows on disk. ``recipes``: the
    names of the portfolio. ``ended``: trials that ended before. ``seconds``: expected, for what is
    left.
    """

    data: str
    megabytes: float
    monitor: str
    budget: TrialBudget
    recipes: tuple[str, ...]
    left_out: Mapping[str, str]
    space: Mapping[str, str]
    ended: int
    trial_seconds: float
    seconds: float

    def __str__(self) -> str:
        better = "smaller" if self.monitor.startswith("logloss") else "larger"
        most = self.budget.most
        first = len(self.recipes) if most is None else min(most, len(self.recipes))
        after = (
            "TPE for the rest" if most is None else count_text(most - first, "trial") + " of TPE"
        )
        before = f", {self.ended} of them ended before" if self.ended else ""
        return "\n".join(
            [
                f"tuning for {self.budget}: {count_text(first, 'recipe')} of the portfolio,"
                f" then {after}{before}",
                f"{self.data}; {self.megabytes:,.1f} MB encoded, once",
                f"score: {self.monitor} of the validation rows, {better} is better",
                *(f"  {key}: {of}" for key, of in self.space.items()),
                *(f"left out of the portfolio: {n}: {why}" for n, why in self.left_out.items()),
                f"about {duration(self.trial_seconds)} a trial, {duration(self.seconds)} to go",
            ]
        )


def chosen_recipes(space: Space) -> tuple[tuple[PortfolioRecipe, ...], dict[str, str]]:
    """Give the recipes to try, and those that are left out with the reason.

    A recipe is left out where it is no point of the space, and where it says what an earlier one
    says.
    """
    kept: dict[str, PortfolioRecipe] = {}
    left_out: dict[str, str] = {}
    for recipe in FOREST_PORTFOLIO if space.config.model.is_trees else PORTFOLIO:
        if (why := space.refusal(recipe)) is not None:
            left_out[recipe.name] = why
            continue
        params = space.params(recipe)
        same = next((name for name, one in kept.items() if space.params(one) == params), None)
        if same is not None:
            left_out[recipe.name] = f"the same as {same!r}"
        else:
            kept[recipe.name] = recipe
    return tuple(kept.values()), left_out


def plan_of(
    space: Space,
    dataset: Dataset,
    pace: Pace,
    budget: TrialBudget,
    *,
    recipes: Sequence[PortfolioRecipe],
    left_out: Mapping[str, str],
    ended: int,
    spent: float,
) -> TunePlan:
    """Make the plan of a study of which ``ended`` trials took ``spent`` seconds.

    The time of a trial is the mean of those that ended, or else what the steps of ``pace`` make of
    the portfolio. Pruned trials take less.
    """
    configs = [space.configured(space.params(recipe)) for recipe in recipes]
    expected = sum(trial_seconds(one, dataset, pace) for one in configs) / len(configs)
    each = spent / ended if ended else expected
    if budget.most is None:
        left = max(0.0, 60 * (budget.minutes or 0) - spent)
    else:
        left = each * max(0, budget.most - ended)
    sizes = (file.stat().st_size for file in dataset.folder.rglob("*") if file.is_file())
    return TunePlan(
        data=dataset_text(dataset),
        megabytes=sum(sizes) / 1e6,
        monitor=space.config.train.monitor,
        budget=budget,
        recipes=tuple(recipe.name for recipe in recipes),
        left_out=dict(left_out),
        space=space.to_dict(),
        ended=ended,
        trial_seconds=each,
        seconds=left,
    )


def trial_seconds(config: Config, dataset: Dataset, pace: Pace) -> float:
    """Give the seconds that a trial is expected to take.

    Of trees, ``pace`` is that of all forests that an encoding grows, of which a trial grows one.
    """
    rows = len(dataset.rows("train")) if config.model.is_trees else None
    training = Training(model=config.model, train=config.train, rows_per_domain=rows)
    seconds = pace.seconds([training], [dataset], jobs=1)
    return seconds / FORESTS if config.model.is_trees else seconds
