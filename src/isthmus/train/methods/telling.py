"""How a network learns to tell the domain of a row: softmax regression by Adam, with an early stop.

A tenth of the rows is held out. The training ends when two epochs in a row have not lowered the
cross-entropy of these rows, and the best weights come back.
"""

from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.data.batch import Batch
from isthmus.data.store.by_domain import RowsByDomain
from isthmus.models.domain_teller import DomainTeller

LEAST_ROWS = 20  # fewer teach nobody to tell domains apart
LR = 0.01
BATCH_ROWS = 256
LEAST_STEPS = 20  # of an epoch: few rows come in smaller batches
EPOCHS = 30
PATIENCE = 2
LOOK_ROWS = 8_192  # rows that are scored at a time


def learn_to_tell(
    teller: DomainTeller,
    rows: RowsByDomain,
    domains: Int64[np.ndarray, " classes"],
    random: np.random.Generator,
) -> float:
    """Train ``teller`` in place on the rows of ``domains``; give its accuracy on the held out rows.

    ``domains``: the domain of each class, rising; together they have `LEAST_ROWS` rows or more. All random numbers
    come from ``random``, so the same call gives the same weights.
    """
    wanted = np.isin(np.arange(len(rows.counts)), domains)
    every = random.permutation(np.flatnonzero(np.repeat(wanted, rows.counts)))
    held, taught = every[: len(every) // 10], every[len(every) // 10 :]
    size = max(2, min(BATCH_ROWS, len(taught) // LEAST_STEPS))
    optimiser = torch.optim.Adam(teller.parameters(), lr=LR)
    class_of = torch.full((len(rows.counts),), -1)
    class_of[torch.from_numpy(domains)] = torch.arange(len(domains))
    best, accuracy = _judge(teller, rows, held, class_of)
    weights, stale = deepcopy(teller.state_dict()), 0
    for _ in range(EPOCHS):
        order = random.permutation(taught)
        for start in range(0, len(order), size):
            batch = rows.batch(None, order[start : start + size])
            optimiser.zero_grad()
            _loss(teller, batch, class_of).mean().backward()
            optimiser.step()
        loss, right = _judge(teller, rows, held, class_of)
        if loss < best:
            best, accuracy, stale = loss, right, 0
            weights = deepcopy(teller.state_dict())
        else:
            stale += 1
            if stale == PATIENCE:
                break
    teller.load_state_dict(weights)
    for parameter in teller.parameters():
        parameter.grad = None
    return accuracy


def _loss(teller: nn.Module, batch: Batch, class_of: Tensor) -> Tensor:
    return F.cross_entropy(teller(batch), class_of[batch.domain], reduction="none")


@torch.no_grad()
def _judge(
    teller: nn.Module, rows: RowsByDomain, at: Int64[np.ndarray, " chosen"], class_of: Tensor
) -> tuple[float, float]:
    """Mean cross-entropy, and the share of rows whose domain is told rightly."""
    loss = right = 0.0
    for start in range(0, len(at), LOOK_ROWS):
        batch = rows.batch(None, at[start : start + LOOK_ROWS])
        logits, truth = teller(batch), class_of[batch.domain]
        loss += float(F.cross_entropy(logits, truth, reduction="sum"))
        right += float((logits.argmax(1) == truth).sum())
    return loss / len(at), right / len(at)
