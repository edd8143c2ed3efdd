"""The adapter alone on disk: one small safetensors file, which knows the backbone it belongs to.

The file holds the adapter's tensors, where the adapter sits, and of every tensor of the backbone
name, shape and a checksum. An adapter that was trained on other weights would give other answers, so
it is refused.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from isthmus.attaching.attachment import CHILD, Attachment, widths_at
from isthmus.disk import write_whole, writing
from isthmus.errors import BundleError
from isthmus.version import VERSION

FORMAT = "1"
WHAT = "adapter file"


def save_adapters(attachment: Attachment, path: Path | str) -> None:
    """Write the adapter to ``path``, a safetensors file; the backbone is not in it.

    The backbone must have the same weights where the file is loaded: save the backbone too, unless it
    was frozen. Raises ``RunError`` where ``path`` cannot be written.
    """
    path = Path(path)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in attachment.adapter.state_dict().items()
    }
    told = {"isthmus_adapters": json.dumps(_told(attachment), separators=(",", ":"))}
    with writing(WHAT, path):
        write_whole(path, save(tensors, metadata=told))


def load_adapters(attachment: Attachment, path: Path | str) -> None:
    """Read the adapter's weights from ``path`` into the attached adapter.

    Raises ``BundleError``, and loads nothing, for a file that is none, for an adapter of another kind
    or at other places, for a width or a number of domains that differs, and for a backbone with other
    tensors or other weights. The text names the first thing that differs.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("isthmus_adapters")
        tensors = load_file(path)
    except (OSError, SafetensorError) as fault:
        raise BundleError(f"{path} must be an adapter file: {fault}") from fault
    if text is None:
        raise BundleError(f"{path} must be an adapter file, written by save_adapters")
    try:
        held = json.loads(text)
    except ValueError as fault:
        raise BundleError(f"{path} must be an adapter file: {fault}") from fault
    own = _told(attachment)
    if held.get("format") != FORMAT:
        raise BundleError(
            f"{path} must have format {FORMAT}, got {held.get('format')}"
            f" (written by isthmus {held.get('isthmus')})"
        )
    fault = _difference(held, own) or _other_shape(tensors, attachment.adapter)
    if fault:
        raise BundleError(f"{path} does not fit: {fault}")
    attachment.adapter.load_state_dict(tensors)


def _told(attachment: Attachment) -> dict[str, Any]:
    adapter = attachment.adapter
    return {
        "format": FORMAT,
        "isthmus": VERSION,
        "adapter": type(adapter).__name__,
        "n_domains": attachment.n_domains,
        "places": {
            str(place): [site, *widths_at(adapter, site)]
            for place, site in attachment.sites.items()
        },
        "backbone": {
            name: [list(tensor.shape), _checksum(tensor)]
            for name, tensor in _backbone(attachment.module)
        },
    }


def _backbone(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the module but those of adapters, also of adapters further inside."""
    for name, tensor in module.state_dict().items():
        if CHILD not in name.split("."):
            yield name, tensor


def _checksum(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{zlib.crc32(raw.data):08x}"


def _difference(held: dict[str, Any], own: dict[str, Any]) -> str:
    """The first thing in which the file and the attachment differ, in words; else empty."""
    for key, words in (("adapter", "the adapter"), ("n_domains", "the number of domains")):
        if held[key] != own[key]:
            return f"{words} must be {held[key]} as in the file, got {own[key]}"
    if held["places"] != own["places"]:
        for place, cell in held["places"].items():
            found = own["places"].get(place)
            if found is None:
                places = ", ".join(own["places"])
                return f"an adapter must sit behind {place!r} as in the file, got {places}"
            if found != cell:
                return f"{place!r} must be {_cell(cell)} as in the file, got {_cell(found)}"
        return f"the file has adapters at {', '.join(held['places'])} alone"
    for name, (shape, checksum) in held["backbone"].items():
        found = own["backbone"].get(name)
        if found is None:
            return f"the backbone must have a tensor {name!r}, got none"
        if found[0] != shape:
            return f"{name!r} of the backbone must be {tuple(shape)}, got {tuple(found[0])}"
        if found[1] != checksum:
            return f"the backbone must have the weights it was saved with, and {name!r} differs"
    more = [name for name in own["backbone"] if name not in held["backbone"]]
    return f"the backbone must have no tensor {more[0]!r}, got one" if more else ""


def _cell(cell: list[Any]) -> str:
    site, *widths = cell
    if len(widths) == 1:
        return f"site {site} of width {widths[0]}"
    return f"Linear {site} of {widths[0]} x {widths[1]}"


def _other_shape(tensors: dict[str, Tensor], adapter: nn.Module) -> str:
    own = adapter.state_dict()
    for name in sorted(tensors.keys() | own.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (tensors, own)]
        if shapes[0] != shapes[1]:
            return f"{name!r} of the adapter must be {shapes[0]} as in the file, got {shapes[1]}"
    return ""
