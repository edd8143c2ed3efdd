"""What processes with tables by TorchRec do in test_torchrec.py."""

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from isthmus import checkpoint
from isthmus.layers.tables import tables_of
from isthmus.sharding import (
    RowWiseTable,
    TablesEngine,
    TorchRecTable,
    boxes_of,
    boxes_of_state,
    save_whole,
    shard_tables,
)
from isthmus.sharding.torchrec_table import can_hold
from sharded_scenarios import SAVED_AFTER, Net, state_of, train

SIZES = {"a": (11, 8), "b": (6, 8), "c": (3, 2)}  # fbgemm cannot hold c
WAYS: tuple[TablesEngine, ...] = ("table_wise", "column_wise")


def network() -> Net:
    torch.manual_seed(0)
    return Net(SIZES)


def ways(world: int) -> list[TablesEngine]:
    return [way for way in WAYS if way != "row_wise" and can_hold(8, world, way)]


def run(group: dist.ProcessGroup, folder: Path) -> dict[str, Tensor]:
    warnings.simplefilter("ignore")
    found, world = {}, dist.get_world_size(group)
    for way in ways(world):
        for update in ("lazy", "dense"):
            model = network()
            shard_tables(model, group, engine=way)
            kinds = [type(table) for table in tables_of(model)]
            assert kinds == [TorchRecTable, RowWiseTable], kinds
            optimiser, told = train(
                model, update=update, clip=0.3, group=group, steps=range(SAVED_AFTER)
            )
            boxes = boxes_of_state(model, optimiser)
            state = state_of(model, optimiser)
            checkpoint.save(folder / f"{way}-{update}-{world}", state, boxes=boxes, group=group)
            more = range(SAVED_AFTER, 5)
            _, later = train(
                model, clip=0.3, group=group, steps=more, optimiser=optimiser, update=update
            )
            found |= {
                f"{way}/{update}/{name}": tensor for name, tensor in {**told, **later}.items()
            }
            file = folder / f"{way}-{update}-{world}.safetensors"
            save_whole(file, model.state_dict(), boxes_of(model), group)
    return found
