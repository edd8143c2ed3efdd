"""Where in a network an adapter can sit, and why not elsewhere.

The width of what a submodule returns is read off its type. An example input, where there is one, is
run through the network once and shows the widths of all submodules, how often each one runs, and
what it returns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attaching.attachment import CHILD
from isthmus.attaching.picked import Key, Place, picked

# An activation keeps the width of what it gets, and so do these.
KEEPING = (nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity, nn.Softmax)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
ENCODER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
NO_LINEAR = "it is no Linear, and the adapter changes what a Linear gives"
REMEDY = "give an example input"
UNKNOWN = f"its width is not known before it runs: {REMEDY}"


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """The submodules by name, in the module's own order, without those of adapters."""
    return {
        name: part for name, part in module.named_modules() if name and CHILD not in name.split(".")
    }


@dataclass(frozen=True, slots=True)
class FoundSite:
    """One submodule of a network: whether an adapter can sit behind it.

    ``width``: of the hidden states that it returns; None where that is not known. ``why``: why no
    adapter can sit there, or none does; empty where one can.
    """

    place: Place
    kind: str
    width: int | None
    why: str

    def __str__(self) -> str:
        width = "" if self.width is None else f", width {self.width}"
        return f"{self.place} ({self.kind}{width})" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class FoundSites:
    """The submodules of a network where an adapter can sit (`attach`: will sit), and the others."""

    fitting: tuple[FoundSite, ...]
    others: tuple[FoundSite, ...]

    def __str__(self) -> str:
        lines = ["sites:", *(f"  {site}" for site in self.fitting), "not:"]
        return "\n".join([*lines, *(f"  {site}" for site in self.others)])


def sites_of(module: nn.Module, *inputs: Any, **named: Any) -> FoundSites:
    """Say behind which submodules of a network an adapter can sit, and why not behind the others.

    ``inputs`` and ``named``: an example of what the module is called with. It is run through the
    module once, in eval and without gradients. Without an example the types of submodules alone tell.

    >>> print(sites_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU())))
    sites:
      0 (Linear, width 8)
      1 (ReLU, width 8)
    not:
    """
    return survey(module, try_out(module, inputs, named))


@dataclass(frozen=True, slots=True)
class Tried:
    """What every submodule returned, each time it ran, when a network was given ``rows`` rows."""

    rows: int | None
    outputs: dict[str, list[Any]]


def survey(
    module: nn.Module,
    tried: Tried | None,
    keys: Mapping[str, Key] | None = None,
    *,
    linears: bool = False,
) -> FoundSites:
    """What `sites_of` says, for an adapter at Linears too (``linears``).

    ``keys``: which tensor is meant of what a submodule returns.
    """
    found = list(_by_type(module, keys or {}, linears))
    if tried is not None:
        found = [_seen(site, tried.outputs[site.place.name], tried.rows) for site in found]
    return FoundSites(
        fitting=tuple(site for site in found if not site.why),
        others=tuple(site for site in found if site.why),
    )


def _by_type(module: nn.Module, keys: Mapping[str, Key], linears: bool) -> Iterator[FoundSite]:
    widths: dict[nn.Module, int | None] = {}
    _pass_widths(module, None, widths)
    parents = {id(part): parent for parent in module.modules() for part in parent.children()}
    for name, part in parts_of(module).items():
        parent = parents[id(part)]
        why = _hindrance(part, parent)
        if linears and not isinstance(part, nn.Linear):
            why = why or NO_LINEAR
        usual = 0 if isinstance(part, nn.RNNBase | nn.MultiheadAttention) else None
        key = keys.get(name, usual)
        width = widths[part] if key == usual else None
        if not why and width is None:
            why = UNKNOWN
        yield FoundSite(Place(name, key), type(part).__name__, width, why)


def _hindrance(part: nn.Module, parent: nn.Module) -> str:
    """Why no adapter can sit behind a part, as far as types tell; else empty."""
    if isinstance(part, CONTAINERS):
        return "it holds others and is not called"
    if isinstance(part, CONVOLUTIONS):
        return "channels come before steps: it gives no (rows, steps, width)"
    if isinstance(parent, nn.MultiheadAttention):
        return "its parent reads its weights without a call"
    attention = part if isinstance(part, nn.RNNBase | nn.MultiheadAttention) else None
    for layer in (part, parent):
        if isinstance(layer, ENCODER_LAYERS):
            attention = layer.self_attn
    if attention is not None and not attention.batch_first:
        return "steps come before rows: build it with batch_first=True"
    return ""


def _pass_widths(
    part: nn.Module, before: int | None, widths: dict[nn.Module, int | None]
) -> int | None:
    """Fill in the widths of a part and of all parts below; give the part's own."""
    chain = isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward
    width = before if chain else None
    for child in part.children():
        passed = _pass_widths(child, width, widths)
        width = passed if chain else None
    widths[part] = width if chain else _width_by_type(part, before)
    return widths[part]


def _width_by_type(part: nn.Module, before: int | None) -> int | None:
    if isinstance(part, nn.Linear | nn.Bilinear):
        return part.out_features
    if isinstance(part, nn.BatchNorm1d):
        return part.num_features
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return part.normalized_shape[-1]
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return part.embedding_dim
    if isinstance(part, nn.RNNBase):
        return (part.proj_size or part.hidden_size) * (2 if part.bidirectional else 1)
    if isinstance(part, nn.MultiheadAttention):
        return part.embed_dim
    if isinstance(part, ENCODER_LAYERS):
        return part.self_attn.embed_dim
    if isinstance(part, nn.TransformerEncoder | nn.TransformerDecoder):
        return _width_by_type(part.layers[-1], None)  # pyright: ignore[reportArgumentType]
    if isinstance(part, nn.GLU):
        return None
    if isinstance(part, KEEPING) or type(part).__module__ == "torch.nn.modules.activation":
        return before
    return None


def try_out(module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> Tried | None:
    """Run the module once, in eval and without gradients; None without inputs."""
    if not inputs and not named:
        return None
    outputs: dict[str, list[Any]] = {name: [] for name in parts_of(module)}

    def keep(name: str) -> Any:
        def hook(part: nn.Module, given: Any, output: Any) -> None:  # noqa: ARG001
            outputs[name].append(output)

        return hook

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in outputs]
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            module(*inputs, **named)
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return Tried(_rows([*inputs, *named.values()]), outputs)


def _rows(inputs: Sequence[Any]) -> int | None:
    """Rows of the first tensor among the inputs, also within a dict, tuple or list."""
    for value in inputs:
        if isinstance(value, Tensor) and value.ndim:
            return value.shape[0]
        if isinstance(value, Mapping | list | tuple):
            inner = list(value.values()) if isinstance(value, Mapping) else list(value)
            rows = _rows(inner)
            if rows is not None:
                return rows
    return None


def _seen(site: FoundSite, outputs: list[Any], rows: int | None) -> FoundSite:
    if len(outputs) != 1:
        times = "is not called" if not outputs else f"is called {len(outputs)} times"
        return replace(site, why=site.why if site.why not in ("", UNKNOWN) else times)
    if site.why not in ("", UNKNOWN):
        return site
    output = outputs[0]
    try:
        h = picked(output, site.place)
    except ValueError as fault:
        return replace(site, width=None, why=str(fault))
    if h.ndim not in (2, 3):
        return replace(site, why=f"it gives {tuple(h.shape)}, not (rows, width)")
    if rows is not None and h.shape[0] != rows:
        return replace(site, why=f"it gives {tuple(h.shape)} for {rows} rows")
    if not h.is_floating_point():
        return replace(site, why=f"it gives {h.dtype}, not floating point")
    return replace(site, width=h.shape[-1], why="")
