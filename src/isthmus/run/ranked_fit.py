"""What a fit by several processes needs beside a fit: one start, one dataset, one writer.

Every rank runs the whole of `isthmus.fit`. The ranks share out the encoding of a table, train and score.
Rank 0 alone writes the run and talks. All ranks must see the same files, settings and versions.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from isthmus.bundle import Bundle
from isthmus.bundle.parts import model_tensors
from isthmus.config import Config
from isthmus.data import Dataset, Table
from isthmus.data.store.dataset import dataset_key
from isthmus.errors import ConfigError
from isthmus.layers.tables import Box
from isthmus.models import AbstractModel
from isthmus.optimisers import build_optimiser, resolve_embedding_update
from isthmus.ranks import Ranks, agree
from isthmus.run.fit_plan import without_table
from isthmus.sharding import boxes_of, boxes_of_state, resolve_tables, save_whole
from isthmus.train import TrainConfig
from isthmus.version import VERSION


def restarted(out: str | Path | None) -> bool:
    """Whether torchrun has started this process anew, after one of a world ended.

    Raises ConfigError where torchrun may do that and no run folder is named, which each start must find.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) and out is None:
        raise ConfigError(
            "a run that torchrun may restart must name its folder, so that a restart finds it:"
            " give --out"
        )
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def check_same(ranks: Ranks, config: Config, table: Table) -> None:
    """Raise ConfigError, naming each difference and its rank, unless all ranks would train the same.

    The path of the table may differ. Its files must not. Together.
    """
    if not ranks.many:
        return
    agree(
        ranks,
        {
            "isthmus": VERSION,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "GPU": torch.cuda.is_available(),
            "table": dataset_key(config.data, table.fingerprint()),
            "config": without_table(config).model_dump(mode="json"),
        },
    )


def deals_tables(ranks: Ranks, train: TrainConfig, dataset: Dataset) -> bool:
    """Whether the embedding tables are to lie on several processes, each with a part of the rows."""
    sizes = {field.table: field.table_rows * field.width for field in dataset.encoder.fields}
    weights = sum(size for table, size in sizes.items() if table)
    return resolve_tables(train.tables, weights=weights, world=ranks.size) == "sharded"


def boxes_to_read(model: AbstractModel, train: TrainConfig) -> dict[str, Box]:
    """The part of a checkpoint that this process needs, where tables lie on several."""
    if not boxes_of(model):
        return {}
    update = resolve_embedding_update(model, train.embedding_update)
    return boxes_of_state(model, build_optimiser(model, lr=train.lr, embedding_update=update))


def save_bundle(ranks: Ranks, shipped: Sequence[Bundle], model: AbstractModel, place: Path) -> None:
    """Let rank 0 write the bundle, whole tables too, which no process holds. Together.

    ``shipped``: the bundle on rank 0, and nothing on the others. ``model``: its model, on each of them.
    """
    boxes = {f"model.{name}": box for name, box in boxes_of(model).items()}
    if not boxes:
        ranks.first(lambda: shipped[0].save(place))
        return
    group = ranks.group
    assert group is not None
    weights = place.with_name(f"{place.name}.weights")
    tensors = shipped[0].tensors() if shipped else model_tensors(model)
    save_whole(weights, tensors, boxes, group)
    ranks.first(lambda: shipped[0].save(place, weights=weights))
