"""The trainings of a learner, phase by phase."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from isthmus.diagnosis.abstract_phases import AbstractPhases
from isthmus.diagnosis.learners.learner import (
    ChoosingLearner,
    ContinuingLearner,
    CrossScoringLearner,
    DomainRows,
    Learner,
    ScaledLearner,
    WeighingLearner,
)
from isthmus.diagnosis.learners.learner_training import LearnerTraining
from isthmus.diagnosis.level import Level
from isthmus.diagnosis.support import Measured


@dataclass(frozen=True, slots=True)
class LearnerWidth:
    """One point of a learner's capacity curve. Whether it sees the domain is its own business."""

    widths: tuple[int, ...]
    domain_input: None = None


class LearnerPhases(AbstractPhases[LearnerTraining, LearnerWidth]):
    """The trainings of a learner. ``chosen``: the setting of joint, under None, and of each solo.

    The seed of replicate k is k. A state is kept where a second stage goes on from it.
    """

    def __init__(
        self,
        learner: Learner,
        domains: Mapping[str, DomainRows],
        measured: Measured,
        level: Level,
    ) -> None:
        super().__init__(measured, level)
        self.learner, self.domains = learner, domains
        self.settings: Mapping[str, Learner] = {"": learner}
        if isinstance(learner, ChoosingLearner):
            self.settings = dict(learner.choices())
        first = next(iter(self.settings.values()))
        self.chosen: dict[str | None, Learner] = dict.fromkeys((None, *measured.names), first)

    def names(self, k: int) -> tuple[str, ...]:  # noqa: ARG002
        """All domains, the same in every replicate."""
        return tuple(self.domains)

    def choices(self) -> dict[str | None, list[LearnerTraining]]:
        """Give the settings of each arm, on the first seed. There is nothing to try of a single one."""
        grids: dict[str | None, list[LearnerTraining]] = {}
        for name in (None, *self.measured.names):
            grids[name] = [
                self._all(0, one) if name is None else self._alone(0, name, one)
                for one in self.settings.values()
            ]
        return grids

    def choose(self, name: str | None, training: LearnerTraining) -> None:
        """Keep the setting of a training for its arm."""
        self.chosen[name] = training.learner

    def joint(self, k: int) -> LearnerTraining:
        """Give the joint training of a seed."""
        return self._all(k, self.chosen[None])

    def solo(self, k: int, name: str) -> LearnerTraining:
        """Give the solo of a domain with a seed."""
        return self._alone(k, name, self.chosen[name])

    def some(self, k: int, domains: Sequence[str], *, of: str | None) -> LearnerTraining:
        """Give the training of some domains, by the setting of an arm."""
        held = self._ordered(domains)
        return self._first("joint of some", k, held, self.chosen[of])

    def stage_two(self, k: int, name: str) -> dict[str, LearnerTraining]:
        """Give the second stages of a domain. Each goes on with the setting that it started with."""
        solo, joint, every = self.solo(k, name), self.joint(k), tuple(self.domains)
        steps = self.steps(name)
        return {
            "solo_plus": self._second("solo_plus", solo, name, (name,), steps),
            "joint_plus": self._second("joint_plus", joint, name, every, steps),
            "tuned": self._second("tuned", joint, name, (name,), steps),
        }

    def steps(self, name: str) -> int:
        """Give the steps of a domain's second stages."""
        learner = self.chosen[name]
        assert isinstance(learner, ContinuingLearner)
        return learner.second_stage_steps(self.domains[name].train)

    def adapted(self) -> list[LearnerTraining]:
        """List nothing: a learner has no adapters that the diagnosis knows of."""
        return []

    def pairwise_matched(self) -> list[LearnerTraining]:
        """List nothing: only the learner could cut its rows."""
        return []

    def widths(self) -> Iterator[LearnerWidth]:
        """Give the sizes that the learner offers."""
        if isinstance(self.learner, ScaledLearner):
            yield from (LearnerWidth((width,)) for width in self.learner.at_widths())

    def at_width(self, k: int, width: LearnerWidth, name: str | None) -> LearnerTraining:
        """Give joint, for the name None, or a solo, of another size of the arm's setting."""
        base = self.chosen[name]
        assert isinstance(base, ScaledLearner)
        learner = base.at_widths()[width.widths[0]]
        if name is None:
            return self._all(k, learner, kept=False)
        return self._alone(k, name, learner, kept=False)

    @property
    def weighting_names(self) -> tuple[str, ...]:
        """The weightings that the learner offers."""
        return tuple(self.learner.weightings()) if isinstance(self.learner, WeighingLearner) else ()

    def weighted(self, k: int, name: str) -> LearnerTraining:
        """Give the joint training under another weighting."""
        base = self.chosen[None]
        assert isinstance(base, WeighingLearner)
        return self._all(k, base.weightings()[name], kept=False)

    @property
    def refused(self) -> Mapping[str, str]:
        """None: a learner offers what it can do."""
        return {}

    def _ordered(self, domains: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in self.domains if name in domains)

    def _all(self, k: int, learner: Learner, *, kept: bool = True) -> LearnerTraining:
        return self._first("joint", k, tuple(self.domains), learner, kept=kept)

    def _alone(self, k: int, name: str, learner: Learner, *, kept: bool = True) -> LearnerTraining:
        scored = self.measured.names if isinstance(learner, CrossScoringLearner) else (name,)
        return self._first("solo", k, (name,), learner, scored=scored, kept=kept)

    def _first(
        self,
        arm: str,
        k: int,
        domains: tuple[str, ...],
        learner: Learner,
        *,
        scored: tuple[str, ...] | None = None,
        kept: bool = False,
    ) -> LearnerTraining:
        return LearnerTraining(
            learner=learner,
            arm=arm,
            seed=k,
            domains=domains,
            watch=domains,
            scored=domains if scored is None else scored,
            kept=kept and self.level.stages,
        )

    def _second(
        self, arm: str, start: LearnerTraining, name: str, domains: tuple[str, ...], steps: int
    ) -> LearnerTraining:
        return LearnerTraining(
            learner=start.learner,
            arm=arm,
            seed=start.seed,
            domains=domains,
            watch=(name,),
            scored=(name,),
            start=start,
            steps=steps,
        )
