"""Weightings that change the gradient of what domains share; sources stand in the package."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import scipy
import torch
from jaxtyping import Float64
from torch import nn

from isthmus.train.weighting.rule import AbstractRule, DomainLosses, gradients_of

CAGRAD_C = 0.5


class AbstractSurgery(AbstractRule):
    """A rule that changes the mean gradient of the dense parameters that domains share.

    Any such gradient is a combination of the domains' own, so its coefficients follow from their
    products alone.
    """

    def __init__(self, shared: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.shared = list(shared)

    @abstractmethod
    def coefficients(
        self, products: Float64[np.ndarray, "present present"]
    ) -> Float64[np.ndarray, " present"]:
        """How often each domain's gradient is taken, from the products of all pairs."""

    def backward(self, losses: DomainLosses) -> None:
        """Mean of the domains' gradients for every parameter, then the shared ones changed."""
        groups = losses.present.nonzero().squeeze(1)
        gradients = gradients_of(losses, groups, self.shared)
        losses.joined(losses.present.double() / len(groups)).backward()
        products = (gradients @ gradients.T).double().cpu().numpy()
        if not np.isfinite(products).all():
            return  # the loop refuses what is no longer finite
        taken = torch.from_numpy(self.coefficients(products)).to(gradients)
        parts = (taken @ gradients).split([parameter.numel() for parameter in self.shared])
        for parameter, part in zip(self.shared, parts, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(part.view_as(parameter))


class PCGrad(AbstractSurgery):
    """From each domain's gradient take away, one by one in random order, what opposes another's."""

    def coefficients(
        self, products: Float64[np.ndarray, "present present"]
    ) -> Float64[np.ndarray, " present"]:
        """Row i of ``own`` holds domain i's gradient after surgery, as a sum of all gradients."""
        count = len(products)
        order = (
            torch.rand(count, count, generator=self.draw, dtype=torch.float64).argsort(1).numpy()
        )
        own = np.eye(count)
        rows = np.arange(count)
        for other in order.T:  # every domain meets its next one
            along = (own * products[other]).sum(1)
            length = products[other, other]
            opposed = (along < 0) & (length > 0) & (other != rows)
            own[rows, other] -= np.divide(along, length, out=np.zeros(count), where=opposed)
        return own.mean(0)


class CAGrad(AbstractSurgery):
    """The step within c of the mean gradient that serves the worst-off domain best."""

    def coefficients(
        self, products: Float64[np.ndarray, "present present"]
    ) -> Float64[np.ndarray, " present"]:
        """``(1 / D + sqrt(phi) / |g_w| w) / (1 + c)``, w of the dual problem on the simplex."""
        count = len(products)
        equal = np.full(count, 1 / count)
        size = products.trace() / count
        if size <= 0:
            return equal
        products = products / size  # the unit of the gradients is no matter
        radius = CAGRAD_C * np.sqrt(max(equal @ products @ equal, 0.0))

        def length(w: np.ndarray) -> float:
            return float(np.sqrt(max(w @ products @ w, 0.0) + 1e-12))

        def slope(w: np.ndarray) -> np.ndarray:
            return products @ equal + radius * (products @ w) / length(w)

        found = scipy.optimize.minimize(  # which scipy imports now, not before
            lambda w: float(w @ products @ equal + radius * length(w)),
            equal,
            jac=slope,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * count,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
            options={"ftol": 1e-9, "maxiter": 100},
        )
        w = found.x.clip(0.0, 1.0)
        w /= w.sum()
        return (equal + radius / length(w) * w) / (1 + CAGRAD_C)
