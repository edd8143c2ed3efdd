"""A frozen backbone: no gradients, and no statistics that move, while its adapter trains."""

from torch import nn


class Frozen:
    """Holds every parameter and the mode of a module, but for those of ``adapter``.

    All frozen parts are in eval: a batch norm would go on counting otherwise, and the backbone would
    be another one after training. `release` gives parameters and modes back as they were.
    """

    def __init__(self, module: nn.Module, adapter: nn.Module) -> None:
        own = {id(part) for part in adapter.modules()}
        own_parameters = {id(parameter) for parameter in adapter.parameters()}
        self._adapter = adapter
        self._parts = [part for part in module.modules() if id(part) not in own]
        self._trained = [
            parameter
            for parameter in module.parameters()
            if parameter.requires_grad and id(parameter) not in own_parameters
        ]
        self._switched: dict[int, nn.Module] = {}
        for parameter in self._trained:
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimiser would go on with a gradient that is left
        self.hold()

    def hold(self) -> None:
        """Put the parts into eval that were switched to training."""
        for part in self._parts:
            if part.training:
                self._switched[id(part)] = part
                part.training = False

    def release(self) -> None:
        """Let gradients through again; parts go back to the mode that the adapter is in."""
        for parameter in self._trained:
            parameter.requires_grad_(True)
        for part in self._switched.values():
            part.training = self._adapter.training
