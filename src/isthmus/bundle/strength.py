"""A trained model with its adapter turned down, for scoring."""

from copy import deepcopy
from itertools import chain
from math import isfinite

from isthmus.errors import BundleError
from isthmus.models import AbstractModel, DomainModel


def has_strength(model: AbstractModel) -> bool:
    """Whether the model wears an adapter that can be turned down."""
    adapter = model.adapter if isinstance(model, DomainModel) else None
    return adapter is not None and adapter.strength is not None


def check_strength(strength: float) -> None:
    """Raise BundleError unless ``strength`` is a finite number of 0 or more."""
    if not (isfinite(strength) and strength >= 0):
        raise BundleError(f"strength must be a finite number of 0 or more, got {strength}")


def turned(model: AbstractModel, strength: float) -> AbstractModel:
    """The same model, its tensors shared, with its adapter at ``strength``: 1 as trained, 0 without it.

    A model whose adapter cannot be turned down, or that has none, is given back as it is.
    """
    if not has_strength(model):
        return model
    # A copy, because other threads may score with the model as it is; its tensors are not copied.
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    copied = deepcopy(model, shared)
    assert isinstance(copied, DomainModel)
    assert copied.adapter is not None
    copied.adapter.strength = float(strength)
    return copied
