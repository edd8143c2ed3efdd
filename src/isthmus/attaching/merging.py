"""An adapter that is one matrix for a domain becomes a part of the weights: it costs nothing then.

Whatever stands at a Linear, Linear and cell together may be a linear function of what goes in, for
the rows of one domain: ``x M + c``. Whether they are is found by arithmetic: M and c are read off a
few rows, and other rows must agree.
"""

import copy

import torch
from torch import Tensor, nn

from isthmus.adapters.adapter import AbstractAdapter
from isthmus.attaching.attachment import Attachment
from isthmus.attaching.current import no_condition
from isthmus.attaching.picked import Place
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site

TOLERANCE = 1e-6  # apart by so much of a row's largest output, in float64: not linear
SCALES = (0.1, 1.0, 10.0, 100.0)
PROBES = 4  # of each scale


@torch.no_grad()
def merge_adapters(attachment: Attachment, *, domain: int) -> nn.Module:
    """Put what the adapter does to rows of ``domain`` into the module's weights, and detach.

    ``domain``: 0 the unknown, 1..n_domains. The module then gives, without adapter and for whatever
    row, what it gave in eval for rows of ``domain``, equal to rounding. A Linear without a bias gets
    one where the adapter adds to it. Copy the attachment first (`copy.deepcopy`) to merge several
    domains. Returns the module.

    Raises ``ValueError``, and changes nothing, where the arithmetic does not allow a merge: for an
    adapter that reads a condition of each row, a cell that is not linear, a place that is not behind
    a Linear, and a weight that another module reads too.
    """
    module = attachment.module
    if not attachment.attached:
        raise ValueError("the adapter must be attached, got a merge after detach")
    if not 0 <= domain <= attachment.n_domains:
        raise ValueError(f"domain must lie in 0..{attachment.n_domains}, got {domain}")
    adapter = copy.deepcopy(attachment.adapter).double().eval()
    merged = [
        (linear, *_merged(adapter, linear, place, site, domain))
        for place, site in attachment.sites.items()
        for linear in [_linear(module, place)]
    ]
    attachment.detach()
    for linear, weight, bias in merged:
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(bias)
        elif bool((bias != 0).any()):
            linear.bias = nn.Parameter(bias.to(linear.weight.dtype))
    return module


def _linear(module: nn.Module, place: Place) -> nn.Linear:
    """The Linear at ``place``, whose weights are its own."""
    linear = module.get_submodule(place.name)
    if not isinstance(linear, nn.Linear) or place.key is not None:
        kind = type(linear).__name__
        raise ValueError(f"'{place}' must be a Linear for a merge into weights, got {kind}")
    for parameter in linear.parameters(recurse=False):
        readers = [
            name
            for name, part in module.named_modules()
            if any(own is parameter for own in part.parameters(recurse=False))
        ]
        if len(readers) > 1:
            raise ValueError(f"the weight of '{place}' must be its own, got one of {readers}")
    return linear


def _merged(
    adapter: AbstractAdapter, linear: nn.Linear, place: Place, site: Site, domain: int
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a Linear with the adapter in it, in float64."""
    weight = linear.weight.double()
    width = linear.in_features
    generator = torch.Generator().manual_seed(0)
    probes = [scale * torch.randn(PROBES, width, generator=generator) for scale in SCALES]
    x = torch.cat([torch.zeros(1, width), torch.eye(width), *probes]).to(weight)
    y = nn.functional.linear(x, weight, None if linear.bias is None else linear.bias.double())
    routing = Routing(torch.full((len(x),), domain, device=x.device), adapter.spec.n_domains)
    try:
        state = adapter.prepare(no_condition(routing).to(x), routing)
    except RuntimeError as fault:
        raise ValueError(
            f"the adapter must be the same for all rows of a domain, and"
            f" {type(adapter).__name__} reads a condition of each row"
        ) from fault
    if adapter.linears:
        assert isinstance(site, int)
        y = adapter.meet(site, x, y, state)
    else:
        y = adapter(site, y, state)
    offset, matrix = y[0], y[1 : width + 1] - y[0]
    found, expected = y[width + 1 :], x[width + 1 :] @ matrix + offset
    largest = expected.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    # Not "apart > TOLERANCE": what is not a number is not linear either.
    if not bool(((found - expected).abs() <= TOLERANCE * largest).all()):
        raise ValueError(f"the cell at '{place}' must be linear for a merge, and is not")
    return matrix.t(), offset
