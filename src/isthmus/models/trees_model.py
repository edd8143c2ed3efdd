"""Trees as a model: the logit of a row is what the forest says of it, and nothing is learned here.

    logit = start + score

``score`` is the row's raw score, which the forest gave when the row was encoded: it stands among the
batch's numbers, unscaled (`isthmus.data.encoding.trees`). A train row's score is out of fold. ``start``
is the log-odds of the train rows' label, from which the forest was boosted.

The forest lies with the encoder, in LightGBM's own text. A solo's forest is that of its own rows.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.encoding.trees import unread
from isthmus.layers.sites import Site, SiteSpec
from isthmus.models.abstract_model import AbstractModel, Output, ParameterReport
from isthmus.schema import FittedField


class TreesModel(AbstractModel):
    """A model without parameters: a batch in, the forest's logit a row out.

    ``fields``: the features of a batch, of which one is the forest's score. ``n_domains``: trained
    domains, 1 or more, the unknown one not counted. Raises ValueError where there is none, where there
    is no score, and where the forest does not read a feature.
    """

    start: Tensor  # () float32, log-odds

    def __init__(self, *, fields: tuple[FittedField, ...], n_domains: int) -> None:
        if n_domains < 1:
            raise ValueError(f"n_domains must be at least 1, got {n_domains}")
        super().__init__()
        self.fields = fields
        self.spec = SiteSpec((), n_domains)
        place = self.domain_places.score
        if place is None:
            raise ValueError("data.trees must be true where model.name is 'trees', got false")
        for name, why in unread(fields).items():
            raise ValueError(f"trees must read every feature, but {name!r} {why}")
        self._score = place
        self.register_buffer("start", torch.zeros(()))

    def score(self, batch: Batch, sites: Collection[Site] = ()) -> Output:
        """Logits. There is no site. Raises ValueError where one is asked for."""
        if sites:
            raise ValueError(f"sites must be none, since trees have none, got {tuple(sites)}")
        return Output(batch.numeric[:, self._score] + self.start, {}, {})

    def start_at(self, logit: float) -> None:
        """Count every row's score from this log-odds."""
        self.start.fill_(logit)

    def parameter_report(self) -> ParameterReport:
        """Nothing anywhere."""
        return ParameterReport(embedding=0, backbone=0, adapter=0, head=0)
