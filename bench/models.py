"""Numbers 1 and 4: speed of training, and what a large embedding table costs. ``-m bench.models``.

1. One epoch of MovieLens-1M, from the dataset to updated weights, no evaluation, 7 fields x 16 and
   one number, batch 4096, widths [256, 128], batch norm, dropout 0.2, L2 0: our Wide&Deep against
   those of deepctr-torch and torch-rechub, each trained by its own trainer; our MLP against a bare
   eager loop over tensors that are ready and shuffled before the clock starts.
4. The same network with one table of 10 million rows against one of 100 thousand: lazy update, L2
   on, new ids in every batch, so that rows come from memory and not from a cache.
"""

import argparse
import contextlib
import importlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from bench.measure import RUNS, Row, alternate, at_least, at_most, informative
from isthmus.data.batch import Batch
from isthmus.data.store.dataset import Dataset, Rows
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.optimisers import ModelOptimiser, build_optimiser
from isthmus.schema import DataConfig, FittedField
from isthmus.sharding import TablesEngine, shard_tables
from isthmus.sources import movielens_1m

BATCH = 4096
WIDTHS = (256, 128)
DROPOUT = 0.2
LR = 1e-3
FIELDS = ("user_id", "movie_id", "gender", "occupation", "zip", "first_genre", "domain")
DIM = 16
DATA = {
    "domain": "domain",
    "label": {"column": "rating", "above": 3},
    "features": {**dict.fromkeys(FIELDS, "categorical"), "age": "numeric"},
}

Epoch = Callable[[], object]


def training(folder: Path, runs: int = RUNS, peers: bool = True) -> list[Row]:
    """Number 1."""
    table = movielens_1m(folder / "movielens")
    if table.is_dir():
        table = table / "movielens-1m.parquet"
    config = DataConfig.model_validate(DATA)
    start = time.perf_counter()
    dataset = Dataset.from_table(config, table, cache=folder / "cold")
    rows = dataset.rows("train")
    ours(dataset, "mlp")()
    cold = time.perf_counter() - start

    contestants: dict[str, Epoch] = {
        "mlp": ours(dataset, "mlp"),
        "mlp compiled": ours(dataset, "mlp", compiled=True),
        "bare eager loop": bare_loop(dataset),
        "wide_deep": ours(dataset, "wide_deep"),
    }
    opponents: dict[str, Epoch] = {}
    missing = ""
    if peers:
        try:
            # deepctr-torch loads the old distutils; torch.compile then wants setuptools' own,
            # which must come first.
            importlib.import_module("setuptools")
            opponents = {
                "deepctr-torch": deepctr_torch(dataset),
                "torch-rechub": torch_rechub(dataset, workers=0),
                "torch-rechub, 2 workers": torch_rechub(dataset, workers=2),
            }
        except ImportError as fault:
            missing = f"{fault.name} is not installed: pip install isthmus[peers]"
    seconds = alternate(contestants | opponents, runs)
    speed = {name: len(rows) / taken for name, taken in seconds.items()}
    text = {name: f"{rate:,.0f} rows/s" for name, rate in speed.items()}

    lines = [
        at_least(
            "1 training, MLP / bare eager loop",
            speed["mlp"] / speed["bare eager loop"],
            0.9,
            ours=text["mlp"],
            bare=text["bare eager loop"],
            cold=f"{cold:.1f} s to read, encode and train one epoch",
        ),
        informative(
            "1 training, MLP with torch.compile / without",
            speed["mlp compiled"] / speed["mlp"],
            compiled=text["mlp compiled"],
        ),
    ]
    if opponents:
        best = max(speed[name] for name in opponents)
        others = {name: text[name] for name in opponents}
        lines.append(
            at_least(
                "1 training, Wide&Deep / the faster peer",
                speed["wide_deep"] / best,
                3.0,
                ours=text["wide_deep"],
                **others,
            )
        )
    else:
        lines.append(
            informative(
                "1 training, Wide&Deep / the faster peer",
                None,
                ours=text["wide_deep"],
                peers=missing or "not asked for",
            )
        )
    return lines


def ours(dataset: Dataset, backbone: str, compiled: bool = False) -> Epoch:
    """One epoch of a model of this package, batches read from the dataset."""
    model, optimiser = _model(backbone, dataset.encoder.fields, dataset.n_domains)
    forward = torch.compile(model) if compiled else model
    rows = dataset.rows("train")
    epochs = iter(range(10**6))

    def epoch() -> None:
        for batch in rows.batches(BATCH, seed=0, epoch=next(epochs)):
            _step(forward, optimiser, batch)

    return epoch


def _model(
    backbone: str, fields: tuple[FittedField, ...], n_domains: int, **options
) -> tuple[DomainModel, ModelOptimiser]:
    torch.manual_seed(0)
    config = {"name": backbone, "widths": WIDTHS, "dropout": DROPOUT, "norm": "batch"}
    model = build_network(ModelConfig.model_validate({"backbone": config}), fields, n_domains)
    return model, build_optimiser(model, lr=LR, **options)


def _step(forward: Callable[[Batch], Tensor], optimiser: ModelOptimiser, batch: Batch) -> None:
    optimiser.zero_grad()
    F.binary_cross_entropy_with_logits(forward(batch), batch.label).backward()
    optimiser.step()


class BareMLP(nn.Module):
    """What one writes by hand: an embedding per field, Linear, batch norm, ReLU, dropout."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, DIM) for size in sizes)
        layers: list[nn.Module] = []
        width = DIM * len(sizes) + 1
        for out in WIDTHS:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Dropout(DROPOUT)]
            width = out
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        found = [table(ids[:, i]) for i, table in enumerate(self.tables)]
        return self.deep(torch.cat([*found, numbers], dim=1)).squeeze(1)


def bare_loop(dataset: Dataset) -> Epoch:
    """One epoch of the bare loop: nothing but slices of ready tensors, and the fused Adam."""
    torch.manual_seed(0)
    rows = dataset.rows("train")
    order = np.random.default_rng(0).permutation(len(rows))
    ids = torch.from_numpy(np.asarray(rows.arrays.categorical)[order].astype(np.int64))
    numbers = torch.from_numpy(np.asarray(rows.arrays.numeric)[order])
    label = torch.from_numpy(np.asarray(rows.label)[order])
    model = BareMLP(_table_rows(dataset))
    optimiser = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def epoch() -> None:
        for first in range(0, len(label), BATCH):
            batch = slice(first, first + BATCH)
            optimiser.zero_grad()
            logits = model(ids[batch], numbers[batch])
            F.binary_cross_entropy_with_logits(logits, label[batch]).backward()
            optimiser.step()

    return epoch


def _table_rows(dataset: Dataset) -> list[int]:
    return [field.table_rows for field in dataset.encoder.fields if field.kind == "categorical"]


def _columns(rows: Rows) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The encoded train rows, column by column, as the peers want them."""
    ids = np.asarray(rows.arrays.categorical).astype(np.int64)
    columns = {name: np.ascontiguousarray(ids[:, i]) for i, name in enumerate(FIELDS)}
    columns["age"] = np.asarray(rows.arrays.numeric)[:, 0].copy()
    return columns, np.asarray(rows.label).copy()


def deepctr_torch(dataset: Dataset) -> Epoch:
    """One epoch of deepctr-torch's WDL by its own ``fit``, without metrics."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat  # pyright: ignore[reportMissingImports]
    from deepctr_torch.models import WDL  # pyright: ignore[reportMissingImports]

    columns, label = _columns(dataset.rows("train"))
    features: list[Any] = [
        SparseFeat(name, vocabulary_size=size, embedding_dim=DIM)
        for name, size in zip(FIELDS, _table_rows(dataset), strict=True)
    ]
    features.append(DenseFeat("age", 1))
    model = WDL(
        features,
        features,
        dnn_hidden_units=WIDTHS,
        dnn_dropout=DROPOUT,  # pyright: ignore[reportArgumentType] its default is an int
        dnn_use_bn=True,
        l2_reg_linear=0,
        l2_reg_embedding=0,
        l2_reg_dnn=0,
    )
    model.compile("adam", "binary_crossentropy")

    def epoch() -> None:
        with _quiet():
            model.fit(dict(columns), label, batch_size=BATCH, epochs=1, verbose=0)

    return epoch


def torch_rechub(dataset: Dataset, workers: int) -> Epoch:
    """One epoch of torch-rechub's WideDeep by its own trainer; its wide part gets the number."""
    from torch_rechub.basic.features import DenseFeature, SparseFeature  # pyright: ignore[reportMissingImports]
    from torch_rechub.models.ranking import WideDeep  # pyright: ignore[reportMissingImports]
    from torch_rechub.trainers import CTRTrainer  # pyright: ignore[reportMissingImports]
    from torch_rechub.utils.data import DataGenerator  # pyright: ignore[reportMissingImports]

    columns, label = _columns(dataset.rows("train"))
    dense = [DenseFeature("age")]
    sparse = [
        SparseFeature(name, vocab_size=size, embed_dim=DIM)
        for name, size in zip(FIELDS, _table_rows(dataset), strict=True)
    ]
    model = WideDeep(
        wide_features=dense,
        deep_features=sparse + dense,
        mlp_params={"dims": list(WIDTHS), "dropout": DROPOUT, "activation": "relu"},
    )
    trainer = CTRTrainer(model, optimizer_params={"lr": LR, "weight_decay": 0.0})
    few = {name: column[:2] for name, column in columns.items()}
    loader, _, _ = DataGenerator(columns, label).generate_dataloader(
        few, label[:2], few, label[:2], batch_size=BATCH, num_workers=workers
    )

    def epoch() -> None:
        with _quiet():
            trainer.train_one_epoch(loader)

    return epoch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


SMALL, LARGE = 100_000, 10_000_000
STEPS = 40
SIDE_TABLES = (3707, 3, 22, 3440, 19, 4)  # the other fields, as in MovieLens-1M


def large_tables(runs: int = RUNS) -> list[Row]:
    """Number 4."""
    lines = []
    for shape in ("uniform", "zipf"):
        contestants = {
            f"{rows:,}": steps_on(rows, zipf=shape == "zipf", turns=runs + 1)
            for rows in (SMALL, LARGE)
        }
        seconds = alternate(contestants, runs)
        small, large = (seconds[f"{rows:,}"] / STEPS * 1e3 for rows in (SMALL, LARGE))
        lines.append(
            at_most(
                f"4 step with {LARGE:,} table rows / {SMALL:,}, {shape} ids",
                large / small,
                1.2,
                large=f"{large:.2f} ms",
                small=f"{small:.2f} ms",
                gradient="sparse",
            )
        )
    return lines


def steps_on(
    table_rows: int,
    *,
    zipf: bool,
    turns: int,
    group: dist.ProcessGroup | None = None,
    engine: TablesEngine = "row_wise",
) -> Epoch:
    """Some training steps on a model whose first table has ``table_rows`` rows.

    ``group``: the tables lie on its processes, by ``engine``.
    """
    sizes = (table_rows, *SIDE_TABLES)
    fields = (
        *(
            FittedField(name, "categorical", DIM, table=name, table_rows=size)
            for name, size in zip(FIELDS, sizes, strict=True)
        ),
        FittedField("age", "numeric", 1),
    )
    model, optimiser = _model(
        "mlp", fields, n_domains=3, embedding_l2=5e-5, embedding_update="lazy"
    )
    if group is not None:
        shard_tables(model, group, engine=engine)
        optimiser = build_optimiser(model, lr=LR, embedding_l2=5e-5, embedding_update="lazy")
    batches = iter([random_batch(sizes, zipf, seed) for seed in range(turns * STEPS)])

    def steps() -> None:
        for _ in range(STEPS):
            _step(model, optimiser, next(batches))
        for table in model.tables():
            assert table.weight.grad is not None
            assert table.weight.grad.is_sparse

    return steps


def random_batch(sizes: tuple[int, ...], zipf: bool, seed: int, *, rows: int = BATCH) -> Batch:
    draw = np.random.default_rng(seed)
    uniform = draw.random((rows, len(sizes)))
    columns = []
    for size, u in zip(sizes, uniform.T, strict=True):
        if zipf:  # rank r with a chance of about 1 / r, ranks scattered over the table
            rank = np.minimum(np.power(float(size), u), size - 1).astype(np.int64)
            columns.append(rank * 7_919 % size)
        else:
            columns.append((u * size).astype(np.int64))
    ids = torch.from_numpy(np.stack(columns, axis=1).astype(np.int32))
    return Batch(
        categorical=ids,
        numeric=torch.from_numpy(draw.random((rows, 1), dtype=np.float32)),
        lists=(),
        domain=ids[:, -1].long(),
        label=torch.from_numpy((draw.random(rows) < 0.5).astype(np.float32)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", choices=["training", "tables"])
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    lines: list[Row] = []
    if options.only != "tables":
        with tempfile.TemporaryDirectory() as folder:
            lines += training(Path(folder), options.runs, not options.no_peers)
    if options.only != "training":
        lines += large_tables(options.runs)
    print(json.dumps([line.to_dict() for line in lines], indent=2))


if __name__ == "__main__":
    main()
