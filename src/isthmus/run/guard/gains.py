"""What a guard gained and what it cost, on test rows. Test rows have no part in the choice."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from isthmus.disk import write_whole
from isthmus.errors import RunError
from isthmus.metrics import TextTable
from isthmus.metrics.intervals import interval
from isthmus.metrics.text_table import number, with_half_width
from isthmus.run.guard.choosing import (
    ARMS,
    MARGIN,
    PROMISE,
    Areas,
    Choice,
    Guard,
    Judged,
    too_few,
)

SERVED, OTHER = "served", "other"
GUARD_FILE = "guard.json"


@dataclass(frozen=True, slots=True)
class Gain:
    """A paired difference in AUC on test rows.

    ``ci``: the 95 % interval over the draw of rows, not adjusted. ``reason``: why a value is None.
    """

    estimate: float | None
    ci: tuple[float, float] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DomainGain:
    """The gain on one domain's test rows.

    ``auc``: by arm, and of what is served. An undefined AUC is None.
    """

    rows: int
    auc: Mapping[str, float | None]
    over_joint: Gain
    over_solo: Gain
    other_over_served: Gain


@dataclass(frozen=True, slots=True)
class Gains:
    """The gain in every domain, and the mean over the domains where the difference is defined."""

    domains: Mapping[str, DomainGain]
    over_joint: Gain
    over_solo: Gain
    other_over_served: Gain


def served(
    logits: Mapping[str, Float64[np.ndarray, " rows"]],
    choices: Sequence[Choice],
    domain: Int64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """Give the logit that each row is served: that of its domain's arm.

    ``domain``: report ids. Rows of no domain, id 0, are served by joint.
    """
    arms = [arm for arm in ARMS if arm in logits]
    number_of = np.array([0, *(arms.index(choice.arm) for choice in choices)])
    every = np.stack([logits[arm] for arm in arms])
    return np.take_along_axis(every, number_of[domain][None], axis=0)[0]


def measure_gains(test: Judged, choices: Sequence[Choice], other: Sequence[Choice]) -> Gains:
    """Measure gain and cost on test rows. ``other``: what the other guard would have chosen."""
    logits = {
        **test.logits,
        SERVED: served(test.logits, choices, test.domain),
        OTHER: served(test.logits, other, test.domain),
    }
    judged = Judged(
        label=test.label, domain=test.domain, names=test.names, logits=logits, cluster=test.cluster
    )
    areas = Areas.of(judged)
    pairs = {
        "over_joint": (SERVED, "joint"),
        "over_solo": (SERVED, "solo"),
        "other_over_served": (OTHER, SERVED),
    }
    counts, positives = judged.counts(), judged.counts(judged.label)
    domains = {}
    each = {name: areas.difference(a, b) if b in logits else None for name, (a, b) in pairs.items()}
    for place, name in enumerate(judged.names, start=1):
        few = too_few(int(counts[place]), int(positives[place]), int(areas.clusters[place]))
        domains[name] = DomainGain(
            rows=int(counts[place]),
            auc={
                arm: float(values[place]) if np.isfinite(values[place]) else None
                for arm, values in ((arm, of.value) for arm, of in areas.arms.items())
                if arm != OTHER
            },
            **{key: _gain(found, place, areas.clusters[place], few) for key, found in each.items()},
        )
    return Gains(domains, **{key: _mean(areas, *pair) for key, pair in pairs.items()})


def _gain(
    found: tuple[np.ndarray, np.ndarray] | None, place: int, clusters: float, few: str | None
) -> Gain:
    if found is None or not np.isfinite(found[0][place]):
        return Gain(None, reason=few or "one of the two is undefined on these rows")
    value, se = float(found[0][place]), float(found[1][place])
    if few is not None:
        return Gain(value, reason=few)
    return Gain(value, interval(value, se * se, clusters - 1))


def _mean(areas: Areas, arm: str, other: str) -> Gain:
    """Average over the domains where both arms are defined. A cluster counts once in all."""
    if other not in areas.arms:
        return Gain(None, reason=f"there is no {other}")
    found = areas.arms[arm] - areas.arms[other]
    share = found.share(np.ones(len(found.value)))
    if not share.any():
        return Gain(None, reason="undefined in every domain")
    value = float(found.value[share > 0].mean())
    _, variance, df = found.mean(share).at(0)
    if np.isnan(variance):
        return Gain(value, reason="one cluster of rows")
    return Gain(value, interval(value, variance, df))


def other_guard(guard: Guard) -> Guard:
    """Give the guard that is not in force."""
    return "balanced" if guard == "strict" else "strict"


def guard_content(
    guard: Guard,
    choices: Sequence[Choice],
    other: Sequence[Choice],
    gains: Gains,
    *,
    z: float,
) -> dict[str, Any]:
    """Give what ``guard.json`` says, as plain values."""
    return {
        "guard": guard,
        "other": other_guard(guard),
        "promise": PROMISE if guard == "strict" else None,
        "margin": MARGIN,
        "z": z,
        "domains": {
            choice.domain: {
                **choice.to_dict(),
                "other": one.arm,
                "test": asdict(gains.domains[choice.domain]),
            }
            for choice, one in zip(choices, other, strict=True)
        },
        "mean": {
            "over_joint": asdict(gains.over_joint),
            "over_solo": asdict(gains.over_solo),
            "other_over_served": asdict(gains.other_over_served),
        },
    }


def write_guard(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``guard.json``, whole or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / GUARD_FILE, text + "\n")


def read_guard(folder: Path) -> dict[str, Any]:
    """Read what `write_guard` wrote. Raises RunError where the file is missing or damaged."""
    file = folder / GUARD_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"run with a guard must have {GUARD_FILE}, got none in {folder}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error}") from error


def guard_table(content: Mapping[str, Any]) -> TextTable:
    """Make the table of what serves each domain, with gain and cost on the test rows.

    ``content``: from `guard_content`.
    """
    rows = []
    for name, domain in content["domains"].items():
        test = domain["test"]
        areas = (number(test["auc"].get(arm)) for arm in ("solo", "joint", SERVED))
        gains = (_gain_text(test[key]) for key in ("over_joint", "over_solo"))
        rows.append((name, f"{domain['rows']:,}", domain["arm"], *areas, *gains))
    means = (_gain_text(content["mean"][key]) for key in ("over_joint", "over_solo"))
    return TextTable(
        title=f"guard {content['guard']}: what serves each domain, AUC on the test rows",
        header=(
            "domain",
            "deciding",
            "served by",
            "solo",
            "joint",
            "served",
            "over joint",
            "over solo",
        ),
        left=(0, 2),
        rows=(*rows, ("mean", *("",) * 5, *means)),
        rules=(len(rows),),
        notes=tuple(_notes(content)),
    )


def _gain_text(gain: Mapping[str, Any]) -> str:
    half = None if gain["ci"] is None else (gain["ci"][1] - gain["ci"][0]) / 2
    return with_half_width(gain["estimate"], half)


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    if content["promise"] is not None:
        yield f"Promise: {content['promise']}; m = {content['margin']:g} AUC."
    else:
        yield "No promise: what was above solo on the deciding rows serves, by however little."
    other = content["mean"]["other_over_served"]
    changed = [name for name, of in content["domains"].items() if of["other"] != of["arm"]]
    if changed:
        yield (
            f"What {content['guard']} forgoes: {content['other']}, which serves {', '.join(changed)}"
            f" otherwise, has {_gain_text(other)}, mean of the domains."
        )
    else:
        yield f"Guard {content['other']} would have chosen the same: nothing is forgone."
    yield (
        "The choice was made on validation rows that stopped no training; differences are on test"
        " rows, with 95 % intervals over the draw of rows, unadjusted."
    )
    for name, domain in content["domains"].items():
        yield f"{name}: {domain['arm']}, since {domain['why']}."
