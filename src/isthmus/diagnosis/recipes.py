"""The trainings of a diagnosis: what each arm is, from one config.

S is solo, J is joint, A is adapted. Three arms have two stages. S+ learns from own rows, then from
own rows. J+ learns from all rows, then from all rows. F, which is *tuned*, learns from all rows,
then from own rows. The second stages of the three have the same steps, learning rate, batch and
looks at the domain's validation rows. Pairs of domains are trained together, too. For a new domain,
a network that never met it is extended on some of its rows, and its solo learns from as many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from isthmus.config import Config
from isthmus.data.store.dataset import Dataset
from isthmus.diagnosis.level import STAGE_TWO_EPOCHS, STAGE_TWO_LOOKS
from isthmus.experiments import Training
from isthmus.experiments.arms import (
    LOWER_LR,
    MIN_BATCH,
    choices,
    extending,
    joint_and_adapted,
    of_few,
    patient,
)
from isthmus.experiments.cost import train_rows
from isthmus.models import ModelConfig
from isthmus.train import Budget, TrainConfig
from isthmus.train.methods import JointConfig, PhaseConfig, PhasesConfig
from isthmus.train.methods.trained_parts import DOMAINS
from isthmus.train.unlearned import LEAST_ROWS


@dataclass(frozen=True, slots=True)
class Recipe:
    """The batch and the learning rate that were chosen for an arm."""

    batch_rows: int
    lr: float

    @classmethod
    def of(cls, training: Training) -> "Recipe":
        """Take the recipe of a training."""
        return cls(training.train.batch_rows, training.train.lr)

    def to_dict(self) -> dict[str, float | int]:
        """Give plain values."""
        return {"batch_rows": self.batch_rows, "lr": self.lr}


class ArmTrainings:
    """Makes the trainings of each arm. Every replicate reads one of ``datasets``.

    ``forests``: the same rows as trees read them, one for each dataset, or none.

    `isthmus.experiments.arms` says which network an arm has, and with what settings it is trained.
    """

    def __init__(
        self,
        config: Config,
        datasets: Sequence[Dataset],
        *,
        hide_domain: bool,
        forests: Sequence[Dataset] = (),
    ) -> None:
        self.config = config
        self.datasets = (*datasets, *forests)
        self.folds = len(datasets)
        self.has_forests = bool(forests)
        self.hide_domain = hide_domain
        model = config.model.model_copy(update={"calibration": "none"})
        self.model, self.adapted_model = joint_and_adapted(model)
        self.extending_model = self.model if model.is_trees else extending(model)

    def dataset(self, k: int) -> Dataset:
        """Give the dataset of replicate ``k``."""
        return self.datasets[self._replicate(k)]

    def _train(self, k: int, recipe: Recipe | None) -> TrainConfig:
        base = self.config.train
        # A seed moves no tree: one training stands for all.
        seed = base.seed if self.model.is_trees else base.seed + k
        changes = {"seed": seed, "compile": False}
        return patient(base).model_copy(update=changes | (recipe.to_dict() if recipe else {}))

    def _replicate(self, k: int) -> int:
        return min(k, self.folds - 1)

    def joint(
        self,
        k: int,
        recipe: Recipe | None = None,
        *,
        domains: Sequence[str] | None = None,
        model: ModelConfig | None = None,
        hide_domain: bool | None = None,
        weighting: str = "proportional",
    ) -> Training:
        """Give the training of one model of all domains, or of some."""
        chosen = None if domains is None else tuple(domains)
        training = Training(
            model=model or self.model,
            train=self._train(k, recipe).model_copy(update={"weighting": weighting}),
            replicate=self._replicate(k),
            domains=chosen,
            scored=chosen,
            hide_domain=self.hide_domain if hide_domain is None else hide_domain,
        )
        return training if chosen is None else self._of_few(training)

    def adapted(self, k: int, recipe: Recipe) -> Training:
        """Give the training of the joint arm with adapters."""
        return self.joint(k, recipe, model=self.adapted_model)

    def solo(
        self,
        k: int,
        domain: str,
        recipe: Recipe | None = None,
        *,
        model: ModelConfig | None = None,
        hide_domain: bool | None = None,
    ) -> Training:
        """Give the training of one domain alone.

        The rows of all domains are scored, which gives the cross-scores.
        """
        training = self.joint(k, recipe, domains=(domain,), model=model, hide_domain=hide_domain)
        return replace(training, scored=None)

    def matched(self, k: int, pair: tuple[str, str], recipe: Recipe) -> Training:
        """Give the training of a pair whose larger domain is cut to the rows of the smaller one."""
        training = self.joint(k, recipe, domains=pair)
        rows = min(train_rows(replace(training, domains=(name,)), self.dataset(k)) for name in pair)
        return replace(training, rows_per_domain=rows)

    def grid(self, training: Training) -> list[Training]:
        """Give the choices of a training: two batches by two learning rates."""
        return choices(training, train_rows(training, self.datasets[training.replicate]))

    def stage_two(self, first: Training, domain: str, recipe: Recipe, *, own: bool) -> Training:
        """Give a training that begins with the weights of ``first``.

        ``own``: it learns from the domain's own rows, otherwise from all rows.
        """
        k = first.train.seed - self.config.train.seed
        budget = self.stage_budget(k, domain, recipe)
        slower = Recipe(recipe.batch_rows, self.config.train.lr * LOWER_LR)
        training = Training(
            model=first.model,
            train=self._train(k, slower),
            replicate=first.replicate,
            domains=(domain,) if own else None,
            watch=(domain,),
            scored=(domain,),
            hide_domain=first.hide_domain,
            start=first,
            budget=budget,
        )
        return self._of_few(training)

    def _of_few(self, training: Training) -> Training:
        return of_few(training, self.datasets[training.replicate].summary()["validation"])

    def trees(self, k: int, domains: Sequence[str], scored: str) -> Training:
        """Give the forest of some domains, which scores the rows of another one."""
        train = self._train(0, None)  # a seed moves no tree
        training = Training(
            model=ModelConfig(name="trees"),
            train=train.model_copy(update={"objectives": (), "method": JointConfig()}),
            replicate=self.folds + self._replicate(k),
            domains=tuple(domains),
            scored=(scored,),
        )
        return self._of_few(training)

    def few_rows(self, k: int, domain: str, recipe: Recipe, rows: int | None) -> Training:
        """Give the solo of a domain on some of its train rows. None: on all of them.

        As small a share of its validation rows stops it, by logloss. The batch shrinks with the rows.
        """
        if rows is None:
            return self.solo(k, domain, recipe)
        return self._cut(self.joint(k, recipe, domains=(domain,)), domain, rows)

    def extended(self, first: Training, domain: str, recipe: Recipe, rows: int | None) -> Training:
        """Give the training of what belongs to a domain, in a network that never met it.

        ``first``: the training of that network. ``recipe``: the solo's batch, at the joint arm's rate.
        ``rows``: as in `few_rows`.
        """
        k = first.train.seed - self.config.train.seed
        training = Training(
            model=self.extending_model,
            train=self._train(k, Recipe(recipe.batch_rows, first.train.lr)),
            replicate=first.replicate,
            domains=(domain,),
            scored=(domain,),
            hide_domain=first.hide_domain,
            start=first,
            extends=True,
        )
        method = PhasesConfig(phases=(PhaseConfig(trains=(DOMAINS,)),))
        training = self._of_few(training).trained_with(method=method, domain_dropout=0.0)
        return training if rows is None else self._cut(training, domain, rows)

    def _cut(self, training: Training, domain: str, rows: int) -> Training:
        """Give the training with so many of the domain's train rows, and its batch in proportion."""
        counts = self.datasets[training.replicate].summary()
        have, watched = counts["train"][domain].rows, counts["validation"][domain].rows
        share = min(1.0, rows / have)
        batch = min(rows, max(MIN_BATCH, round(training.train.batch_rows * share)))
        cut = replace(
            training,
            scored=(domain,),
            rows_per_domain=rows,
            watch_per_domain=max(LEAST_ROWS, round(watched * share)),
        )
        return cut.trained_with(batch_rows=batch, monitor="logloss_pooled")

    def stage_budget(self, k: int, domain: str, recipe: Recipe) -> Budget:
        """Give the steps and the looks of a domain's second stage."""
        solo = self.joint(k, recipe, domains=(domain,))
        rows = train_rows(solo, self.dataset(k))
        epoch = max(1, rows // recipe.batch_rows)
        steps = max(STAGE_TWO_LOOKS, STAGE_TWO_EPOCHS * epoch)
        return Budget(steps=steps, looks=STAGE_TWO_LOOKS)
