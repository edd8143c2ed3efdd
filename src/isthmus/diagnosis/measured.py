"""Which domains a diagnosis can say something about, and why not of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.diagnosis.level import MAX_DOMAINS, MAX_PAIRED
from isthmus.errors import SchemaError
from isthmus.metrics.scopes import MIN_CLUSTERS, MIN_NEGATIVES, MIN_POSITIVES

DRAW_SEED = 0


@dataclass(frozen=True, slots=True)
class Support:
    """Distinct test rows of a domain over all replicates, and its train rows in the first."""

    rows: int
    positives: int
    clusters: int
    train_rows: int


@dataclass(frozen=True, slots=True)
class Measured:
    """``names``: domains that are trained alone; ``paired``: those in the pairwise matrix.

    ``left_out``: why each other domain is not among ``names``. ``sampled``: what was drawn because
    there are more domains than a level affords, or None.
    """

    names: tuple[str, ...]
    paired: tuple[str, ...]
    left_out: dict[str, str]
    support: dict[str, Support]
    sampled: str | None


def measure(datasets: Sequence[Dataset]) -> Measured:
    """Choose the domains. Raises SchemaError where fewer than two can be trained alone."""
    names = datasets[0].domain_names
    support = {name: _support(datasets, number) for number, name in enumerate(names, start=1)}
    left_out = {}
    for number, name in enumerate(names, start=1):
        why = _fault(datasets, number) or _too_few(support[name])
        if why is not None:
            left_out[name] = why
    able = [name for name in names if name not in left_out]
    if len(able) < 2:
        told = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:5])
        raise SchemaError(
            f"a diagnosis needs at least 2 domains with enough rows, got {len(able)} ({told})"
        )
    by_size = sorted(able, key=lambda name: -support[name].rows)
    chosen = set(_some(by_size, MAX_DOMAINS))
    for name in by_size:
        if name not in chosen:
            left_out[name] = "not drawn: more domains than are trained alone"
    kept = tuple(name for name in able if name in chosen)
    paired = _some([name for name in by_size if name in chosen], MAX_PAIRED)
    return Measured(
        names=kept,
        paired=tuple(name for name in kept if name in set(paired)),
        left_out=left_out,
        support=support,
        sampled=_sampled(len(able), len(kept), len(paired)),
    )


def _sampled(able: int, kept: int, paired: int) -> str | None:
    told = []
    if kept < able:
        told.append(f"{kept} of {able} domains are trained alone: half the largest, half drawn")
    if paired < kept:
        told.append(f"{paired} of {kept} are in the pairwise matrix, chosen in the same way")
    return "; ".join(told) or None


def _some(by_size: Sequence[str], most: int) -> list[str]:
    """At most so many: the largest half, and a fixed draw of the others."""
    if len(by_size) <= most:
        return list(by_size)
    first = most - most // 2
    rest = np.random.default_rng(DRAW_SEED).permutation(len(by_size) - first)[: most // 2]
    return [*by_size[:first], *(by_size[first + int(place)] for place in rest)]


def _support(datasets: Sequence[Dataset], number: int) -> Support:
    seen: dict[str, list[np.ndarray]] = {"row": [], "label": [], "cluster": []}
    for dataset in dict.fromkeys(datasets):
        rows = dataset.rows("test")
        at = np.flatnonzero(np.asarray(rows.domain) == number)
        seen["row"].append(rows.row[at])
        seen["label"].append(rows.label[at])
        group = rows.row[at] if rows.group is None else rows.group[at]
        seen["cluster"].append(np.where(group < 0, -1 - rows.row[at], group))
    row, first = np.unique(np.concatenate(seen["row"]), return_index=True)
    return Support(
        rows=len(row),
        positives=int((np.concatenate(seen["label"])[first] > 0).sum()),
        clusters=len(np.unique(np.concatenate(seen["cluster"])[first])),
        train_rows=_count(datasets[0], "train", number)[0],
    )


def _count(dataset: Dataset, split: str, number: int) -> tuple[int, int]:
    count = dataset.summary()[split][dataset.domain_names[number - 1]]  # type: ignore[index]
    return count.rows, count.positives


def _fault(datasets: Sequence[Dataset], number: int) -> str | None:
    """Why no solo can be trained, or None."""
    for dataset in datasets:
        for split, least in (("train", 2), ("validation", 2)):
            rows, positives = _count(dataset, split, number)
            if rows < least:
                return f"{rows} {split} rows, {least} are needed"
            if split == "train" and positives in (0, rows):
                return f"one class in its {rows} train rows"
    return None


def _too_few(support: Support) -> str | None:
    """Why it cannot be tested, or None."""
    counts = (
        ("positives", support.positives, MIN_POSITIVES),
        ("negatives", support.rows - support.positives, MIN_NEGATIVES),
        ("clusters", support.clusters, MIN_CLUSTERS),
    )
    for what, count, least in counts:
        if count < least:
            return f"not testable: {count} {what} in {support.rows} test rows, {least} are needed"
    return None
