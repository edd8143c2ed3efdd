"""Tables whose truth is known: domains whose item effects agree, clash or ignore each other.

Domain ``d`` has item effects ``z_d``, row ``d`` of ``L zeta`` with ``zeta ~ N(0, I)`` and
``L L' = C``. ``C`` is the *relation matrix*: the cosine between the effects of two domains.

    logit = b_d + strength * z_d(item) + user_strength * c(user),    label ~ Bernoulli(sigmoid)

``c(user) ~ N(0, 1)`` is what all domains share. A cosine of 1 is a copy, 0 (90 degrees) is
unrelated, which is not conflict; -1 (180 degrees) is conflict: what one domain likes, the other
dislikes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

Draws = Literal["uniform", "zipf"]


@dataclass(frozen=True, slots=True)
class Planted:
    """A table with planted relations, and the truth that made it.

    ``table``: columns ``user_id`` int32, ``item_id`` int32, ``domain`` string, ``label`` int8.
    ``logit``: (rows,) float64, the true logit of each row, in the table's order.
    ``relation``: (domains, domains) float64 cosines. ``item_effects``: (domains, items) float64.
    ``user_effects``: (users,) float64. ``names``: the domains, in the order of ``relation``.
    """

    table: pa.Table
    logit: np.ndarray
    relation: np.ndarray
    item_effects: np.ndarray
    user_effects: np.ndarray
    names: tuple[str, ...]

    def config(self, table: str | None = None, *, seed: int = 0) -> dict[str, Any]:
        """Give the ``data`` section that fits this table.

        ``table``: path to write into it; leave it out when the table is handed over from Python.
        ``seed``: of the random split.
        """
        section: dict[str, Any] = {} if table is None else {"table": table}
        return section | {
            "domain": "domain",
            "label": "label",
            "group": "user_id",
            "features": {
                "user_id": "categorical",
                "item_id": "categorical",
                "domain": "categorical",
            },
            "split": {"by": "random", "fractions": [0.8, 0.1, 0.1], "seed": seed},
        }


def planted(
    *,
    rows: int | Sequence[int],
    relation: np.ndarray | Sequence[Sequence[float]],
    seed: int,
    items: int | None = None,
    users: int = 500,
    draws: Draws = "uniform",
    offsets: float | Sequence[float] = 0.0,
    strength: float = 1.0,
    user_strength: float = 0.5,
    names: Sequence[str] | None = None,
) -> Planted:
    """Draw a table of domains with the given relation; the same arguments give the same table.

    ``rows``: of each domain, or one number for all. ``items``: default a tenth of the mean rows of
    a domain, at least 1. ``draws``: how often items occur; ``zipf`` gives item ``i`` the weight
    1 / (i + 1), in every domain alike. ``offsets``: ``b_d`` in the logit. Rows are shuffled over
    the domains.

    Raises ValueError when ``relation`` is no matrix of cosines (symmetric, ones on the diagonal,
    no negative eigenvalue) or the lengths do not match it.
    """
    cosines = _checked(relation)
    n_domains = len(cosines)
    sizes = _per_domain(rows, n_domains, "rows").astype(np.int64)
    shifts = _per_domain(offsets, n_domains, "offsets")
    if sizes.min() < 1:
        raise ValueError(f"every domain must have at least 1 row, got rows={rows}")
    if users < 1 or (items is not None and items < 1):
        raise ValueError(f"users and items must be at least 1, got {users=}, {items=}")
    if draws not in ("uniform", "zipf"):
        raise ValueError(f"draws must be 'uniform' or 'zipf', got {draws!r}")
    labels = tuple(names) if names is not None else tuple(f"d{i}" for i in range(n_domains))
    if len(set(labels)) != n_domains:
        raise ValueError(f"names must be {n_domains} different names, got {labels}")
    n_items = items if items is not None else max(1, int(sizes.mean()) // 10)

    rng = np.random.default_rng(seed)
    item_effects = _root(cosines) @ rng.standard_normal((n_domains, n_items))
    user_effects = rng.standard_normal(users)
    total = int(sizes.sum())
    domain = rng.permutation(np.repeat(np.arange(n_domains), sizes))
    user = rng.integers(users, size=total)
    item = _draw(rng, n_items, total, draws)
    logit = (
        shifts[domain] + strength * item_effects[domain, item] + user_strength * user_effects[user]
    )
    label = rng.random(total) < 1 / (1 + np.exp(-logit))
    table = pa.table(
        {
            "user_id": pa.array(user.astype(np.int32)),
            "item_id": pa.array(item.astype(np.int32)),
            "domain": pa.array(np.asarray(labels, dtype=object)[domain], pa.string()),
            "label": pa.array(label.astype(np.int8)),
        }
    )
    return Planted(table, logit, cosines, item_effects, user_effects, labels)


def angles(degrees: Sequence[float]) -> np.ndarray:
    """Relation of domains that point in these directions of one plane.

    Two domains have the cosine of the angle between them: ``angles([0, 90, 180])`` holds a pair in
    conflict and a third domain unrelated to both; ``angles([0, 0])`` holds two copies.
    Gives (domains, domains) float64, a valid relation for any angles.
    """
    if len(degrees) == 0:
        raise ValueError("degrees must hold one angle for each domain, got none")
    direction = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    # Rounded, so that 90 degrees gives 0 and not 6e-17.
    return np.round(np.cos(direction[:, None] - direction[None, :]), 15)


def conflict(n_domains: int = 2) -> np.ndarray:
    """Relation of two opposed camps: domains 0, 2, 4 ... against 1, 3, 5 ...

    Copies inside a camp, 180 degrees across; more than two camps cannot all oppose each other.
    """
    if n_domains < 2:
        raise ValueError(f"a conflict needs at least 2 domains, got {n_domains=}")
    return angles([180.0 * (i % 2) for i in range(n_domains)])


def groups(
    sizes: Sequence[int], *, degrees: float = 90.0, within: float = 1.0, loners: int = 0
) -> np.ndarray:
    """Relation of groups of like domains that stand at one common angle, then of loners.

    ``sizes``: domains of each group. ``within``: cosine inside a group, above 0 to 1; below 1
    every domain has effects of its own too, and the cosine across groups is
    ``within * cos(degrees)``. ``loners``: domains unrelated to all others, put last.

    Raises ValueError where the angle cannot be: K directions with one common cosine need it to be
    at least -1/(K-1) (three at most 120 degrees apart, many hardly more than 90).
    """
    if min(sizes, default=0) < 1 or loners < 0:
        raise ValueError(f"every group needs at least 1 domain, got {sizes=}, {loners=}")
    if not 0 < within <= 1:
        raise ValueError(f"within must be above 0 and at most 1, got {within}")
    n_groups = len(sizes)
    cosine = float(angles((0.0, degrees))[0, 1])
    lowest = -1 / max(n_groups - 1, 1)
    if cosine < lowest - 1e-12:
        most = np.rad2deg(np.arccos(lowest))
        raise ValueError(
            f"{n_groups} groups at one common angle need a cosine of at least {lowest:.4f}"
            f" (at most {most:.1f} degrees), got {degrees:g} degrees, cosine {cosine:.4f}"
        )
    member = np.repeat(np.arange(n_groups), sizes)
    same = member[:, None] == member[None, :]
    related = np.where(same, within, within * cosine)
    relation = np.eye(len(member) + loners)
    relation[: len(member), : len(member)] = related
    np.fill_diagonal(relation, 1.0)
    return relation


def _checked(relation: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    cosines = np.array(relation, dtype=np.float64)
    if cosines.ndim != 2 or cosines.shape[0] != cosines.shape[1] or len(cosines) == 0:
        raise ValueError(f"relation must be square, (domains, domains), got {cosines.shape}")
    if not np.allclose(cosines, cosines.T, atol=1e-9):
        raise ValueError("relation must be symmetric, got two different cosines for one pair")
    if not np.allclose(np.diag(cosines), 1.0, atol=1e-9):
        raise ValueError(f"relation must have ones on its diagonal, got {np.diag(cosines)}")
    lowest = float(np.linalg.eigvalsh(cosines).min())
    if lowest < -1e-9:
        raise ValueError(
            "relation must be a matrix of cosines between directions that can exist together"
            f" (no negative eigenvalue), got {lowest:.4g}"
        )
    return cosines


def _root(cosines: np.ndarray) -> np.ndarray:
    """L with L L' = C, lower triangular; conflict makes C singular, where Cholesky gives up."""
    root = np.zeros_like(cosines)
    for row in range(len(cosines)):
        for column in range(row):
            left = cosines[row, column] - root[row, :column] @ root[column, :column]
            pivot = root[column, column]
            # A pivot of 0: this direction is spanned already, and what is left is rounding, some
            # 1e-15 of the pivot's square. Below 1e-5 that would move the relation by more than
            # leaving the direction out does, which is by the pivot at most.
            root[row, column] = left / pivot if pivot > 1e-5 else 0.0
        root[row, row] = np.sqrt(max(0.0, 1.0 - root[row, :row] @ root[row, :row]))
    return root


def _draw(rng: np.random.Generator, n_items: int, size: int, draws: Draws) -> np.ndarray:
    if draws == "uniform":
        return rng.integers(n_items, size=size)
    edges = np.cumsum(1.0 / np.arange(1, n_items + 1))
    return np.searchsorted(edges / edges[-1], rng.random(size), side="right").clip(max=n_items - 1)


def _per_domain(value: Any, n_domains: int, name: str) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return np.full(n_domains, float(array))
    if array.shape != (n_domains,):
        raise ValueError(f"{name} must hold {n_domains} values, one a domain, got {array.shape}")
    return array
