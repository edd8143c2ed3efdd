"""Tensors of which each process holds a part, in files that any number of processes reads back.

    FOLDER/shard-<random>-<rank>.safetensors    the parts of one process

`write_shards` gives an index: plain values that say which part of which whole lies in which file, with
a sha256 of each file. Whoever keeps a training's state writes the index last, into its own JSON; so the
files count from that moment on, and never by halves. Reading takes slices, of the files that hold what
is wanted: a process needs memory for its own part only. No pickle: the files of
``torch.distributed.checkpoint`` name their parts in a pickle, and so are not used.
"""

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch import distributed as dist

from isthmus.disk import sha256, whole_file
from isthmus.errors import BundleError, RunError
from isthmus.layers.tables import Box
from isthmus.sharding.boxes import box_from_plain, box_to_plain, common_part, common_rows
from isthmus.sharding.exchange import gather_plain

FORMAT = 1
PIECE_ROWS = 2**16  # rows that pass through memory at once


@dataclass(frozen=True, slots=True)
class HeldPart:
    """What one process holds of a whole tensor: ``tensor`` is the part that ``box`` names."""

    tensor: Tensor
    box: Box


def write_shards(
    folder: Path, parts: Mapping[str, HeldPart], group: dist.ProcessGroup
) -> dict[str, Any]:
    """Write this process's parts into ``folder``, which exists; give the index of all processes' files.

    Every process of the group calls, with the same names. Raises RunError on all of them, naming the
    process and its fault, where one cannot write.
    """
    token = gather_plain(uuid.uuid4().hex, group)[0]
    file = folder / f"shard-{token}-{dist.get_rank(group)}.safetensors"
    boxes = {name: box_to_plain(part.box) for name, part in parts.items()}
    told: dict[str, Any] = {"file": file.name, "parts": boxes, "fault": None}
    try:
        tensors = {name: part.tensor.detach().contiguous() for name, part in parts.items()}
        with whole_file(file) as temporary:
            save_file(tensors, temporary)
        told["sha256"] = sha256(file)
    except (OSError, SafetensorError) as fault:
        told["fault"] = str(fault)
    files = gather_plain(told, group)
    for rank, one in enumerate(files):
        if one["fault"] is not None:
            raise RunError(
                f"every process must be able to write its part into {folder}, but process {rank}"
                f" got: {one['fault']}"
            )
    return {
        "format": FORMAT,
        "files": [{k: v for k, v in f.items() if k != "fault"} for f in files],
    }


def shard_names(index: Mapping[str, Any]) -> set[str]:
    """The files that an index needs."""
    return {one["file"] for one in index["files"]}


def _whole_shapes(index: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every whole tensor that an index knows."""
    return {
        name: tuple(box["shape"]) for one in index["files"] for name, box in one["parts"].items()
    }


def read_shards(
    folder: Path, index: Mapping[str, Any], boxes: Mapping[str, Box]
) -> dict[str, Tensor]:
    """Read every tensor of an index, however it is spread over files. The tensors are on the CPU.

    ``boxes``: which part of a tensor to read; what ``boxes`` does not name is read whole. Raises
    BundleError, naming the file, where a file is missing or damaged, where a tensor has another shape
    than its box, or where the files do not hold all that is asked for.
    """
    if index["format"] != FORMAT:
        raise BundleError(f"shards must have format {FORMAT}, got {index['format']} in {folder}")
    shapes = _whole_shapes(index)
    boxes = {
        name: boxes.get(name, Box(shape, range(shape[0]), range(shape[-1])))
        for name, shape in shapes.items()
    }
    for name, box in boxes.items():
        if shapes[name] != box.shape:
            raise BundleError(
                f"shards must hold {name} with shape {box.shape}, got {shapes[name]} in {folder}"
            )
    found: dict[str, Tensor] = {}
    filled = dict.fromkeys(boxes, 0)
    for one in index["files"]:
        held = {name: box_from_plain(box) for name, box in one["parts"].items()}
        common = {name: common_part(box, boxes[name]) for name, box in held.items()}
        wanted = {name: box for name, box in common.items() if math.prod(box.part_shape)}
        if wanted:
            for name, count in _read_file(folder / one["file"], one, boxes, wanted, found).items():
                filled[name] += count
    for name, box in boxes.items():
        if filled[name] != math.prod(box.part_shape):
            raise BundleError(f"shards must hold all of {name}, but some is missing in {folder}")
        found.setdefault(name, torch.zeros(box.part_shape))
    return found


def _read_file(
    file: Path,
    entry: Mapping[str, Any],
    boxes: Mapping[str, Box],
    wanted: Mapping[str, Box],
    found: dict[str, Tensor],
) -> dict[str, int]:
    """Copy what one file holds of the wanted parts into ``found``; give how many numbers of each."""
    filled = {}
    try:
        if sha256(file) != entry["sha256"]:
            raise BundleError(f"the checksum of shards must match, but {file} is damaged")
        with safe_open(file, framework="pt") as opened:
            for name, box in wanted.items():
                held = box_from_plain(entry["parts"][name])
                kept = opened.get_slice(name)
                filled[name] = 0
                for rows in _pieces(held, box):
                    piece = kept[rows.start : rows.stop]
                    if name not in found:
                        found[name] = piece.new_zeros(boxes[name].part_shape)
                    filled[name] += _copy(piece, rows, held, box, boxes[name], found[name])
    except FileNotFoundError as fault:
        raise BundleError(f"shards must be complete, but {file} is missing") from fault
    except (OSError, SafetensorError) as fault:
        raise BundleError(f"shards must be readable, but {file} is damaged") from fault
    return filled


def _pieces(held: Box, box: Box) -> Iterator[range]:
    """Rows of a held part, a bounded number at a time, that hold all rows of ``box``."""
    first, last = held.rows.index(box.rows[0]), held.rows.index(box.rows[-1])
    for start in range(first, last + 1, PIECE_ROWS):
        yield range(start, min(start + PIECE_ROWS, last + 1))


def _copy(piece: Tensor, rows: range, held: Box, box: Box, target: Box, found: Tensor) -> int:
    """Copy the rows and columns of ``box`` from a piece of a held part to their places in ``found``."""
    inside = common_rows(held.rows[rows.start : rows.stop], box.rows)
    if not len(inside):
        return 0
    start, last = (held.rows.index(inside[i]) - rows.start for i in (0, -1))
    step = inside.step // held.rows.step if len(inside) > 1 else 1
    at, to = (target.rows.index(inside[i]) for i in (0, -1))
    stride = inside.step // target.rows.step if len(inside) > 1 else 1
    from_column = box.columns.start - held.columns.start
    to_column = box.columns.start - target.columns.start
    width = len(box.columns)
    given = piece[start : last + 1 : step][..., from_column : from_column + width]
    found[at : to + 1 : stride][..., to_column : to_column + width] = given
    return given.numel()
