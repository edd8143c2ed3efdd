"""Phases: the trainings of a diagnosis. Each phase is a method that lists trainings.

The plan counts these lists before anything is trained. The study hands the same lists to the
engine. A training is a value of any kind: ours name a network, a learner's name the learner.

N, T and I are effects: net, transfer and interference. `isthmus.diagnosis.recipes` names the arms.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Generic, Protocol, TypeVar

from isthmus.diagnosis.level import RANDOM_GROUPINGS, Level
from isthmus.diagnosis.measures.grouping import random_groupings
from isthmus.diagnosis.support import Measured

T = TypeVar("T")  # a training


class CapacityPoint(Protocol):
    """One point of the capacity curve.

    ``widths``: of the layers. ``domain_input``: whether the model sees the domain. None: unknown.
    """

    @property
    def widths(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def domain_input(self) -> bool | None: ...  # noqa: D102


P = TypeVar("P", bound=CapacityPoint)


class AbstractPhases(ABC, Generic[T, P]):
    """The trainings of each phase at a level, for the domains that are measured."""

    def __init__(self, measured: Measured, level: Level) -> None:
        self.measured = measured
        self.level = level

    @abstractmethod
    def names(self, k: int) -> tuple[str, ...]:
        """All domains of a replicate, measured or not."""

    @abstractmethod
    def choices(self) -> dict[str | None, list[T]]:
        """Give the grid of the joint arm, under None, and of each solo, on the first replicate."""

    @abstractmethod
    def choose(self, name: str | None, training: T) -> None:
        """Keep the recipe of a training of a grid for its arm. Until then it is the grid's first."""

    @abstractmethod
    def joint(self, k: int) -> T:
        """Give the joint training of a replicate."""

    @abstractmethod
    def solo(self, k: int, name: str) -> T:
        """Give the solo of a domain in a replicate."""

    @abstractmethod
    def some(self, k: int, domains: Sequence[str], *, of: str | None) -> T:
        """Give the training of some domains. ``of``: whose recipe; None is that of joint."""

    @abstractmethod
    def stage_two(self, k: int, name: str) -> dict[str, T]:
        """Give the second stages of one domain: ``solo_plus``, ``joint_plus`` and ``tuned``."""

    @abstractmethod
    def adapted(self) -> list[T]:
        """List the adapted training of every replicate; empty where there is none."""

    @abstractmethod
    def pairwise_matched(self) -> list[T]:
        """List the training of every pair with as many rows of each; empty where there is none."""

    @abstractmethod
    def widths(self) -> Iterator[P]:
        """Give the points of the capacity curve, first those that see the domain."""

    @abstractmethod
    def at_width(self, k: int, width: P, name: str | None) -> T:
        """Give joint, for the name None, or a solo, at a width and with the chosen recipe."""

    @property
    @abstractmethod
    def weighting_names(self) -> tuple[str, ...]:
        """The weightings that are compared with the joint arm's own."""

    @abstractmethod
    def weighted(self, k: int, name: str) -> T:
        """Give the joint training under another weighting of the domains' losses."""

    @property
    @abstractmethod
    def refused(self) -> Mapping[str, str]:
        """The weightings that the joint arm cannot be trained under, and why."""

    def newcomers(self) -> list[T]:
        """List the trainings of a new domain; empty where the level does not have them."""
        return []

    @property
    def seeds(self) -> range:
        """The replicates of N, T and I."""
        return range(self.level.seeds)

    @property
    def few(self) -> range:
        """The replicates of what is dearer."""
        return range(self.level.few)

    def first_stage(self) -> list[T]:
        """List the joint training and every solo, in every replicate."""
        names = self.measured.names
        return [
            training
            for k in self.seeds
            for training in (self.joint(k), *(self.solo(k, name) for name in names))
        ]

    def second_stage(self) -> list[T]:
        """List the second stages of every domain, in every replicate."""
        return [
            training
            for k in self.seeds
            for name in self.measured.names
            for training in self.stage_two(k, name).values()
        ]

    def largest(self, domains: Sequence[str]) -> str:
        """Give the domain with the most train rows. Its recipe is that of several domains."""
        support = self.measured.support
        return max(domains, key=lambda name: support[name].train_rows)

    def together(self, k: int, domains: Sequence[str]) -> T:
        """Give the training of some domains together. One domain is its solo, all are joint."""
        if len(domains) == 1:
            return self.solo(k, domains[0])
        if set(domains) == set(self.names(k)):
            return self.joint(k)
        return self.some(k, domains, of=self.largest(domains))

    def pairs(self) -> list[tuple[str, str]]:
        """List every pair of the matrix."""
        return list(combinations(self.measured.paired, 2))

    def pairwise(self) -> list[T]:
        """List the training of every pair, in the few replicates of what is dearer."""
        return [self.together(k, pair) for k in self.few for pair in self.pairs()]

    def without(self, k: int, name: str) -> T:
        """Give the training of all domains but one, by the joint arm's recipe.

        Where one domain is left, the training is that domain's solo.
        """
        others = tuple(n for n in self.names(k) if n != name)
        return self.solo(k, others[0]) if len(others) == 1 else self.some(k, others, of=None)

    def leave_one_out(self) -> list[T]:
        """List the training without each domain of the matrix."""
        return [self.without(k, name) for k in self.few for name in self.measured.paired]

    def capacity(self) -> list[T]:
        """List joint and every solo, at every width, with and without the domain as an input."""
        names = (None, *self.measured.names)
        return [
            self.at_width(k, width, name)
            for k in self.few
            for width in self.widths()
            for name in names
        ]

    def weightings(self) -> list[T]:
        """List the joint trainings under each weighting that joint can be trained under."""
        able = [name for name in self.weighting_names if name not in self.refused]
        return [self.weighted(k, name) for name in able for k in self.few]

    def groupings(self, groupings: Sequence[Sequence[Sequence[str]]], many: range) -> list[T]:
        """List the training of every group of every grouping. ``many``: the replicates."""
        return [self.together(k, group) for k in many for groups in groupings for group in groups]

    def planned(self) -> Mapping[str, list[T]]:
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
        if self.level.newcomers:
            phases["a new domain"] = self.newcomers()
        return phases

    def _guessed_groupings(self) -> list[list[list[str]]]:
        """Give two halves, as if they were found, and as many random groupings as a control."""
        names = self.measured.paired
        half = len(names) // 2
        guess = [range(half), range(half, len(names))]
        sizes = [len(group) for group in guess]
        drawn = random_groupings(len(names), sizes, RANDOM_GROUPINGS, 0, unlike=guess)
        return [[[names[place] for place in group] for group in g] for g in (guess, *drawn)]
