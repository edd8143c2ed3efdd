"""A learnt vector of each domain: what tells its rows from others', apart from what tells the label.

Source: Peng, Li and Saenko, Domain2Vec, ECCV 2020, arXiv:2007.09257. We could not read the paper:
from its page we know that features specific to domains and features specific to classes are learnt
apart, both adversarially and with a minimiser of mutual information, and that the vector of a domain
comes from its domain features and Gram matrices. The losses below are ours, of that description. With
class features c and domain features f of a row x with label y of domain d:

    loss =  CE(label | c) + CE(domain | f)              each kind of features knows its own
          + CE(domain | reverse c) + CE(label | reverse f)      and hides the other's
          + mean corr(c, f)^2 + 0.1 |x - decode(c, f)|^2
    vector of d = [mean of f, diagonal of the Gram matrix: mean of f^2]

Departures, as far as the paper is known to us:
- c reads x, and f reads x, y and x times y: domains of a recommender share their inputs and differ in
  who likes what, so x alone seldom tells the domain. The adversary takes the label out of f again.
- Squared correlations stand for mutual information, which the paper estimates by a network.
- x is the embedded row of the joint model with its domain hidden, standardised, not a picture.
- The Gram matrix is over the rows of a domain, not over the places of a picture.
- The features are learnt on one half of the sampled rows, and the vectors taken from the other: what
  is learnt by heart moves no vector.
- Distances are those of `likeness`: in standard deviations, less what chance makes of them.

Cost: one pass of the joint model over 20,000 rows at most, and 20 passes of a network of layers of 64
over half of them: 3.6 s of one core at 96 input columns and 14 domains. On planted tables and on two
real ones (`bench/domain_vectors.py`) it never ranked pairs better than the statistics of `likeness`,
and beside them it added nothing on the real ones: docs/diagnosis.md.
"""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.diagnosis.measures.likeness import (
    LEAST_ROWS,
    SCORE_ROWS,
    DomainVectors,
    RowSums,
    joined,
)
from isthmus.diagnosis.measures.sample import sample_rows
from isthmus.models import AbstractModel
from isthmus.train import score_batch
from isthmus.train.generators import seeded

LEARNT_ROWS = 20_000  # of all domains together
WIDTH, HIDDEN = 16, 64
EPOCHS, BATCH_ROWS, LR = 20, 512, 3e-3
DECODED = 0.1


def learnt_vectors(
    model: AbstractModel,
    dataset: Dataset | Subset,
    *,
    rows_per_domain: int = 2000,
    seed: int = 0,
) -> DomainVectors:
    """Give every domain its learnt vector; see the top of this file. One seed gives one result.

    The parts of a vector are ``domain features`` and ``their second moment``. A domain with fewer
    than 2 rows in the half that vectors are taken from has none. Raises ValueError where
    ``rows_per_domain`` is below 1, and where fewer than 2 rows belong to domains.
    """
    rows, names = dataset.rows("train"), dataset.domain_names
    most = min(rows_per_domain, max(2 * LEAST_ROWS, LEARNT_ROWS // len(names)))
    at, domain = sample_rows(rows, len(names), most, seed=seed)
    kept: list[np.ndarray] = []

    def keep(_module: object, _batch: object, x: Tensor) -> None:
        kept.append(x.detach().float().cpu().numpy())

    handle = model.get_submodule("inputs").register_forward_hook(keep)
    try:
        for start in range(0, len(at), SCORE_ROWS):
            batch = rows.arrays.batch(at[start : start + SCORE_ROWS], dataset.n_domains)
            everywhere = torch.ones(batch.rows, dtype=torch.bool)
            score_batch(model, batch.hide_domain(everywhere, model.domain_places))
    finally:
        handle.remove()
    x = np.concatenate(kept) if kept else np.zeros((0, 1), dtype=np.float32)
    return vectors_of(x, np.asarray(rows.label)[at], domain, names, seed=seed)


def vectors_of(
    x: Float32[np.ndarray, "rows width"],
    label: np.ndarray,
    domain: Int64[np.ndarray, " rows"],
    names: tuple[str, ...],
    *,
    seed: int = 0,
) -> DomainVectors:
    """Learn vectors from rows of numbers. ``label``: (rows,) 0 or 1; ``domain``: places in ``names``.

    Two rows or more are needed (ValueError). Torch's global generator is left as it was.
    """
    if len(x) < 2:
        raise ValueError(f"vectors are learnt from 2 rows of domains or more, got {len(x)}")
    order = np.random.default_rng(seed).permutation(len(x))
    learn, rest = np.sort(order[: len(x) // 2]), np.sort(order[len(x) // 2 :])
    inputs = torch.from_numpy(_standardised(x))
    liked = torch.from_numpy(np.asarray(label, dtype=np.float32))
    liked_less = liked - liked[learn].mean()
    both = torch.cat([inputs, inputs * liked_less[:, None], liked_less[:, None]], dim=1)
    where = torch.from_numpy(domain)
    with seeded(seed):
        network = _Apart(inputs.shape[1], len(names))
        _learn(network, inputs[learn], both[learn], liked[learn], where[learn])
    with torch.no_grad():
        features = network.of_domain(both[rest]).double().numpy()
    features -= features.mean(axis=0)
    mine = domain[rest]
    sums = RowSums(len(names))
    sums.add("domain features", mine, features)
    sums.add("their second moment", mine, features**2)
    return joined(sums, np.bincount(mine, minlength=len(names)).astype(np.int64), names)


class _Apart(nn.Module):
    """Two encoders, a head and an adversary on each, and a decoder of both."""

    def __init__(self, width: int, n_domains: int) -> None:
        super().__init__()
        self.of_class, self.of_domain = _layers(width, WIDTH), _layers(2 * width + 1, WIDTH)
        self.label, self.domain = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, n_domains)
        self.no_domain, self.no_label = _layers(WIDTH, n_domains), _layers(WIDTH, 1)
        self.decode = nn.Linear(2 * WIDTH, width)

    def loss(self, x: Tensor, both: Tensor, label: Tensor, domain: Tensor) -> Tensor:
        """The sum at the top of this file."""
        c, f = self.of_class(x), self.of_domain(both)
        hidden_c, hidden_f = (
            2 * one.detach() - one for one in (c, f)
        )  # the gradient's sign turned
        told = F.binary_cross_entropy_with_logits
        apart = (_unit(c).T @ _unit(f) / len(c)).square().mean()
        return (
            told(self.label(c).squeeze(1), label)
            + F.cross_entropy(self.domain(f), domain)
            + F.cross_entropy(self.no_domain(hidden_c), domain)
            + told(self.no_label(hidden_f).squeeze(1), label)
            + apart
            + DECODED * F.mse_loss(self.decode(torch.cat([c, f], dim=1)), x)
        )


def _learn(network: _Apart, x: Tensor, both: Tensor, label: Tensor, domain: Tensor) -> None:
    """Train by Adam, rows in a new order each epoch."""
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH_ROWS):
            optimiser.zero_grad()
            picked = (one.index_select(0, rows) for one in (x, both, label, domain))
            network.loss(*picked).backward()
            optimiser.step()


def _layers(width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, out_width))


def _unit(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1; one without a spread is 0."""
    return (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-6).sqrt()


def _standardised(x: np.ndarray) -> Float32[np.ndarray, "rows width"]:
    """Columns of mean 0 and variance 1; one whose spread is rounding becomes 0."""
    centre, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    flat = spread <= 1e-6 * np.maximum(np.abs(centre), 1e-6)
    return ((x - centre) / np.where(flat, np.inf, spread)).astype(np.float32)
