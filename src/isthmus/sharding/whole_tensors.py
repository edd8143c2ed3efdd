"""One file of whole tensors from parts on many processes, of which no process has to hold one whole."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from isthmus.disk import whole_file
from isthmus.errors import RunError
from isthmus.layers.tables import Box
from isthmus.sharding.boxes import box_from_plain, box_to_plain, common_rows
from isthmus.sharding.exchange import gather_plain, group_device
from isthmus.sharding.shard_files import PIECE_ROWS, HeldPart

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_whole(
    path: Path,
    tensors: Mapping[str, Tensor],
    boxes: Mapping[str, Box],
    group: dist.ProcessGroup,
) -> None:
    """Write ``tensors`` as one safetensors file of whole tensors, by the group's first process.

    ``boxes``: which part of a whole a tensor is, for each that is not whole. The parts come to the
    first process in pieces, and go straight into the file: see `whole_pieces`. The other tensors are
    those of the first process. Every process calls, with the same names. Raises RunError on all of
    them where the file cannot be written; ``path`` then holds what it held.
    """
    # As the library does: the widest numbers first, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    contents = _contents({name: tensors[name] for name in names}, boxes, group)
    fault: str | None = None
    if dist.get_rank(group) == 0:
        try:
            with whole_file(path) as temporary, temporary.open("wb") as file:
                file.write(_header({name: tensors[name] for name in names}, boxes))
                for content in contents:
                    assert content is not None
                    file.write(content.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            fault = str(error)
    for _ in contents:  # the others wait until every piece is taken, also when the writer gave up
        pass
    told = gather_plain(fault, group)[0]
    if told is not None:
        raise RunError(f"a file of whole tensors must be writable at {path}, got: {told}")


def whole_pieces(
    part: HeldPart, group: dist.ProcessGroup, rows: int = PIECE_ROWS
) -> Iterator[Tensor | None]:
    """Give a whole tensor on the group's first process, ``rows`` rows at a time; None on the others.

    Every process calls, and takes every piece. The pieces are on the CPU. A piece is all that is in
    memory beside the parts.
    """
    boxes = [box_from_plain(box) for box in gather_plain(box_to_plain(part.box), group)]
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    device, shape = group_device(group), part.box.shape
    for start in range(0, shape[0], rows):
        piece = range(start, min(start + rows, shape[0]))
        inside = [Box(shape, common_rows(piece, box.rows), box.columns) for box in boxes]
        sizes = [math.prod(box.part_shape) if rank == 0 else 0 for box in inside]
        own = inside[rank].rows
        first = part.box.rows.index(own[0]) if len(own) else 0
        given = part.tensor.detach()[first : first + len(own)].reshape(-1).to(device)
        taken = given.new_empty(sum(sizes))
        sent = [len(given), *[0] * (world - 1)]
        dist.all_to_all_single(taken, given, sizes, sent, group=group)
        if rank:
            yield None
            continue
        whole = torch.empty(len(piece), *shape[1:], dtype=given.dtype)
        for box, values in zip(inside, taken.cpu().split(sizes), strict=True):
            at = range(box.rows.start - start, box.rows.stop - start, box.rows.step)
            if len(at):
                Box(tuple(whole.shape), at, box.columns).of(whole).copy_(
                    values.view(box.part_shape)
                )
        yield whole


def _contents(
    tensors: Mapping[str, Tensor], boxes: Mapping[str, Box], group: dist.ProcessGroup
) -> Iterator[Tensor | None]:
    """The numbers of the file, piece after piece; None on all processes but the first."""
    for name, tensor in tensors.items():
        if name in boxes:
            yield from whole_pieces(HeldPart(tensor, boxes[name]), group)
        elif dist.get_rank(group) == 0:
            yield tensor.detach().cpu()


def _header(tensors: Mapping[str, Tensor], boxes: Mapping[str, Box]) -> bytes:
    """The beginning of a safetensors file: names, types, shapes, and where the numbers lie."""
    entries, start = {}, 0
    for name, tensor in tensors.items():
        shape = boxes[name].shape if name in boxes else tuple(tensor.shape)
        stop = start + math.prod(shape) * tensor.element_size()
        entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": shape,
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
