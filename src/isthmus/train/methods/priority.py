"""Balanced domain priority: domains whose validation score lags come more often in the next epoch.

Source of the idea: Wang et al., Multi-path Neural Networks for On-device Multi-domain Visual
Classification, WACV 2021, arXiv:2010.04904, adaptive balanced domain prioritisation. The paper's update is
not known to us, since its abstract alone could be read: the rule below is ours. With the AUC s_d of domain
d's validation rows at the last look, and its reference r_d:

    gap_d = max(0, r_d - s_d);    rows of d in an epoch ~ rows of d * min(exp(pressure * gap_d), MOST)

``reference``: ``best`` is the domain's best look so far; a number is what the domain reaches otherwise, such
as alone. An epoch stays as long as it was. Shares change between epochs only, and each row of a domain
comes as often as the others of the domain, to within one.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from pydantic import Field
from torch import Tensor

from isthmus.errors import ConfigError
from isthmus.schema import Section

MOST = 4.0  # times the share of a domain that does not lag


class PriorityConfig(Section):
    """Domains whose validation AUC lags a reference come more often."""

    name: Literal["priority"] = "priority"
    pressure: float = Field(
        default=20.0, ge=0, description="by how much: a gap of .01 makes exp(pressure / 100) times"
    )
    reference: Literal["best"] | dict[str, float] = Field(
        default="best",
        description="`best`, the domain's best look so far, or an AUC by the domain's name, such as"
        " that of a model of the domain alone",
    )

    def check(self, domains: Sequence[str]) -> None:
        """Raise ConfigError for a reference of a domain that is not there, or that is no AUC."""
        for name, auc in {} if self.reference == "best" else self.reference.items():
            if name not in domains:
                raise ConfigError(
                    "train.domain_sampling.reference must name domains of the table,"
                    f" {', '.join(domains)}, got {name!r}"
                )
            if not 0 <= auc <= 1:
                raise ConfigError(
                    f"train.domain_sampling.reference must hold an AUC from 0 to 1 of {name!r}, got"
                    f" {auc}"
                )


class Priority:
    """The rule at work on one training. ``domains``: names, in the order of their ids from 1.

    >>> rule = Priority(PriorityConfig(pressure=10.0, reference={"b": 0.8}), ("a", "b"))
    >>> rule.note(np.array([np.nan, 0.7, 0.75]))
    >>> rule.next_epoch().round(3).tolist()  # the unknown domain, a at its best, b .05 behind
    [1.0, 1.0, 1.649]
    """

    def __init__(self, config: PriorityConfig, domains: Sequence[str]) -> None:
        config.check(domains)
        self.pressure = config.pressure
        sets = len(domains) + 1
        given = {} if config.reference == "best" else config.reference
        self.reference = np.array([np.nan, *(given.get(name, np.nan) for name in domains)])
        self.kept = {
            "best": torch.full((sets,), torch.nan, dtype=torch.float64),
            "last": torch.full((sets,), torch.nan, dtype=torch.float64),
            "factor": torch.ones(sets, dtype=torch.float64),  # of the epoch under way
        }

    def note(self, auc: Float64[np.ndarray, " sets"]) -> None:
        """Take note of a look: the AUC of each domain, the unknown one first; nan where undefined."""
        self.kept["last"].copy_(torch.from_numpy(auc))
        best = np.fmax(self.kept["best"].numpy(), auc)
        self.kept["best"].copy_(torch.from_numpy(best))

    def next_epoch(self) -> Float64[np.ndarray, " sets"]:
        """How often rows of each domain come in the epoch that begins, over those that do not lag."""
        best, last = self.kept["best"].numpy(), self.kept["last"].numpy()
        reference = np.where(np.isnan(self.reference), best, self.reference)
        gap = np.nan_to_num(reference - last).clip(min=0)
        self.kept["factor"].copy_(torch.from_numpy(np.exp(self.pressure * gap).clip(max=MOST)))
        return self.factor

    @property
    def factor(self) -> Float64[np.ndarray, " sets"]:
        """What `next_epoch` gave for the epoch under way."""
        return self.kept["factor"].numpy().copy()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``kept`` held; the tensors are copied."""
        for name, tensor in self.kept.items():
            tensor.copy_(state[name])
