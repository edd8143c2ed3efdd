"""Support: which domains a diagnosis can say something about, and why it cannot of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.data.store.dataset import Dataset, DomainCount
from isthmus.data.store.split import SplitName
from isthmus.diagnosis.level import MAX_DOMAINS, MAX_PAIRED, MIN_NEWCOMERS
from isthmus.errors import SchemaError
from isthmus.metrics.intervals import shortfalls

DRAW_SEED = 0
Counts = Mapping[SplitName, Mapping[str, DomainCount]]
NAMED = 5  # domains that are named with the reason why they are left out
LEAST_ROWS = 2  # that a training takes, and that can stop it


@dataclass(frozen=True, slots=True)
class Support:
    """The distinct test rows of a domain over all replicates, and its train rows in the first.

    ``rows``, ``positives``, ``clusters``: of the test rows. ``positives``: None where labels are not
    of two classes.
    """

    rows: int
    positives: int | None
    clusters: int
    train_rows: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The domains that a diagnosis measures.

    ``names``: the domains that are trained alone. ``paired``: the domains in the pairwise matrix.
    ``left_out``: why each other domain is not among ``names``. ``sampled``: which domains were
    drawn because there are more than a level affords, or None.
    """

    names: tuple[str, ...]
    paired: tuple[str, ...]
    left_out: dict[str, str]
    support: dict[str, Support]
    sampled: str | None


def measure(datasets: Sequence[Dataset], *, pairs: bool) -> Measured:
    """Choose the domains to measure. ``pairs``: whether the level trains pairs of domains.

    Raises SchemaError where fewer than two domains can be trained alone.
    """
    names = datasets[0].domain_names
    counts = [dataset.summary() for dataset in datasets]
    support = {name: _support(datasets, name, counts[0]["train"][name].rows) for name in names}
    left_out = {}
    for name in names:
        why = _fault(counts, name) or too_few(support[name])
        if why is not None:
            left_out[name] = why
    return measured_of(names, support, left_out, pairs=pairs)


def check_newcomers(datasets: Sequence[Dataset]) -> None:
    """Raise SchemaError where too few domains have train rows for one to be left out."""
    many = min(dataset.n_domains for dataset in datasets)
    if many < MIN_NEWCOMERS:
        names = ", ".join(map(repr, datasets[0].domain_names[:many]))
        raise SchemaError(
            f"a new domain is measured by leaving one out, so at least {MIN_NEWCOMERS} domains must"
            f" have train rows, got {many} ({names})"
        )


def measured_of(
    names: Sequence[str],
    support: dict[str, Support],
    left_out: dict[str, str],
    *,
    pairs: bool,
) -> Measured:
    """Choose among the domains that are not left out, where there are too many.

    Raises SchemaError where fewer than two are left.
    """
    able = [name for name in names if name not in left_out]
    if len(able) < 2:
        found = f"{len(able)} ({able[0]!r})" if able else "0"
        raise SchemaError(
            "a diagnosis needs at least 2 domains with enough rows, got"
            f" {found}{_left_out_text(left_out)}"
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
        sampled=_sampled(len(able), len(kept), len(paired) if pairs else len(kept)),
    )


def _left_out_text(left_out: Mapping[str, str]) -> str:
    """Say which domains are left out and why."""
    told = [f"{name!r}: {why}" for name, why in left_out.items()]
    more = [f"{len(told) - NAMED:,} more"] if told[NAMED:] else []
    return f"; left out: {'; '.join([*told[:NAMED], *more])}" if told else " in all"


def _sampled(able: int, kept: int, paired: int) -> str | None:
    told = []
    if kept < able:
        told.append(f"{kept} of {able} domains are trained alone: half the largest, half drawn")
    if paired < kept:
        told.append(f"{paired} of {kept} are in the pairwise matrix, chosen in the same way")
    return "; ".join(told) or None


def _some(by_size: Sequence[str], most: int) -> list[str]:
    """Take ``most`` domains at most: half of them the largest, half a fixed draw of the others."""
    if len(by_size) <= most:
        return list(by_size)
    first = most - most // 2
    rest = np.random.default_rng(DRAW_SEED).permutation(len(by_size) - first)[: most // 2]
    return [*by_size[:first], *(by_size[first + int(place)] for place in rest)]


def _support(datasets: Sequence[Dataset], name: str, train_rows: int) -> Support:
    seen: dict[str, list[np.ndarray]] = {"row": [], "label": [], "cluster": []}
    for dataset in dict.fromkeys(datasets):
        rows = dataset.rows("test")
        # Another number in a fold where it has no train rows.
        number = dataset.domain_names.index(name) + 1
        at = np.flatnonzero(np.asarray(rows.domain) == number)
        seen["row"].append(rows.row[at])
        seen["label"].append(rows.label[at])
        seen["cluster"].append(rows.row[at] if rows.group is None else rows.group[at])
    row, first = np.unique(np.concatenate(seen["row"]), return_index=True)
    return Support(
        rows=len(row),
        positives=int((np.concatenate(seen["label"])[first] > 0).sum()),
        clusters=len(np.unique(np.concatenate(seen["cluster"])[first])),
        train_rows=train_rows,
    )


def _fault(counts: Sequence[Counts], name: str) -> str | None:
    """Say why no solo can be trained. None where one can."""
    for number, splits in enumerate(counts, start=1):
        fold = f" of fold {number}" if len(counts) > 1 else ""
        for split in ("train", "validation"):
            count = splits[split][name]
            if count.rows < LEAST_ROWS:
                rows = f"{count.rows:,} {split} row{'s' * (count.rows != 1)}{fold}"
                return f"{rows}, {LEAST_ROWS} are needed"
            if split == "train" and count.positives in (0, count.rows):
                return f"one class in its {count.rows:,} train rows{fold}"
    return None


def too_few(support: Support) -> str | None:
    """Say why the domain cannot be tested. None where it can."""
    positives = support.positives or 0
    for count, what, least in shortfalls(positives, support.rows - positives, support.clusters):
        return f"not testable: {count} {what} in {support.rows} test rows, {least} are needed"
    return None
