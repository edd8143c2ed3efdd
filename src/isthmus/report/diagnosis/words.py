"""Plain words for a diagnosis: what a verdict asks for, and how its parts are called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a domain. ``tone`` names its colour and its sign; ``act`` is a heading."""

    tone: str
    act: str
    meaning: str
    clause: str  # "2 {clause}", for the headline


SHARE = Advice(
    "share",
    "Train together",
    "The model trained on all domains serves these at least as well as a model of their own.",
    "together",
)
ADAPT = Advice(
    "adapt",
    "Train together, then adapt",
    "Share the model, but give these a last training on their own rows, or an adapter: each says "
    "which.",
    "together with tuning or an adapter",
)
GROUP = Advice(
    "group",
    "Train in a small group",
    "Not with everyone: train these with the domains that are named.",
    "in a small group",
)
OWN = Advice(
    "own",
    "Train alone",
    "Sharing harms these and teaches them nothing that a model of their own would miss.",
    "alone",
)
PROVISIONAL = Advice(
    "provisional",
    "Train alone, for now",
    "Sharing harms these. An adapter or a group may still help; that is not settled.",
    "alone for now",
)
UNKNOWN = Advice(
    "unknown",
    "Cannot tell yet",
    "There are too few test rows to say. Keep what you have, and collect more.",
    "cannot be told yet",
)
UNDECIDED = Advice(
    "undecided",
    "No verdict at this level",
    "A quick look does not prove harm. Run the standard level before you change anything.",
    "need a longer look",
)

ADVICE: dict[str, Advice] = {
    "share": SHARE,
    "adapt": ADAPT,
    "group": GROUP,
    "own tower": OWN,
    "own tower, provisional": PROVISIONAL,
    "no verdict of harm at this level": UNDECIDED,
    "not enough data": UNKNOWN,
}
REMEDIES = {
    "adapter": "Train together with an adapter",
    "tuning": "Train together, then tune on its own rows",
}
TRAINED = ("share", "adapt", "group", "own tower", "own tower, provisional")

EFFECTS: dict[str, tuple[str, str]] = {
    "net": ("Net effect N", "joint minus solo: what training together does, all in all"),
    "transfer": ("Transfer T", "what the other domains' rows teach this one"),
    "interference": (
        "Interference I",
        "what a last training on own rows recovers, with its budget",
    ),
    "net_plus": ("Net effect N+", "the same after a second stage for both; N+ = T - I"),
    "net_seen": ("Net effect, ids seen", "on the test rows whose ids the solo model had seen"),
    "polish_joint": ("Polish, joint", "what the second stage alone gives the joint model"),
    "polish_solo": ("Polish, solo", "what the second stage alone gives the solo model"),
    "tuned_solo": ("Tuned - solo", "joint, then trained on own rows, against solo"),
    "tuned": ("Tuned - joint", "joint, then trained on own rows, against joint"),
    "adapted_solo": ("Adapted - solo", "joint with an adapter against solo"),
    "adapted": ("Adapted - joint", "joint with an adapter against joint"),
    "adapted_plus": ("Adapted - joint+", "joint with an adapter against joint with a second stage"),
}
METRICS = {"auc": "AUC", "logloss": "log loss"}


@dataclass(frozen=True, slots=True)
class MatrixWords:
    """How one matrix is called and read; ``verb`` is the sentence of one cell.

    ``signed``: 0 is the middle. ``own``: a cell is judged against the target's own, the diagonal.
    """

    title: str
    meaning: str
    signed: bool
    verb: str
    own: bool = False


MATRICES: dict[str, MatrixWords] = {
    "pairwise": MatrixWords(
        "Trained in pairs",
        "What the rows of the source (column) add to the AUC of the target (row) when only these "
        "two are trained together.",
        True,
        "With the rows of {source} added, {target} changes by {value}",
    ),
    "pairwise_matched": MatrixWords(
        "Trained in pairs, rows matched",
        "The same with the number of rows held equal, so that likeness is told from volume.",
        True,
        "With rows of {source} in place of as many others, {target} changes by {value}",
    ),
    "leave_one_out": MatrixWords(
        "Leave one out",
        "What the target (row) would lose if the source (column) left the joint model.",
        True,
        "Having {source} in the joint model changes {target} by {value}",
    ),
    "cross_score": MatrixWords(
        "Scored by another domain's model",
        "AUC on the target's test rows (row) of the model trained on the source alone (column), "
        "coloured against the target's own model (framed). This measures likeness, not benefit.",
        False,
        "The model trained on {source} alone has AUC {value} on {target}",
        own=True,
    ),
    "gradients": MatrixWords(
        "Early gradients",
        "Cosine of the two domains' gradients early in training. Exploratory: do not act on it.",
        True,
        "The gradients of {source} and {target} have cosine {value}",
    ),
    "distance": MatrixWords(
        "Distance of domains",
        "How unlike two domains are in hidden states, label rate and features; 0 is the same.",
        False,
        "The distance of {source} and {target} is {value}",
    ),
}


def advice(verdict: str | None) -> Advice:
    """What a verdict asks for; an unknown one is treated as undecided."""
    return ADVICE.get(verdict or "", UNDECIDED)


def act_of(domain: Mapping[str, Any]) -> str:
    """What to do with one domain; for an adapted one, by which remedy."""
    if domain.get("verdict") == "adapt" and domain.get("remedy") in REMEDIES:
        return REMEDIES[domain["remedy"]]
    return advice(domain.get("verdict")).act


def against(effect: Mapping[str, Any] | None) -> str:
    """Whether an interval lies above 0, below it, or around it."""
    low, high = (effect or {}).get("ci") or (None, None)
    if low is None or high is None:
        return "cannot be compared with"
    return (
        "do better than" if low > 0 else "do worse than" if high < 0 else "are not told apart from"
    )


def minus(text: str) -> str:
    """The text with real minus signs before its numbers."""
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "−", text)


def several(count: int, noun: str) -> str:
    """``1 domain``, ``12 domains``."""
    return f"{count:,} {noun}" if count == 1 or noun == "more" else f"{count:,} {noun}s"


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def headline(verdicts: Sequence[str | None]) -> str:
    """One sentence with the number of domains for each kind of advice."""
    counts = dict.fromkeys(ADVICE, 0)
    for verdict in verdicts:
        name = verdict if verdict in counts else "no verdict of harm at this level"
        counts[name] += 1
    trained = [f"{counts[name]} {ADVICE[name].clause}" for name in TRAINED if counts[name]]
    said = [f"train {listed(trained)}"] if trained else []
    if counts["not enough data"]:
        said.append(f"{counts['not enough data']} {UNKNOWN.clause}")
    looks = counts["no verdict of harm at this level"]
    if looks:
        said.append(f"{looks} {'needs' if looks == 1 else 'need'} a longer look")
    return f"Of {several(len(verdicts), 'domain')}, {'; '.join(said) or 'nothing is said'}."


def duration(seconds: float | None) -> str:
    """``48 s``, ``23 min``, ``3 h 05 min``."""
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
