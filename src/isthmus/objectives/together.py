"""The objectives of one training, together: whose hidden states they read, what they add up to."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from isthmus.data.batch import Batch, sent
from isthmus.layers.sites import Site, SiteSpec
from isthmus.models import AbstractModel, Output
from isthmus.objectives.mixing import Answers
from isthmus.objectives.objective import AbstractObjective, AbstractObjectiveConfig


class Objectives(nn.Module):
    """Every objective that a config names, in its order; none is fine.

    ``sites``: the sites that any of them reads. ``unlabelled``: the first that reads rows without a
    label, by name, or None. ``asking``: the first that asks the network for logits. An objective that is
    named a second time is called ``NAME-2``. One that draws is left out at weight 0. Raises ``ValueError`` for a site that the network does not have.
    """

    def __init__(self, configs: Sequence[AbstractObjectiveConfig], spec: SiteSpec) -> None:
        super().__init__()
        self.members = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        self.sites: frozenset[Site] = frozenset()
        self.unlabelled: str | None = None
        self.asking: str | None = None
        seen: Counter[str] = Counter()
        for config in configs:
            if config.draws and not config.weight:
                continue
            seen[config.name] += 1
            number = seen[config.name]
            key = config.name if number == 1 else f"{config.name}-{number}"
            objective = config.build(spec)
            self.members[key] = objective
            self.weights[key] = config.weight
            self.sites |= set(objective.sites)
            if config.reads_unlabelled:
                self.unlabelled = self.unlabelled or key
            if objective.asks:
                self.asking = self.asking or key

    def forward(
        self,
        hidden: Mapping[Site, Tensor],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        answers: Answers | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss of each objective by name, before its weight; see `AbstractObjective`."""
        if not self.members:
            return {}
        domain = sent(domain, batch.domain.device)
        return {
            name: objective(hidden, batch, domain, answers)
            if objective.asks
            else objective(hidden, batch, domain)
            for name, objective in self.members.items()
        }

    def answers(self, model: nn.Module, output: Output, batch: Batch) -> Answers | None:
        """What the objectives that ask are given of a batch; None where none asks."""
        if self.asking is None:
            return None
        assert isinstance(model, AbstractModel)
        return Answers(model, output, batch)

    def end_epoch(self) -> None:
        """Tell every objective that an epoch is over."""
        for _, objective in self._each():
            objective.end_epoch()

    def between_domains(self) -> dict[str, Float64[Tensor, "domains domains"]]:
        """What each objective found between domains, by name, on the CPU; see `AbstractObjective`."""
        found = {name: objective.between_domains() for name, objective in self._each()}
        return {name: matrix.cpu() for name, matrix in found.items() if matrix is not None}

    def _each(self) -> Iterator[tuple[str, AbstractObjective]]:
        for name, objective in self.members.items():
            assert isinstance(objective, AbstractObjective)
            yield name, objective

    def total(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""] | None:
        """Sum of the losses with their weights; a loss of the model's own counts once. None for none."""
        parts = [self.weights.get(name, 1.0) * loss for name, loss in losses.items()]
        return sum(parts[1:], start=parts[0]) if parts else None
