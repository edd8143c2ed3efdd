"""A network that was built anew for fewer rows, with the weights that stay."""

from collections.abc import Mapping

from torch import Tensor

from isthmus.errors import BundleError
from isthmus.models import AbstractModel


def refilled(fresh: AbstractModel, weights: Mapping[str, Tensor], rule: str) -> AbstractModel:
    """Give ``fresh`` with ``weights``, ready to score.

    ``rule``: of the fault, which goes on with the name of a weight. Raises BundleError where a weight
    does not have the shape that ``fresh`` has.
    """
    for name, tensor in fresh.state_dict().items():
        if weights[name].shape != tensor.shape:
            raise BundleError(rule.format(name=repr(name)))
    fresh.load_state_dict(dict(weights))
    return fresh.eval()
