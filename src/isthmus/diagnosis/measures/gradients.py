"""Do the domains pull a young joint model the same way? Cosines between their gradients.

The cosines are exploratory. They are a cheap hint and no measure of benefit. At an optimum the
gradients sum to zero, so agreement is read early and averaged over looks. Yu et al., NeurIPS 2020,
arXiv:2001.06782, and Fifty et al., NeurIPS 2021, arXiv:2109.04617, use gradients on shared
parameters during training.

On planted graded relations of 6 domains (sources/planted.py) Spearman with the true cosines was .22
at 3,000 rows a domain (8 tables, -.13 to .65) and .67 at 8,000 (5 tables, .54 to .94).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.store.dataset import Dataset
from isthmus.data.store.subset import Subset
from isthmus.diagnosis.measures.sample import sample_rows
from isthmus.objectives import binary_cross_entropy
from isthmus.train import Look, TrainConfig, train
from isthmus.train.device import move
from isthmus.train.weighting import shared_parameters


@dataclass(frozen=True, slots=True, eq=False)
class GradientAgreement:
    """Mean cosine between the gradients of two domains' losses early in joint training.

    ``cosine``: (domains, domains), with ones on the diagonal. A cosine is nan where a gradient
    vanished at every look. ``by_look``: the cosines at each look. ``names``: the measured domains.
    ``rows``: the number of rows behind each gradient. ``steps``: training steps before each look.
    """

    cosine: Float64[np.ndarray, "domains domains"]
    by_look: Float64[np.ndarray, "looks domains domains"]
    names: tuple[str, ...]
    rows: Int64[np.ndarray, " domains"]
    steps: tuple[int, ...]


def early_cosines(
    model: nn.Module,
    dataset: Dataset | Subset,
    config: TrainConfig,
    *,
    domains: Sequence[str] | None = None,
    looks: int = 8,
    rows_per_domain: int = 1000,
    seed: int = 0,
) -> GradientAgreement:
    """Train ``model`` for the first epoch of ``config``, and compare gradients at each look.

    ``model``: a fresh model, as for the joint training. The model is trained afterwards.
    ``domains``: names, by default all domains with train rows. A domain's gradient is the gradient
    of the mean loss of a fixed sample of its train rows, in eval mode. Only the shared dense
    parameters count: no tables, since two domains hold few rows of a table in common, and no
    parameters that belong to one domain. Training goes as it would without the looks: no random
    number is drawn, and no gradient is left behind. Memory: one float32 per shared parameter and
    domain. Raises ValueError for a domain without train rows, and for fewer than two domains.
    """
    names = tuple(dataset.domain_names[: dataset.n_domains] if domains is None else domains)
    unknown = [name for name in names if name not in dataset.domain_names]
    if unknown or len(set(names)) < max(2, len(names)):
        raise ValueError(f"domains must be two or more different ones of the dataset, got {names}")
    batches = _samples(dataset, names, rows_per_domain, seed)
    first_epoch = config.model_copy(update={"epochs": 1, "looks_per_epoch": looks})
    found: list[np.ndarray] = []
    steps: list[int] = []
    for event in train(model, dataset, first_epoch):  # pyright: ignore[reportArgumentType]
        if isinstance(event, Look):
            found.append(cosines(domain_gradients(model, batches)))
            steps.append(event.step)
    by_look = np.stack(found)
    known = ~np.isnan(by_look)
    total = np.where(known, by_look, 0.0).sum(axis=0)
    times = known.sum(axis=0)
    return GradientAgreement(
        cosine=np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0),
        by_look=by_look,
        names=names,
        rows=np.array([batch.rows for batch in batches], dtype=np.int64),
        steps=tuple(steps),
    )


def _samples(
    dataset: Dataset | Subset, names: Sequence[str], rows_per_domain: int, seed: int
) -> list[Batch]:
    """Draw one batch for each named domain."""
    rows = dataset.rows("train")
    at, domain = sample_rows(rows, len(dataset.domain_names), rows_per_domain, seed=seed)
    ids = [dataset.domain_names.index(name) for name in names]
    batches = [rows.arrays.batch(at[domain == number], dataset.n_domains) for number in ids]
    empty = [name for name, batch in zip(names, batches, strict=True) if not batch.rows]
    if empty:
        raise ValueError(f"domains must have train rows, got {empty} without any")
    return batches


def domain_gradients(
    model: nn.Module, batches: Sequence[Batch]
) -> Float32[np.ndarray, "domains parameters"]:
    """Give the gradient of each batch's mean loss on the shared dense parameters, in eval mode.

    Each batch holds rows of one domain. Tables, and what the model declares as its domains' own,
    are left out. The model's mode, its ``.grad`` and the random generators do not change.
    """
    shared = shared_parameters(model)
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    found: list[Tensor] = []
    model.eval()
    try:
        for batch in batches:
            here = move(batch, device)
            with torch.enable_grad():
                loss = binary_cross_entropy(model(here), here.label, here.weight)
                # Towers share no parameter but the tables.
                grads = (
                    torch.autograd.grad(loss, shared, allow_unused=True, materialize_grads=True)
                    if shared
                    else ()
                )
            flat = [gradient.detach().flatten() for gradient in grads]
            found.append(torch.cat([torch.zeros(0, device=device), *flat]).to("cpu", torch.float32))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.stack(found).numpy()


def cosines(
    gradients: Float32[np.ndarray, "domains parameters"],
) -> Float64[np.ndarray, "domains domains"]:
    """Give the cosines between rows: 1 on the diagonal, nan where a row is 0."""
    size = np.sqrt(np.square(gradients, dtype=np.float64).sum(axis=1))
    alive = size > 0
    unit = gradients / np.where(alive, size, 1.0).astype(gradients.dtype)[:, None]
    cosine = (unit @ unit.T).astype(np.float64).clip(-1.0, 1.0)
    np.fill_diagonal(cosine, 1.0)
    cosine[~alive] = np.nan
    cosine[:, ~alive] = np.nan
    return cosine
