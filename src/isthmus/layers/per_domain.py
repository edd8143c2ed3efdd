"""Which tensors of a network belong to domains: each layer says so of its own.

A layer that keeps one set per domain, and one for the unknown domain, names those parameters and
buffers in ``per_domain``. The first axis of such a tensor has ``n_domains + 1`` places. Nobody guesses
by shapes: a shared weight of (4, 1) has the shape of a bank of three domains.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def domain_tensors(module: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and buffers in ``module`` that belong to domains, by their names in it.

    A parameter that is None (a bias that was left out) is no tensor and is passed over.
    """
    return dict(_declared(module))


def domain_parameters(module: nn.Module) -> Mapping[str, nn.Parameter]:
    """The parameters among `domain_tensors`."""
    return {name: t for name, t in _declared(module) if isinstance(t, nn.Parameter)}


def undeclare(module: nn.Module) -> None:
    """Let no tensor in ``module`` belong to domains: its sets are of something else, as of clusters."""
    for part in module.modules():
        vars(part)["per_domain"] = ()


def _declared(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, part in module.named_modules():
        for name in getattr(part, "per_domain", ()):
            tensor = getattr(part, name)
            if tensor is not None:
                yield (f"{prefix}.{name}" if prefix else name), tensor
