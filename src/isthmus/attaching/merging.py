"""An adapter that is one matrix for a domain becomes a part of the weights: it costs nothing then.

Behind a Linear ``y = W x + b``, a cell that says ``y M + c`` to every row of a domain is the Linear
``(M^T W) x + (b M + c)``. Whether a cell is of that kind is found by arithmetic: M and c are read off
a few rows, and other rows must agree.
"""

import torch
from torch import Tensor, nn

from isthmus.attaching.attachment import Attachment
from isthmus.attaching.picked import Place
from isthmus.layers.routing import Routing
from isthmus.layers.sites import Site

TOLERANCE = 1e-4  # apart by so much of the largest output: a cell is not linear
PROBES = 8


@torch.no_grad()
def merge(attachment: Attachment, *, domain: int) -> nn.Module:
    """Put what the adapter does to rows of ``domain`` into the module's weights, and detach.

    ``domain``: 0 the unknown, 1..n_domains. The module then gives, without adapter and for whatever
    row, what it gave in eval for rows of ``domain``, equal to rounding. A Linear without a bias gets
    one where the cell adds to it. Copy the module first (`copy.deepcopy`) to merge several domains.

    Raises ``ValueError``, and changes nothing, where the arithmetic does not allow a merge: for an
    adapter that reads a condition of each row, a cell that is not linear, a place that is not behind
    a Linear, and a weight that another module reads too.
    """
    adapter, module = attachment.adapter, attachment.module
    if not attachment.attached:
        raise ValueError("the adapter must be attached, got a merge after detach")
    if not 0 <= domain <= attachment.n_domains:
        raise ValueError(f"domain must lie in 0..{attachment.n_domains}, got {domain}")
    modes = {part: part.training for part in adapter.modules()}
    adapter.eval()
    try:
        merged = {
            place: _merged(attachment, place, site, domain)
            for place, site in attachment.sites.items()
        }
    finally:
        for part, training in modes.items():
            part.training = training
    attachment.detach()
    for place, (weight, bias) in merged.items():
        linear = module.get_submodule(place.name)
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(bias)
        elif bool((bias != 0).any()):
            linear.bias = nn.Parameter(bias.to(linear.weight.dtype))
    return module


def _merged(attachment: Attachment, place: Place, site: Site, domain: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the Linear at ``place`` with the adapter in it."""
    module = attachment.module
    linear = module.get_submodule(place.name)
    if not isinstance(linear, nn.Linear) or place.key is not None:
        kind = type(linear).__name__
        raise ValueError(f"'{place}' must be a Linear for a merge into weights, got {kind}")
    readers = [
        name
        for name, part in module.named_modules()
        if any(parameter is linear.weight for parameter in part.parameters(recurse=False))
    ]
    if len(readers) > 1:
        raise ValueError(f"the weight of '{place}' must be its own, got one of {readers}")
    matrix, offset = _as_matrix(attachment, place, site, domain)
    weight = linear.weight.double()
    bias = torch.zeros_like(offset) if linear.bias is None else linear.bias.double() @ matrix
    return matrix.t() @ weight, bias + offset


def _as_matrix(
    attachment: Attachment, place: Place, site: Site, domain: int
) -> tuple[Tensor, Tensor]:
    """The cell of a site as ``h M + c`` for rows of ``domain``, in float64."""
    adapter = attachment.adapter
    width = adapter.spec.width(site)
    like = next(adapter.parameters())
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, width, generator=generator)
    h = torch.cat([torch.zeros(1, width), torch.eye(width), probes]).to(like)
    routing = Routing(torch.full((len(h),), domain, device=like.device), attachment.n_domains)
    try:
        state = adapter.prepare(h.new_zeros(len(h), 0), routing)
    except RuntimeError as fault:
        raise ValueError(
            f"the adapter must be the same for all rows of a domain, and"
            f" {type(adapter).__name__} reads a condition of each row"
        ) from fault
    y = adapter(site, h, state).double()
    offset, matrix = y[0], y[1 : width + 1] - y[0]
    expected = h[width + 1 :].double() @ matrix + offset
    apart = float((y[width + 1 :] - expected).abs().max())
    if not apart <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ValueError(f"the cell at '{place}' must be linear for a merge, and is not")
    return matrix, offset
