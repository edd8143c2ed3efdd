"""A weighting at work on one training, and the one that a config names."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.errors import ConfigError
from isthmus.layers.per_domain import domain_parameters
from isthmus.layers.tables import tables_of
from isthmus.models import AbstractModel
from isthmus.objectives import binary_cross_entropy
from isthmus.ranks import ALONE, Ranks
from isthmus.train.weighting.rule import AbstractRule, DomainLosses
from isthmus.train.weighting.shares import (
    DynamicAverage,
    GradNorm,
    RandomWeights,
    Uncertainty,
    Uniform,
)
from isthmus.train.weighting.surgery import CAGrad, PCGrad

WeightingName = Literal[
    "proportional", "uniform", "uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "random"
]
"""The name of a weighting of the domains of a batch."""

# Each domain costs those that take a gradient per domain one backward pass a step.
MAX_DOMAINS = 64


class Weighting:
    """A weighting at work on one training: its rule, its random numbers, what resuming needs."""

    def __init__(
        self,
        rule: AbstractRule | None,
        *,
        n_groups: int,
        seed: int,
        parameters: Iterable[nn.Parameter] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.rule, self.ranks = rule, ranks
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.n_groups = n_groups
        if rule is not None:
            # Far from the seeds that people choose, and from that of domain dropout.
            rule.draw.manual_seed(seed + 2**41)

    def backward(
        self,
        logits: Float[Tensor, " rows"],
        batch: Batch,
        domain: Int[Tensor, " rows"],
        beside: Float[Tensor, ""] | None = None,
        *,
        mass: Float64[Tensor, ""] | None = None,
    ) -> Float[Tensor, ""]:
        """Fill the gradients; return the mean loss over rows, whatever the weighting, detached.

        ``domain``: (rows,) int64, the group of each row, on the CPU, so that asking whether there
        are two of them waits for no device. ``beside``: the sum of the objectives, whose gradient is
        added as it is: a weighting weighs the rows' losses and nothing else. ``mass``: where the rows are
        this rank's part of a batch, the weight of the batch; gradients and loss are then the rank's part.
        """
        loss = binary_cross_entropy(logits, batch.label, batch.weight, mass=mass)
        one = self.rule is None
        if self.rule is not None:
            losses = DomainLosses.of(
                logits, batch, domain.to(logits.device), self.n_groups, self.ranks
            )
            if self.ranks.many:
                one = bool(losses.present.sum() <= 1)
            else:
                one = bool(domain.min() == domain.max())
            self.rule.note(losses)
            if not one:
                added = self._gradients(beside)
                self.rule.backward(losses)
                for parameter, gradient in added:
                    had = parameter.grad
                    parameter.grad = gradient if had is None else had + gradient
        if one:
            (loss if beside is None else loss + beside).backward()
        return loss.detach()

    def _gradients(self, beside: Tensor | None) -> list[tuple[nn.Parameter, Tensor]]:
        """The gradient of the objectives, for each parameter that they move; the graph stays."""
        if beside is None or not beside.requires_grad:  # it reads nothing that is trained
            return []
        found = torch.autograd.grad(beside, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(self.parameters, found, strict=True)
        return [(parameter, gradient) for parameter, gradient in pairs if gradient is not None]

    def end_epoch(self) -> None:
        """Tell the rule that an epoch is over."""
        if self.rule is not None:
            self.rule.end_epoch()

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs; empty for proportional. The tensors are living ones."""
        if self.rule is None:
            return {}
        return {**self.rule.kept, "random": self.rule.draw.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave; the tensors are copied."""
        if self.rule is None:
            return
        for name, tensor in self.rule.kept.items():
            tensor.copy_(state[name])
        self.rule.draw.set_state(state["random"].cpu())


def build_weighting(
    name: WeightingName,
    model: nn.Module,
    *,
    n_domains: int,
    lr: float,
    seed: int,
    compiled: bool,
    beside: nn.Module | None = None,
    ranks: Ranks = ALONE,
) -> Weighting:
    """The weighting of one training over ``n_domains`` domains; ``model`` is on its device.

    ``beside``: what holds the parameters of the objectives. Raises ConfigError where gradients per domain are asked for and there are more than 64 domains,
    a compiled model, or no dense parameters that domains share.
    """
    n_groups = n_domains + 1
    device = next(model.parameters()).device
    rule: AbstractRule | None = None
    if name == "uniform":
        rule = Uniform()
    elif name == "uncertainty":
        rule = Uncertainty(n_groups=n_groups, lr=lr, device=device)
    elif name == "dwa":
        rule = DynamicAverage(n_groups=n_groups, device=device)
    elif name == "random":
        rule = RandomWeights()
    elif name != "proportional":
        if n_domains > MAX_DOMAINS:
            raise ConfigError(
                f"train.weighting {name!r} takes a gradient per domain, of at most {MAX_DOMAINS}"
                f" domains, got {n_domains}"
            )
        if compiled:
            raise ConfigError(
                f"train.weighting {name!r} takes several gradients of one forward pass and so needs"
                " train.compile false, got true"
            )
        shared = shared_parameters(model)
        if not shared:
            raise ConfigError(
                f"train.weighting {name!r} needs dense parameters that domains share, got a model"
                " with none"
            )
        if name == "gradnorm":
            rule = GradNorm(_last_layer(model, shared), n_groups=n_groups, lr=lr, device=device)
        else:
            rule = PCGrad(shared) if name == "pcgrad" else CAGrad(shared)
    parameters = [*model.parameters(), *(() if beside is None else beside.parameters())]
    return Weighting(rule, n_groups=n_groups, seed=seed, parameters=parameters, ranks=ranks)


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The dense parameters that several domains move, in the order of ``model.parameters()``.

    Left out: embedding tables, and what the model declares as its domains' own.
    """
    own = (
        model.domain_parameters() if isinstance(model, AbstractModel) else domain_parameters(model)
    )
    left_out = {id(p) for p in own.values()} | {id(table.weight) for table in tables_of(model)}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]


def _last_layer(model: nn.Module, shared: list[nn.Parameter]) -> nn.Parameter:
    """The last shared parameter that is a matrix or more and no bias, else the last shared one."""
    biases = {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    layers = [p for p in shared if p.ndim > 1 and id(p) not in biases]
    return layers[-1] if layers else shared[-1]
