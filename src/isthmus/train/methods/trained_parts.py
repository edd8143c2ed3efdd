"""Parts of a network by name, and training some of them while the others stand still.

A part is named by the beginning of its parameters' names, whole words of it: ``adapter`` holds
``adapter.cells.0.bias``, and ``adapter.cells`` holds it too. ``domains`` holds every parameter that the
model declares as its domains' own.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence

from torch import nn

from isthmus.errors import ConfigError
from isthmus.layers.per_domain import domain_parameters
from isthmus.models import AbstractModel

DOMAINS = "domains"


class TrainedParts:
    """The parameters of a model that a training may move, and which of them move now.

    ``named``: by name; a parameter that the caller has frozen is not among them and stays frozen.
    ``own``: the names of those that belong to domains.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named: Mapping[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        declared = (
            model.domain_parameters()
            if isinstance(model, AbstractModel)
            else domain_parameters(model)
        )
        held = {id(parameter) for parameter in declared.values()}
        self.own = frozenset(name for name, p in self.named.items() if id(p) in held)

    def chosen(self, parts: Sequence[str], key: str) -> frozenset[str]:
        """Names of the parameters in the parts. ``key``: of the config, for the error.

        Raises ConfigError for a part that holds none.
        """
        found: set[str] = set()
        for part in parts:
            names = self.own if part == DOMAINS else self._within(part)
            if not names:
                raise ConfigError(f"{key} must name parts of the network, {self._known(part)}")
            found |= names
        return frozenset(found)

    def only(self, chosen: Collection[str], *, moving: bool = True) -> None:
        """Train the chosen parameters; the others have no gradient.

        A module that learns something by itself while it is used, such as a norm with running
        statistics, runs as in eval where none of its parameters is trained, or none of the module around
        it that has some. ``moving`` false: all such modules run as in eval.
        """
        for name, parameter in self.named.items():
            parameter.requires_grad_(name in chosen)
            parameter.grad = None
        self.model.train()
        for name, part in self.model.named_modules():
            if next(part.buffers(recurse=False), None) is None:
                continue
            if not moving or not (self._around(name) & set(chosen)):
                part.training = False  # the module alone: dropout within stays as it is

    def release(self) -> None:
        """Leave the model as the caller gave it: what may be trained can be trained again."""
        for parameter in self.named.values():
            parameter.requires_grad_(True)

    def _within(self, part: str) -> set[str]:
        return {name for name in self.named if f"{name}.".startswith(f"{part}.")}

    def _around(self, module: str) -> set[str]:
        """Names of the parameters in a module, or in the nearest one around it that has some."""
        every = [name for name, _ in self.model.named_parameters()]
        while module:
            if names := {name for name in every if name.startswith(f"{module}.")}:
                return names
            module = module.rpartition(".")[0]
        return set(every)

    def _known(self, part: str) -> str:
        top = dict.fromkeys(name.partition(".")[0] for name in self.named)
        known = [*top, DOMAINS] if self.own else [*top]
        inner = {name[:end] for name in self.named for end in _ends(name)}
        near = difflib.get_close_matches(part, [*known, *sorted(inner)], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{', '.join(known)}, got {part!r}{hint}"


def _ends(name: str) -> list[int]:
    """Where the words of a parameter's name end."""
    return [place for place, sign in enumerate(f"{name}.") if sign == "."]
