"""Plain words for a diagnosis: what a verdict asks for, and what its parts are called."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isthmus.metrics.text_table import count_text


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a domain.

    ``tone`` names the colour and the sign. ``act`` is the heading. ``clause`` follows a number of
    domains in the headline: "2 alone".
    """

    tone: str
    act: str
    meaning: str
    clause: str


ADVICE: dict[str, Advice] = {
    "share": Advice(
        "share",
        "Train together",
        "The model trained on all domains serves these domains at least as well as a model of their "
        "own.",
        "together",
    ),
    "adapt": Advice(
        "adapt",
        "Train together, then adapt",
        "These domains share the model. Each of them then needs a last training on its own rows, or "
        "an adapter; each one below says which.",
        "together with tuning or an adapter",
    ),
    "group": Advice(
        "group",
        "Train in a small group",
        "Do not train these domains with all others. Train each with the domains that it names.",
        "in a small group",
    ),
    "own tower": Advice(
        "own",
        "Train alone",
        "Sharing harms these domains. It teaches them nothing that a model of their own would miss.",
        "alone",
    ),
    "own tower, provisional": Advice(
        "provisional",
        "Train alone, for now",
        "Sharing harms these domains. An adapter or a group may still help: that is not settled.",
        "alone for now",
    ),
    "no verdict of harm at this level": Advice(
        "undecided",
        "No verdict at this level",
        "A quick look does not prove harm. Run the standard level before you change anything.",
        "a longer look",
    ),
    "not enough data": Advice(
        "unknown",
        "Cannot tell yet",
        "These domains have too few test rows for a verdict. Keep what you have, and collect more.",
        "cannot be told yet",
    ),
}
UNDECIDED = "no verdict of harm at this level"
REMEDIES = {
    "adapter": "Train together with an adapter",
    "tuning": "Train together, then tune on its own rows",
}

EFFECTS: dict[str, tuple[str, str]] = {
    "net": ("Net effect N", "joint minus solo: all that training together does"),
    "transfer": ("Transfer T", "what the rows of other domains teach this domain"),
    "interference": ("Interference I", "what a last training on own rows recovers, at its budget"),
    "net_plus": ("Net effect N+", "joint minus solo after a second stage for both; N+ = T - I"),
    "net_seen": ("Net effect, ids seen", "on the test rows whose ids the solo model had seen"),
    "polish_joint": ("Polish, joint", "what the second stage alone gives to the joint model"),
    "polish_solo": ("Polish, solo", "what the second stage alone gives to the solo model"),
    "tuned_solo": ("Tuned - solo", "the joint model trained on own rows, minus solo"),
    "tuned": ("Tuned - joint", "the joint model trained on own rows, minus joint"),
    "adapted_solo": ("Adapted - solo", "the joint model with an adapter, minus solo"),
    "adapted": ("Adapted - joint", "the joint model with an adapter, minus joint"),
    "adapted_plus": (
        "Adapted - joint+",
        "the joint model with an adapter, minus joint with a second stage",
    ),
}


@dataclass(frozen=True, slots=True)
class MetricWords:
    """What a metric is called. ``key``: where the report holds it. ``name``: in sentences.

    ``unit`` follows a difference, with the blank before it. Where smaller is better, an effect is
    what the metric falls by, and the margin is a share of the solo's value.
    """

    key: str
    title: str
    name: str
    unit: str = ""
    larger_is_better: bool = True

    @property
    def gain(self) -> str:
        """What an effect above 0 is a gain of."""
        return self.title if self.larger_is_better else f"{self.title} reduction"

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return f"{self.title[0].upper()}{self.title[1:]}"


METRICS = {
    "auc": MetricWords("auc", "AUC", "AUC"),
    "logloss": MetricWords("logloss", "log loss", "logloss", " nats", larger_is_better=False),
}


@dataclass(frozen=True, slots=True)
class MatrixWords:
    """What one matrix is called and how to read it. ``verb`` is the sentence of one cell.

    ``signed``: the colours are even about 0. ``own``: a cell is judged against the target's own
    model, which stands on the diagonal.
    """

    title: str
    meaning: str
    signed: bool
    verb: str
    own: bool = False


MATRICES: dict[str, MatrixWords] = {
    "pairwise": MatrixWords(
        "Trained in pairs",
        "The source (column) and the target (row) are trained together, without all others. A cell "
        "says what the rows of the source add to the AUC of the target.",
        True,
        "With the rows of {source} added, {target} changes by {value}",
    ),
    "pairwise_matched": MatrixWords(
        "Trained in pairs, rows matched",
        "The same as trained in pairs, but with the number of rows held equal. So a cell tells "
        "likeness and not the mere number of rows.",
        True,
        "With rows of {source} in place of as many others, {target} changes by {value}",
    ),
    "leave_one_out": MatrixWords(
        "Leave one out",
        "The source (column) leaves the joint model. A cell says how much AUC the target (row) "
        "loses.",
        True,
        "Having {source} in the joint model changes {target} by {value}",
    ),
    "cross_score": MatrixWords(
        "Scored by another domain's model",
        "The model is trained on the source (column) alone. A cell says the AUC of this model on "
        "the test rows of the target (row). The colour compares the cell with the target's own model (framed). The "
        "cells measure likeness, not benefit.",
        False,
        "The model trained on {source} alone has AUC {value} on {target}",
        own=True,
    ),
    "gradients": MatrixWords(
        "Early gradients",
        "The cosine of the gradients of two domains, early in training. This measure is "
        "exploratory: do not act on it.",
        True,
        "The gradients of {source} and {target} have cosine {value}",
    ),
    "distance": MatrixWords(
        "Distance of domains",
        "How unlike two domains are in hidden states, label rate and features. 0 means the same.",
        False,
        "The distance of {source} and {target} is {value}",
    ),
}


def matrix_words(key: str, lead: MetricWords) -> MatrixWords:
    """The words of a matrix, for the metric that leads."""
    told = MATRICES[key]
    name = lead.gain if told.signed else lead.title
    return replace(
        told, meaning=told.meaning.replace("AUC", name), verb=told.verb.replace("AUC", name)
    )


def advice(verdict: str | None) -> Advice:
    """What a verdict asks for. A verdict that is not known counts as undecided."""
    return ADVICE.get(verdict or "", ADVICE[UNDECIDED])


def act_of(domain: Mapping[str, Any]) -> str:
    """What to do with one domain. An adapted domain is told its remedy."""
    if domain.get("verdict") == "adapt" and domain.get("remedy") in REMEDIES:
        return REMEDIES[domain["remedy"]]
    return advice(domain.get("verdict")).act


def against(effect: Mapping[str, Any] | None) -> str:
    """Whether an interval lies above 0, below 0, or around 0."""
    low, high = (effect or {}).get("ci") or (None, None)
    if low is None or high is None:
        return "cannot be compared with"
    return (
        "do better than" if low > 0 else "do worse than" if high < 0 else "are not told apart from"
    )


def minus(text: str) -> str:
    """The text with real minus signs before its numbers."""
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "−", text)


def listed(parts: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def headline(verdicts: Sequence[str | None]) -> str:
    """One sentence with the number of domains for each kind of advice.

    >>> headline(["share", "share", "not enough data"])
    'Of 3 domains, train 2 together; 1 cannot be told yet.'
    """
    counts = Counter(advice(verdict).clause for verdict in verdicts)
    unknown, undecided = ADVICE["not enough data"].clause, ADVICE[UNDECIDED].clause
    clauses = [one.clause for one in ADVICE.values() if one.clause not in (unknown, undecided)]
    trained = [f"{counts[clause]} {clause}" for clause in clauses if counts[clause]]
    said = [f"train {listed(trained)}"] if trained else []
    if counts[unknown]:
        said.append(f"{counts[unknown]} {unknown}")
    if counts[undecided]:
        needs = "needs" if counts[undecided] == 1 else "need"
        said.append(f"{counts[undecided]} {needs} {undecided}")
    domains = count_text(len(verdicts), "domain")
    return f"Of {domains}, {'; '.join(said) or 'nothing is said'}."


def duration(seconds: float | None) -> str:
    """Time in words. What is shorter than a second counts as a second.

    >>> [duration(seconds) for seconds in (0.2, 48, 1400, 11100)]
    ['1 s', '48 s', '23 min', '3 h 05 min']
    """
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
