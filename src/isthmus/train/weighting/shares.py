"""Weightings that are convex combinations of the domains' losses; sources stand in the package."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from isthmus.data.batch import sent
from isthmus.optimisers import BETAS, EPS
from isthmus.train.weighting.rule import AbstractRule, DomainLosses, gradients_of, softmax

DWA_TEMPERATURE = 2.0
GRADNORM_ALPHA = 1.5
GRADNORM_LEAST = 0.01
LEAST_LOSS = 1e-6  # nats; below it a loss is no measure of progress


class Uniform(AbstractRule):
    """Every domain in the batch counts the same."""

    def backward(self, losses: DomainLosses) -> None:
        """Mean of the domains' means."""
        losses.joined(softmax(torch.zeros_like(losses.mean), losses)).backward()


class RandomWeights(AbstractRule):
    """Weights that know nothing: a control for the ones that learn."""

    def backward(self, losses: DomainLosses) -> None:
        """Softmax of normal numbers, drawn for every group."""
        z = torch.randn(len(losses.mass), generator=self.draw, dtype=torch.float64)
        losses.joined(softmax(sent(z, losses.mass.device), losses)).backward()


class DynamicAverage(AbstractRule):
    """Domains whose loss falls slowly from epoch to epoch count more; equal in epochs 1 and 2."""

    def __init__(self, *, n_groups: int, device: torch.device) -> None:
        super().__init__()
        zeros = torch.zeros(n_groups, dtype=torch.float64, device=device)
        self.kept = {
            "total": zeros.clone(),  # of this epoch: sum of weight * loss
            "mass": zeros.clone(),  # of this epoch: sum of weights
            "last": zeros + torch.nan,  # mean loss of the last epoch
            "ratio": zeros + 1.0,  # last epoch's mean loss over that of the epoch before
        }

    def note(self, losses: DomainLosses) -> None:
        """Add up the epoch's losses."""
        self.kept["total"] += losses.mean * losses.mass
        self.kept["mass"] += losses.mass

    def backward(self, losses: DomainLosses) -> None:
        """Softmax of the last two epochs' ratios; 1 for a domain that lacked rows in either."""
        losses.joined(softmax(self.kept["ratio"] / DWA_TEMPERATURE, losses)).backward()

    def end_epoch(self) -> None:
        """Take the ratio of the epoch's mean losses to those of the epoch before."""
        now = self.kept["total"] / self.kept["mass"]  # nan without rows
        ratio = now / self.kept["last"]
        self.kept["ratio"].copy_(torch.where(ratio.isfinite(), ratio, 1.0))
        self.kept["last"].copy_(now)
        self.kept["total"].zero_()
        self.kept["mass"].zero_()


class Uncertainty(AbstractRule):
    """Learnt s_d, the logarithm of a domain's noise; where the loss is larger, s_d rises."""

    def __init__(self, *, n_groups: int, lr: float, device: torch.device) -> None:
        super().__init__()
        self.lr = lr
        self.kept = _adam_state(torch.zeros(n_groups, dtype=torch.float64, device=device))

    def backward(self, losses: DomainLosses) -> None:
        """Weigh by exp(-s_d), then move s_d down the slope of ``exp(-s) L + s / 2``."""
        s = self.kept["value"]
        losses.joined(softmax(-s, losses)).backward()
        _adam(self.kept, 0.5 - (-s).exp() * losses.mean, losses.present, self.lr)


class GradNorm(AbstractRule):
    """Learnt w_d, which keep the domains' gradients at one size, larger where learning lags.

    ``layer``: the shared parameter whose gradients are compared, (any shape).
    """

    def __init__(
        self, layer: nn.Parameter, *, n_groups: int, lr: float, device: torch.device
    ) -> None:
        super().__init__()
        self.layer, self.lr = layer, lr
        ones = torch.ones(n_groups, dtype=torch.float64, device=device)
        # start: the loss of each domain when it was first seen beside another.
        self.kept = {**_adam_state(ones), "start": ones * torch.nan}

    def backward(self, losses: DomainLosses) -> None:
        """Weigh by w_d, then move w_d down the slope of ``sum_d |w_d n_d - goal_d|``."""
        here, start = losses.present, self.kept["start"]
        loss = losses.mean.clamp(min=LEAST_LOSS)
        start.copy_(torch.where(here & start.isnan(), loss, start))
        groups = here.nonzero().squeeze(1)
        size = torch.zeros_like(start)
        size[groups] = gradients_of(losses, groups, [self.layer]).double().norm(dim=1)
        w = torch.where(here, self.kept["value"], 0.0)
        losses.joined(w / w.sum()).backward()
        count = len(groups)
        w = w * count / w.sum()
        pace = torch.where(here, loss / start, 0.0)
        pace = pace * count / pace.sum()  # above 1: the domain has learnt less than the others
        goal = (w * size).sum() / count * pace**GRADNORM_ALPHA
        _adam(self.kept, (w * size - goal).sign() * size, here, self.lr)
        value, known = self.kept["value"], start.isfinite()
        value.clamp_(min=GRADNORM_LEAST)
        value.copy_(torch.where(known, value * known.sum() / value[known].sum(), value))


def _adam_state(value: Float64[Tensor, " groups"]) -> dict[str, Tensor]:
    return {
        "value": value.clone(),
        "first": torch.zeros_like(value),
        "second": torch.zeros_like(value),
        "steps": torch.zeros_like(value),
    }


def _adam(
    kept: Mapping[str, Tensor],
    gradient: Float64[Tensor, " groups"],
    here: Bool[Tensor, " groups"],
    lr: float,
) -> None:
    """One Adam step of the groups that are here; each counts its own steps."""
    steps = kept["steps"] + 1
    first = BETAS[0] * kept["first"] + (1 - BETAS[0]) * gradient
    second = BETAS[1] * kept["second"] + (1 - BETAS[1]) * gradient**2
    size = (second / (1 - BETAS[1] ** steps)).sqrt() + EPS
    value = kept["value"] - lr * first / (1 - BETAS[0] ** steps) / size
    for name, new in {"steps": steps, "first": first, "second": second, "value": value}.items():
        kept[name].copy_(torch.where(here, new, kept[name]))
