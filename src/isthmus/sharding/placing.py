"""Which tables of a model lie on several processes, and putting them there."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from torch import distributed as dist
from torch import nn

from isthmus.layers.tables import AbstractTable, Box, FusedTable, logical_tables, stored_as
from isthmus.optimisers import ModelOptimiser
from isthmus.sharding.row_wise import RowWiseTable
from isthmus.sharding.torchrec_table import TorchRecTable, can_hold, check_torchrec

TablesChoice = Literal["replicated", "sharded", "auto"]
"""Where embedding tables lie: on every process, in parts, or in parts where they are large."""
TablesEngine = Literal["row_wise", "table_wise", "column_wise"]
"""How tables are cut: own rows of each process, or TorchRec's tables or columns."""

SHARD_ABOVE_BYTES = 2**32  # of weights and both moments, as float32
BYTES_OF_A_WEIGHT = 12


def resolve_tables(
    choice: TablesChoice, *, weights: int, world: int
) -> Literal["replicated", "sharded"]:
    """Resolve ``auto``: sharded on several processes where weights and moments take above 4 GiB.

    ``weights``: numbers in all tables together. One process holds all of them, whatever is chosen.
    The answer depends on no machine, so every process gives the same.
    """
    if world == 1:
        return "replicated"
    if choice != "auto":
        return choice
    large = weights * BYTES_OF_A_WEIGHT > SHARD_ABOVE_BYTES
    return "sharded" if large else "replicated"


def shard_tables(
    model: nn.Module, group: dist.ProcessGroup | None, *, engine: TablesEngine = "row_wise"
) -> None:
    """Deal every plain table in ``model`` to the processes of ``group``, in place.

    Call it before the optimiser is built, with the same model on every process. ``None``: one
    process, and nothing to do. A model that is too large for one process is built in `dealt_start`.
    ``engine``: ``row_wise`` is `RowWiseTable`; ``table_wise`` and ``column_wise`` are `TorchRecTable`,
    for storages of a width that it can hold, and `RowWiseTable` for the others. Raises ConfigError
    where TorchRec is asked for and absent, broken, or in a clash.
    """
    if group is None:
        return
    if engine != "row_wise":
        check_torchrec()
    world = dist.get_world_size(group)
    dealt: dict[int, AbstractTable] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedTable):
                if id(child) not in dealt:
                    if engine != "row_wise" and can_hold(child.dim, world, engine):
                        dealt[id(child)] = TorchRecTable(child, group=group, way=engine)
                    else:
                        dealt[id(child)] = RowWiseTable.of(child, group)
                parent.add_module(name, dealt[id(child)])


@contextmanager
def dealt_start(group: dist.ProcessGroup | None) -> Iterator[None]:
    """Let models that are built in the block hold, from the start, this process's rows only.

    Their weights are those of a model that one process builds with the same seed, to the bit.
    """
    if group is None:
        yield
        return
    with stored_as(partial(RowWiseTable, group=group)):
        yield


def boxes_of(model: nn.Module) -> dict[str, Box]:
    """Which part of a whole a tensor of ``model.state_dict()`` is, for each that is not whole."""
    return {
        name: store.box(table)
        for name, (store, table) in logical_tables(model).items()
        if store.sharded
    }


def boxes_of_state(model: nn.Module, optimiser: ModelOptimiser) -> dict[str, Box]:
    """The same for the tensors of a training state: weights, best weights, and moments."""
    weights = boxes_of(model)
    return {
        **{f"{field}.{name}": box for field in ("model", "best") for name, box in weights.items()},
        **{f"optimiser.{name}": box for name, box in optimiser.boxes().items()},
    }
