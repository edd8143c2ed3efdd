"""Phases: the trainings of a diagnosis. Each phase is a method that lists trainings by the recipes.

The plan counts these lists before anything is trained. The study hands the same lists to the
engine.

N, T and I are effects: net, transfer and interference. `isthmus.diagnosis.recipes` names the arms.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import get_args

from isthmus.diagnosis.level import RANDOM_GROUPINGS, WIDTHS, Level
from isthmus.diagnosis.measures.grouping import random_groupings
from isthmus.diagnosis.recipes import ArmTrainings, Recipe
from isthmus.diagnosis.support import Measured
from isthmus.errors import ConfigError
from isthmus.experiments import Training
from isthmus.experiments.outcome import build
from isthmus.models import ModelConfig
from isthmus.train.weighting import WeightingName, build_weighting

WEIGHTINGS = tuple(name for name in get_args(WeightingName) if name != "proportional")


@dataclass(frozen=True, slots=True)
class Width:
    """One point of the capacity curve.

    ``widths``: of the layers of the backbone. ``domain_input``: whether the model sees the domain.
    """

    model: ModelConfig
    widths: tuple[int, ...]
    domain_input: bool


class Phases:
    """The trainings of each phase at a level, for the domains that are measured.

    ``recipes``: the recipe of the joint arm, under None, and of each domain's solo. They are the first
    of each grid until a choice is made on the first replicate.
    """

    def __init__(self, arms: ArmTrainings, measured: Measured, level: Level) -> None:
        self.arms = arms
        self.measured = measured
        self.level = level
        self.recipes = {name: Recipe.of(grid[0]) for name, grid in self.choices().items()}

    @property
    def seeds(self) -> range:
        """The replicates of N, T and I."""
        return range(self.level.seeds)

    @property
    def few(self) -> range:
        """The replicates of what is dearer."""
        return range(self.level.few)

    def choices(self) -> dict[str | None, list[Training]]:
        """Give the grid of the joint arm, under None, and of each solo, on the first replicate."""
        grids: dict[str | None, list[Training]] = {None: self.arms.grid(self.arms.joint(0))}
        for name in self.measured.names:
            grids[name] = self.arms.grid(self.arms.solo(0, name))
        return grids

    def joint(self, k: int) -> Training:
        """Give the joint training of a replicate."""
        return self.arms.joint(k, self.recipes[None])

    def solo(self, k: int, name: str) -> Training:
        """Give the solo of a domain in a replicate."""
        return self.arms.solo(k, name, self.recipes[name])

    def first_stage(self) -> list[Training]:
        """List the joint training and every solo, in every replicate."""
        names = self.measured.names
        return [
            training
            for k in self.seeds
            for training in (self.joint(k), *(self.solo(k, name) for name in names))
        ]

    def stage_two(self, k: int, name: str) -> dict[str, Training]:
        """Give the second stages of one domain: ``solo_plus``, ``joint_plus`` and ``tuned``."""
        recipe, joint = self.recipes[name], self.joint(k)
        return {
            "solo_plus": self.arms.stage_two(self.solo(k, name), name, recipe, own=True),
            "joint_plus": self.arms.stage_two(joint, name, recipe, own=False),
            "tuned": self.arms.stage_two(joint, name, recipe, own=True),
        }

    def second_stage(self) -> list[Training]:
        """List the second stages of every domain, in every replicate."""
        return [
            training
            for k in self.seeds
            for name in self.measured.names
            for training in self.stage_two(k, name).values()
        ]

    def adapted(self) -> list[Training]:
        """List the adapted training of every replicate."""
        return [self.arms.adapted(k, self.recipes[None]) for k in self.seeds]

    def recipe_of(self, domains: Sequence[str]) -> Recipe:
        """Give the recipe of several domains: that of the domain with the most train rows."""
        support = self.measured.support
        return self.recipes[max(domains, key=lambda name: support[name].train_rows)]

    def together(self, k: int, domains: Sequence[str]) -> Training:
        """Give the training of some domains together. One domain is its solo, all are joint."""
        if len(domains) == 1:
            return self.solo(k, domains[0])
        if set(domains) == set(self.arms.dataset(k).domain_names):
            return self.joint(k)
        return self.arms.joint(k, self.recipe_of(domains), domains=domains)

    def pairs(self) -> list[tuple[str, str]]:
        """List every pair of the matrix."""
        return list(combinations(self.measured.paired, 2))

    def pairwise(self) -> list[Training]:
        """List the training of every pair, in the few replicates of what is dearer."""
        return [self.together(k, pair) for k in self.few for pair in self.pairs()]

    def matched(self, k: int, pair: tuple[str, str]) -> Training:
        """Give the training of a pair whose larger domain is cut to the smaller one's rows."""
        return self.arms.matched(k, pair, self.recipe_of(pair))

    def pairwise_matched(self) -> list[Training]:
        """List the matched training of every pair."""
        return [self.matched(k, pair) for k in self.few for pair in self.pairs()]

    def without(self, k: int, name: str) -> Training:
        """Give the training of all domains but one, by the joint arm's recipe.

        Where one domain is left, the training is that domain's solo.
        """
        others = tuple(n for n in self.arms.dataset(k).domain_names if n != name)
        if len(others) == 1:
            return self.solo(k, others[0])
        return self.arms.joint(k, self.recipes[None], domains=others)

    def leave_one_out(self) -> list[Training]:
        """List the training without each domain of the matrix."""
        return [self.without(k, name) for k in self.few for name in self.measured.paired]

    def widths(self) -> Iterator[Width]:
        """Give the points of the capacity curve, first those that see the domain."""
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

    def capacity(self) -> list[Training]:
        """List joint and every solo, at every width, with and without the domain as an input."""
        names = (None, *self.measured.names)
        return [
            self.at_width(k, width, name)
            for k in self.few
            for width in self.widths()
            for name in names
        ]

    def weighted(self, k: int, name: str) -> Training:
        """Give the joint training under another weighting of the domains' losses."""
        return self.arms.joint(k, self.recipes[None], weighting=name)

    @cached_property
    def refused(self) -> dict[str, str]:
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

    def weightings(self) -> list[Training]:
        """List the joint trainings under each weighting that joint can be trained under."""
        able = [name for name in WEIGHTINGS if name not in self.refused]
        return [self.weighted(k, name) for name in able for k in self.few]

    def groupings(
        self, groupings: Sequence[Sequence[Sequence[str]]], many: range
    ) -> list[Training]:
        """List the training of every group of every grouping. ``many``: the replicates."""
        return [self.together(k, group) for k in many for groups in groupings for group in groups]

    def planned(self) -> Mapping[str, list[Training]]:
        """List the trainings of every phase of the level, in order.

        The groups are a guess, since the pairwise matrix A chooses the true ones later.
        """
        phases = {
            "choices of batch and rate": [t for grid in self.choices().values() for t in grid],
            "solo and joint": self.first_stage(),
        }
        if self.level.stages:
            phases["transfer and interference"] = self.second_stage()
        if self.level.adapted:
            phases["adapted"] = self.adapted()
        if self.level.dear:
            guess, *controls = self._guessed_groupings()
            phases["pairs"] = self.pairwise()
            phases["pairs of equal rows"] = self.pairwise_matched()
            phases["leave one out"] = self.leave_one_out()
            if self.level.network:
                phases["capacity"] = self.capacity()
            phases["groups"] = [
                *self.groupings([guess], self.seeds),
                *self.groupings(controls, self.few),
            ]
            if self.level.network:
                phases["weighting of losses"] = self.weightings()
        return phases

    def _guessed_groupings(self) -> list[list[list[str]]]:
        """Give two halves, as if they were found, and as many random groupings as a control."""
        names = self.measured.paired
        half = len(names) // 2
        guess = [range(half), range(half, len(names))]
        sizes = [len(group) for group in guess]
        drawn = random_groupings(len(names), sizes, RANDOM_GROUPINGS, 0, unlike=guess)
        return [[[names[place] for place in group] for group in g] for g in (guess, *drawn)]
