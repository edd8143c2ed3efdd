"""How alike domains are: a vector for each, distances between them, a map.

In the manner of Domain2Vec (Peng, Li and Saenko, ECCV 2020, arXiv:2007.09257), whose vector of a
domain joins the mean of its features and the diagonal of their Gram matrix. Departures:
- The features are the last hidden states of the jointly trained model as it stands; nothing is
  disentangled, no adversary is trained.
- Added, since domains of a recommender share their inputs and differ in who likes what: the label
  rate, the covariance of hidden states with the label, and the marginals of the input columns.
- Of the Gram matrix only the diagonal: entries off it (of the leading 4 components) added nothing.
- Every entry is a mean over rows of some statistic of a row, in standard deviations of that
  statistic over all rows. Two domains that are draws of one then differ in each squared entry by
  1/n_a + 1/n_b by chance alone, which is taken off the distance.
- Each part weighs the same, however many entries it has.

On planted relations of 6 domains (sources/planted.py; 8, 5 and 8 tables) nearness ranked pairs like
their cosines, Spearman .77 at 3,000 and .93 at 8,000 rows a domain; told members of 3 groups from
others with AUC .91 at 6,000. Without ``hidden by label``: .75, .91, .91; with nothing else: .80,
.94, .96. There the inputs' marginals were the same by design. Likeness is not benefit: like domains
may have nothing to teach each other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from isthmus.data.batch import DomainPlaces
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.rows import Rows
from isthmus.data.store.subset import Subset
from isthmus.diagnosis.measures.grouping import symmetric
from isthmus.diagnosis.measures.sample import sample_rows
from isthmus.metrics.equivalence import spearman
from isthmus.models import AbstractModel
from isthmus.train import score_batch

SCORE_ROWS = 16384
SAMPLE_ROWS = 50_000  # of all domains together
LEAST_ROWS = 2
_ODD = 0x9E3779B1  # Knuth's multiplier: neighbouring ids go to different buckets


@dataclass(frozen=True, slots=True, eq=False)
class DomainVectors:
    """One vector for each domain. ``values`` is nan for a domain with fewer than 2 rows.

    ``parts``: by name, which columns an entry stands in, as slices. ``rows``: how many rows stand
    behind each vector. ``noise``: the share of an entry's variance that lies within domains.
    """

    values: Float64[np.ndarray, "domains entries"]
    noise: Float64[np.ndarray, " entries"]
    parts: dict[str, slice]
    rows: Int64[np.ndarray, " domains"]
    names: tuple[str, ...]


class RowSums:
    """Sums over the rows of each domain of statistics and of their squares."""

    def __init__(self, n_domains: int) -> None:
        self.n_domains = n_domains
        self.parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, name: str, domain: np.ndarray, values: np.ndarray) -> None:
        """Add statistics (rows, entries) of rows of these domains."""
        at = torch.from_numpy(domain)
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
        shape = (self.n_domains, x.shape[1])
        sums = torch.zeros(shape, dtype=torch.float64).index_add_(0, at, x)
        squares = torch.zeros(shape, dtype=torch.float64).index_add_(0, at, x.square())
        self.add_sums(name, sums.numpy(), squares.numpy())

    def add_sums(self, name: str, sums: np.ndarray, squares: np.ndarray) -> None:
        """Add sums (domains, entries) that were formed elsewhere."""
        if name in self.parts:
            sums, squares = sums + self.parts[name][0], squares + self.parts[name][1]
        self.parts[name] = (sums, squares)

    def vectors(self, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Give by part the means, in units of the spread over all rows, and each entry's noise.

        The noise is the variance within domains over the variance of all rows. An entry without a
        spread is 0.
        """
        count = rows[:, None].astype(np.float64)
        all_rows = max(float(count.sum()), 1.0)
        found = {}
        for name, (sums, squares) in self.parts.items():
            mean = np.divide(sums, count, out=np.zeros_like(sums), where=count > 0)
            size = squares.sum(axis=0) / all_rows
            total = size - (sums.sum(axis=0) / all_rows) ** 2
            within = (squares - count * mean**2).sum(axis=0) / all_rows
            flat = total <= 1e-12 * size  # rounding leaves a trace of spread where there is none
            variance = np.where(flat, np.inf, total)
            found[name] = mean / np.sqrt(variance), within.clip(min=0.0) / variance
        return found


def domain_vectors(
    model: AbstractModel,
    dataset: Dataset | Subset,
    *,
    rows_per_domain: int = 2000,
    buckets: int = 32,
    seed: int = 0,
    unlabelled: Rows | None = None,
) -> DomainVectors:
    """Give every domain its vector from one pass over a sample of its train rows.

    ``unlabelled``: rows to take in place of the train rows, as the model reads them. The parts that
    need a label are then left out.

    The parts of a vector are:

    - ``hidden mean`` and ``hidden second moment``, of the last hidden states, which the module
      ``head`` reads
    - ``hidden by label``, the covariance of the hidden states with the label
    - ``label rate``
    - ``feature marginals``, for every column but the domain's own: mean and second moment of a
      number, and for ids the share of the rows in each of ``buckets`` hash buckets. For lists of
      ids the mean number of items takes the place of the share.

    Row weights are not used. Memory: the hidden states of the sample, which has 50,000 rows of all
    domains together at most. Raises ValueError for numbers out of range, and where no row belongs
    to a domain.
    """
    if buckets < 2:
        raise ValueError(f"buckets must be at least 2, got {buckets}")
    rows, names = unlabelled, dataset.domain_names
    if rows is None:
        rows = dataset.rows("train")
    most = min(rows_per_domain, max(LEAST_ROWS, SAMPLE_ROWS // len(names)))
    at, domain = sample_rows(rows, len(names), most, seed=seed)
    if not len(at):
        raise ValueError("the rows must hold some of domains, got none")
    count = np.bincount(domain, minlength=len(names)).astype(np.int64)
    sums = RowSums(len(names))
    places = DomainPlaces.of(dataset.encoder.fields)
    # Statistics and trees come behind; they tell of labels and of other domains.
    kinds = ("numeric", "vector")
    own = sum(field.numbers for field in dataset.encoder.fields if field.kind in kinds)
    kept: list[np.ndarray] = []

    def keep(_module: object, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].detach().cpu().numpy().astype(np.float32))

    handle = model.get_submodule("head").register_forward_pre_hook(keep)
    try:
        for start in range(0, len(at), SCORE_ROWS):
            batch = rows.arrays.batch(at[start : start + SCORE_ROWS], dataset.n_domains)
            score_batch(model, batch)
            some = domain[start : start + SCORE_ROWS]
            ids = np.delete(batch.categorical.numpy(), places.categorical, axis=1)
            _add_marginals(sums, some, ids, batch.numeric[:, :own].numpy(), buckets)
            for place, jagged in enumerate(batch.lists):
                offsets, items = jagged.offsets.numpy(), jagged.values.numpy()
                _add_list(sums, some, place, items, offsets, buckets)
    finally:
        handle.remove()
    label = None if unlabelled is not None else np.asarray(rows.label)[at]
    _add_hidden(sums, domain, np.concatenate(kept), label, count)
    return joined(sums, count, names)


def joined(sums: RowSums, count: np.ndarray, names: tuple[str, ...]) -> DomainVectors:
    """Put the parts side by side. All that belongs to the inputs is one part."""
    vectors = sums.vectors(count)
    order = sorted(vectors, key=lambda name: name.startswith("feature marginals"))
    parts: dict[str, slice] = {}
    width = 0
    for name in order:
        stop = width + len(vectors[name][1])
        whole = name.partition(":")[0]
        parts[whole] = slice(parts[whole].start if whole in parts else width, stop)
        width = stop
    values, noise = (
        np.concatenate([vectors[name][which] for name in order], axis=-1) for which in (0, 1)
    )
    values = np.where(count[:, None] < LEAST_ROWS, np.nan, values)
    return DomainVectors(values, noise, parts, count, names)


def _add_hidden(
    sums: RowSums,
    domain: np.ndarray,
    hidden: np.ndarray,
    label: np.ndarray | None,
    count: np.ndarray,
) -> None:
    """Add statistics of the hidden states of all sampled rows, and of their labels where there are."""
    h = hidden.astype(np.float64)
    centre = h.mean(axis=0)
    h -= centre
    # A unit that is the same for all rows has the spread of rounding; in its units that is much.
    spread = h.std(axis=0)
    h[:, spread <= 1e-6 * np.maximum(np.abs(centre), np.sqrt(np.mean(spread**2)))] = 0.0
    sums.add("hidden mean", domain, h)
    sums.add("hidden second moment", domain, h * h)
    if label is None:
        return
    y = label.astype(np.float64)
    rate = np.bincount(domain, y, minlength=len(count)) / np.maximum(count, 1)
    own = torch.zeros((len(count), h.shape[1]), dtype=torch.float64)
    own.index_add_(0, torch.from_numpy(domain), torch.from_numpy(h))
    mean = own.numpy() / np.maximum(count, 1)[:, None]
    sums.add("hidden by label", domain, (h - mean[domain]) * (y - rate[domain])[:, None])
    sums.add("label rate", domain, y[:, None])


def _add_marginals(
    sums: RowSums, domain: np.ndarray, ids: np.ndarray, numbers: np.ndarray, buckets: int
) -> None:
    """Add numbers, and histograms of ids: column by column, all rows at once."""
    if numbers.shape[1]:
        x = numbers.astype(np.float64)
        sums.add("feature marginals:numbers", domain, np.concatenate([x, x * x], axis=1))
    for column in range(ids.shape[1]):
        share = _histogram(domain, ids[:, column], sums.n_domains, buckets)
        sums.add_sums(f"feature marginals:{column}", share, share)  # ones are their own squares


def _add_list(
    sums: RowSums,
    domain: np.ndarray,
    place: int,
    items: np.ndarray,
    offsets: np.ndarray,
    buckets: int,
) -> None:
    """Add a list column: the items of each row by bucket, or the mean of a row's numbers."""
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(domain)), lengths)
    name = f"feature marginals:list {place}"
    if items.dtype.kind == "f":
        total = np.bincount(row, items, minlength=len(domain))
        sums.add(name, domain, (total / np.maximum(lengths, 1))[:, None])
        return
    key = row * buckets + _bucket(items, buckets)
    times = np.bincount(key, minlength=len(domain) * buckets).reshape(-1, buckets)
    sums.add(name, domain, times)


def _histogram(domain: np.ndarray, ids: np.ndarray, n_domains: int, buckets: int) -> np.ndarray:
    key = domain * buckets + _bucket(ids, buckets)
    times = np.bincount(key, minlength=n_domains * buckets)
    return times.reshape(n_domains, buckets).astype(np.float64)


def _bucket(ids: np.ndarray, buckets: int) -> np.ndarray:
    return ((ids.astype(np.int64) * _ODD) & 0xFFFFFFFF) * buckets >> 32


def distances(
    vectors: DomainVectors,
) -> Float64[np.ndarray, "domains domains"]:
    """Measure the distance of every two domains.

    A distance is the root of the mean over parts of the mean over entries of squared differences,
    less what chance makes of them (noise / n_a + noise / n_b), at least 0. So each part weighs the
    same. The diagonal is 0. Distances of a domain without a vector are nan.
    """
    blocks = [vectors.values[:, part] for part in vectors.parts.values()]
    blocks = [block / np.sqrt(block.shape[1] * len(blocks)) for block in blocks]
    x = np.concatenate(blocks, axis=1)
    there = ~np.isnan(x).any(axis=1)
    found = np.full((len(x), len(x)), np.nan)
    if not there.any():
        return found
    x = x[there] - x[there].mean(axis=0)
    product = x @ x.T
    square = np.diag(product)
    noise = np.mean([vectors.noise[part].mean() for part in vectors.parts.values()])
    chance = noise / vectors.rows[there]
    apart = square[:, None] + square[None, :] - 2 * product
    between = np.sqrt((apart - chance[:, None] - chance[None, :]).clip(min=0.0))
    np.fill_diagonal(between, 0.0)
    found[np.ix_(there, there)] = between
    return found


def flat_map(distance: Float64[np.ndarray, "domains domains"]) -> Float64[np.ndarray, "domains 2"]:
    """Give places in a plane whose distances are near the given ones, by classical scaling.

    Source: Torgerson, Psychometrika 17 (1952): the leading eigenvectors of the doubly centred
    squared distances. Each axis has its largest coordinate on the positive side. The place of a
    domain whose distances are not known is nan.
    """
    places = np.full((len(distance), 2), np.nan)
    there = ~np.isnan(np.diag(distance))
    n = int(there.sum())
    if n == 0:
        return places
    square = distance[np.ix_(there, there)] ** 2
    centred = -0.5 * (
        square - square.mean(axis=0) - square.mean(axis=1, keepdims=True) + square.mean()
    )
    size, axes = np.linalg.eigh(centred)
    plane = np.zeros((n, 2))
    lead = min(2, n)
    plane[:, :lead] = (axes * np.sqrt(size.clip(min=0.0)))[:, ::-1][:, :lead]
    far = plane[np.abs(plane).argmax(axis=0), np.arange(2)]
    places[there] = plane * np.where(far < 0, -1.0, 1.0)
    return places


def agreement(
    distance: Float64[np.ndarray, "domains domains"],
    pairwise: Float64[np.ndarray, "targets sources"],
) -> float | None:
    """Give Spearman's correlation of distance with the benefit A_sym over the measured pairs.

    The correlation is below 0 where near domains help each other. None for fewer than 3 pairs.
    """
    above = np.triu_indices(len(distance), 1)
    return spearman(distance[above], symmetric(pairwise)[above])
