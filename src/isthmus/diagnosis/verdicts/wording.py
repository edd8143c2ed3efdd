"""The sentences of verdicts. They tell numbers to a reader without statistics."""

from dataclasses import dataclass
from typing import Literal

from isthmus.metrics.effects import Effect
from isthmus.report.diagnosis.words import MetricWords


@dataclass(frozen=True, slots=True)
class Wording:
    """Sentences for the numbers of one metric and one domain.

    ``margin_value``: in the metric's own unit. ``replicates``, ``kind``: how often all was trained.
    ``rows``: the number of test rows.
    """

    metric: MetricWords
    margin_value: float
    replicates: int
    kind: Literal["seeds", "folds"]
    rows: int | None = None

    @property
    def trainings(self) -> str:
        """How often all was trained, such as ``5 seeds`` or ``1 fold``."""
        return f"{self.replicates} {self.kind if self.replicates != 1 else self.kind[:-1]}"

    @property
    def margin(self) -> str:
        """The margin with its unit."""
        return f"{plain(self.margin_value, digits_of(self.margin_value))}{self.metric.unit}"

    def net(self, solo: float | None, joint: float | None, net: Effect) -> str:
        """Say what training together did, with its interval."""
        assert net.estimate is not None
        assert net.ci is not None
        digits = _digits(net)
        better, worse = (
            ("lifts", "lowers") if self.metric.larger_is_better else ("lowers", "raises")
        )
        if net.ci[0] > 0 or net.ci[1] < 0:
            verb = better if net.estimate > 0 else worse
        else:
            verb = "moves"
        levels = ""
        if solo is not None and joint is not None:
            levels = f" from {plain(solo, digits)} to {plain(joint, digits)}"
        return f"Training together {verb} {self.metric.name}{levels} ({self._span(net)}, {self.trainings})."

    def _span(self, effect: Effect) -> str:
        """Give an effect with its 95 % interval. A fall of a loss is in words: its sign surprises."""
        assert effect.estimate is not None
        assert effect.ci is not None
        digits = _digits(effect)
        low, high = (signed(end, digits) for end in effect.ci)
        if self.metric.larger_is_better:
            return f"{signed(effect.estimate, digits)}, 95 % interval {low} to {high}"
        word = "better" if effect.estimate >= 0 else "worse"
        size = plain(abs(effect.estimate), digits)
        return f"{word} by {size}{self.metric.unit}, 95 % interval of the gain {low} to {high}"

    def untestable(self, net: Effect) -> str:
        """Say why there is no interval, and what would give one."""
        reason = net.reason or "the effect could not be measured"
        text = f"{reason[0].upper()}{reason[1:]}."
        return f"{text} {self._needed(net)}".rstrip()

    def too_few(self, net: Effect) -> str:
        """Say what these rows could have shown, and how many rows would do."""
        text = "That leaves both harm and no harm possible."
        if net.detectable is not None:
            rows = "These rows" if self.rows is None else f"These {self.rows:,} test rows"
            size = f"{plain(net.detectable, digits_of(net.detectable))}{self.metric.unit}"
            text += f" {rows} and {self.trainings} can show an effect of {size} or more."
        return f"{text} {self._needed(net)}".rstrip()

    def _needed(self, net: Effect) -> str:
        if net.rows_needed is None:
            return ""
        return f"About {round_up(net.rows_needed):,} test rows are needed for the margin of {self.margin}."

    def cure(self, name: str, over_solo: Effect, over_joint: Effect) -> str:
        """Say that a remedy restores the domain."""
        return (
            f"{name} it is better than that ({self._span(over_joint)}) and holds against training"
            f" alone ({self._span(over_solo)})."
        )

    def extra(self, name: str, gain: Effect) -> str:
        """Say what adapting adds to sharing."""
        return f"Even against longer joint training {name} adds more ({self._span(gain)})."

    def no_transfer(self) -> str:
        """Say that the domain can take nothing from the others."""
        return (
            f"What it can take from the other domains is less than the margin of {self.margin},"
            " even when it is tuned on its own rows afterwards."
        )

    def open_transfer(self, transfer: Effect | None) -> str:
        """Say that the domain may still take something from the others."""
        if transfer is None or transfer.ci is None:
            return "Whether it could still take something from the others was not measured."
        return (
            "No remedy that was tried restores it, yet it may still take something from the others"
            f" ({self._span(transfer)})."
        )

    def no_matter(self) -> str:
        """Say that training together and training alone come to the same."""
        return f"Either way it is the same, to within the margin of {self.margin}."

    def small_loss(self) -> str:
        """Say that there is harm inside the margin."""
        return f"The loss is surely there, but smaller than the margin of {self.margin}."

    def no_harm(self) -> str:
        """Say that any loss is smaller than the margin."""
        return f"A gain is not shown, but any loss is smaller than the margin of {self.margin}."


def digits_of(size: float) -> int:
    """Give the decimals that show two figures of ``size``, from 3 to 6.

    >>> digits_of(0.021), digits_of(0.0004)
    (3, 5)
    """
    digits = 3
    while digits < 6 and abs(size) * 10**digits < 5:
        digits += 1
    return digits


def _digits(effect: Effect) -> int:
    """Give the decimals that tell the ends of an interval apart."""
    if effect.ci is None:
        return 3
    return digits_of(effect.ci[1] - effect.ci[0] or 1.0)


def plain(value: float, digits: int) -> str:
    """Spell a number without the zero before its point: .712, and 1.034."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def signed(value: float, digits: int) -> str:
    """Spell a difference with its sign: +.012, -.003. Zero has no sign."""
    if round(value, digits) == 0:
        return plain(0.0, digits)
    return f"{'+' if value > 0 else '-'}{plain(abs(value), digits)}"


def round_up(rows: int) -> int:
    """Round up to two figures. An estimate of rows is no more exact than that.

    >>> round_up(70_411), round_up(93)
    (71000, 93)
    """
    unit = 10 ** max(0, len(str(rows)) - 2)
    return -(-rows // unit) * unit
