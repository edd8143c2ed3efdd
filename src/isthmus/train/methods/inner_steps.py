"""The steps of an epoch of MAMDR in their order, and the random numbers behind each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, slots=True)
class InnerStep:
    """One step of an inner loop.

    ``rows_of``: the domain whose rows are read; None: of all domains. ``scored_as``: the domain whose
    parameters score the rows and move; -1 where the shared parameters move, and each row is scored by
    its own domain. ``number``: of the batch, among those of ``rows_of`` or of ``scored_as``.
    ``opens``, ``closes``: whether the step is the first, or the last, of its inner loop.
    """

    rows_of: int | None
    scored_as: int
    number: int
    opens: bool
    closes: bool

    @property
    def negotiates(self) -> bool:
        """Whether the shared parameters move."""
        return self.scored_as < 0


def steps_of(
    counts: Int64[np.ndarray, " domains"], batch_rows: int
) -> Int64[np.ndarray, " domains"]:
    """Batches of each domain's rows. A batch of one row is left out: no norm could learn from it.

    >>> steps_of(np.array([0, 1, 4, 5, 6]), 4).tolist()
    [0, 0, 1, 1, 2]
    """
    return counts // batch_rows + (counts % batch_rows >= 2)


def schedule(
    steps: Int64[np.ndarray, " domains"], *, helpers: int, unknown: bool, seed: int, epoch: int
) -> list[InnerStep]:
    """The steps of an epoch: one loop over all domains, then ``helpers`` loops for each domain.

    ``steps``: batches by domain, the unknown one first; a domain without any takes no part.
    ``unknown``: regularise the unknown domain too, on rows of all domains. Every epoch has as many
    steps as any other.
    """
    random = stream(seed, epoch)
    domains = np.flatnonzero(steps)
    order = random.permutation(domains).tolist()
    places = [(domain, number) for domain in order for number in range(steps[domain])]
    found = [
        InnerStep(domain, -1, number, opens=place == 0, closes=place == len(places) - 1)
        for place, (domain, number) in enumerate(places)
    ]
    owners = [int(domain) for domain in domains if domain]
    for owner in [0, *owners] if unknown else owners:
        others = domains[domains != owner]
        drawn = random.choice(others, min(helpers, len(others)), replace=False).tolist()
        for place, helper in enumerate(drawn):
            found.append(InnerStep(helper, owner, 2 * place, opens=True, closes=False))
            own = owner or None  # the unknown domain's rows are those of all domains
            found.append(InnerStep(own, owner, 2 * place + 1, opens=False, closes=True))
    return found


def stream(seed: int, epoch: int, *place: int) -> np.random.Generator:
    """The random numbers of a place in an epoch, apart from those of every other place."""
    # 3: apart from the streams of a shuffle, which begin with 0 to 2.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, 3, *place])))
