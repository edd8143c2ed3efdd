"""The trainings of a diagnosis of our own networks, phase by phase, by the recipes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from isthmus.adapters import TalConfig
from isthmus.diagnosis.abstract_phases import AbstractPhases
from isthmus.diagnosis.level import OWN_ROWS, WIDTHS, Level
from isthmus.diagnosis.recipes import ArmTrainings, Recipe
from isthmus.diagnosis.support import Measured
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build
from isthmus.models import ModelConfig
from isthmus.train.weighting import WeightingName, build_weighting

NEARLY_ALL = 0.8  # of a domain's rows: above, there is no point on the curve beside that of all
WEIGHTINGS = tuple(name for name in get_args(WeightingName) if name != "proportional")


@dataclass(frozen=True, slots=True)
class Width:
    """One point of the capacity curve.

    ``widths``: of the layers of the backbone. ``domain_input``: whether the model sees the domain.
    """

    model: ModelConfig
    widths: tuple[int, ...]
    domain_input: bool


class Phases(AbstractPhases[Training, Width]):
    """The trainings of our networks.

    ``recipes``: the recipe of the joint arm, under None, and of each domain's solo. They are the first
    of each grid until a choice is made on the first replicate.
    """

    def __init__(self, arms: ArmTrainings, measured: Measured, level: Level) -> None:
        super().__init__(measured, level)
        self.arms = arms
        self.recipes = {name: Recipe.of(grid[0]) for name, grid in self.choices().items()}

    def names(self, k: int) -> tuple[str, ...]:
        """All domains of the replicate's table."""
        return tuple(self.arms.dataset(k).domain_names)

    def choices(self) -> dict[str | None, list[Training]]:
        """Give the grid of batch and rate of each arm."""
        grids: dict[str | None, list[Training]] = {None: self.arms.grid(self.arms.joint(0))}
        for name in self.measured.names:
            grids[name] = self.arms.grid(self.arms.solo(0, name))
        return grids

    def choose(self, name: str | None, training: Training) -> None:
        """Keep the batch and the rate of a training for its arm."""
        self.recipes[name] = Recipe.of(training)

    def joint(self, k: int) -> Training:
        """Give the joint training of a replicate."""
        return self.arms.joint(k, self.recipes[None])

    def solo(self, k: int, name: str) -> Training:
        """Give the solo of a domain in a replicate."""
        return self.arms.solo(k, name, self.recipes[name])

    def some(self, k: int, domains: Sequence[str], *, of: str | None) -> Training:
        """Give the training of some domains, by the recipe of an arm."""
        return self.arms.joint(k, self.recipes[of], domains=domains)

    def stage_two(self, k: int, name: str) -> dict[str, Training]:
        """Give the second stages of one domain: ``solo_plus``, ``joint_plus`` and ``tuned``."""
        recipe, joint = self.recipes[name], self.joint(k)
        return {
            "solo_plus": self.arms.stage_two(self.solo(k, name), name, recipe, own=True),
            "joint_plus": self.arms.stage_two(joint, name, recipe, own=False),
            "tuned": self.arms.stage_two(joint, name, recipe, own=True),
        }

    def adapted(self) -> list[Training]:
        """List the adapted training of every replicate."""
        return [self.arms.adapted(k, self.recipes[None]) for k in self.seeds]

    def matched(self, k: int, pair: tuple[str, str]) -> Training:
        """Give the training of a pair whose larger domain is cut to the smaller one's rows."""
        return self.arms.matched(k, pair, self.recipes[self.largest(pair)])

    def pairwise_matched(self) -> list[Training]:
        """List the matched training of every pair."""
        return [self.matched(k, pair) for k in self.few for pair in self.pairs()]

    def without_adapted(self, k: int, name: str) -> Training:
        """Give the adapted training of all domains but one."""
        others = tuple(one for one in self.names(k) if one != name)
        return self.arms.joint(k, self.recipes[None], domains=others, model=self.arms.adapted_model)

    def without_by_trees(self, k: int, name: str) -> Training:
        """Give the forest of all domains but one."""
        return self.arms.trees(k, [one for one in self.names(k) if one != name], name)

    def own_rows(self, name: str) -> tuple[int | None, ...]:
        """Give the sizes of the curve of a new domain's own rows. None: all of them."""
        most = NEARLY_ALL * self.measured.support[name].train_rows
        return (*(rows for rows in OWN_ROWS if rows < most), None)

    def extended(self, k: int, name: str, rows: int | None) -> Training:
        """Give the extension of the network that never met a domain, on some of its rows."""
        return self.arms.extended(self.without(k, name), name, self.recipes[name], rows)

    def few_rows(self, k: int, name: str, rows: int | None) -> Training:
        """Give the solo of a domain on some of its rows."""
        return self.arms.few_rows(k, name, self.recipes[name], rows)

    @property
    def mixes(self) -> bool:
        """Whether the config's adapter answers an unknown domain by a mixture of all domains."""
        return isinstance(self.arms.adapted_model.adapter, TalConfig)

    def newcomers(self) -> list[Training]:
        """List the trainings without each domain, and those on some of its own rows."""
        found = []
        for k in range(self.level.newcomers):
            for name in self.measured.names:
                found.append(self.without(k, name))
                if self.mixes:
                    found.append(self.without_adapted(k, name))
                if self.arms.has_forests:
                    found.append(self.without_by_trees(k, name))
                for rows in self.own_rows(name):
                    found += [self.extended(k, name, rows), self.few_rows(k, name, rows)]
        return found

    def widths(self) -> Iterator[Width]:
        """Give every width with the domain as an input, then without."""
        scaled = {model.backbone.sizes: model for model in map(self.arms.model.scaled, WIDTHS)}
        for domain_input in (True, False):
            for sizes, model in scaled.items():
                yield Width(model, sizes, domain_input)

    def at_width(self, k: int, width: Width, name: str | None) -> Training:
        """Give joint, for the name None, or a solo, at a width and with the chosen recipe."""
        hide = not width.domain_input
        if name is None:
            return self.arms.joint(k, self.recipes[None], model=width.model, hide_domain=hide)
        recipe = self.recipes[name]
        return self.arms.solo(k, name, recipe, model=width.model, hide_domain=hide)

    @property
    def weighting_names(self) -> tuple[str, ...]:
        """Every weighting but proportional, which joint has."""
        return WEIGHTINGS

    def weighted(self, k: int, name: str) -> Training:
        """Give the joint training under another weighting of the domains' losses."""
        return self.arms.joint(k, self.recipes[None], weighting=name)

    @property
    def refused(self) -> dict[str, str]:
        """The weightings that the joint arm cannot be trained under, and why."""
        return self._refused

    @cached_property
    def _refused(self) -> dict[str, str]:
        """The weightings that the joint arm cannot be trained under, and why."""
        dataset, joint = self.arms.dataset(0), self.joint(0)
        model, reasons = build(joint, dataset), {}
        for name in WEIGHTINGS:
            try:
                build_weighting(
                    name,
                    model,
                    n_domains=len(dataset.domain_names),
                    lr=joint.train.lr,
                    seed=joint.train.seed,
                    compiled=joint.train.compile,
                )
            except ConfigError as fault:
                reasons[name] = str(fault)
        return reasons
