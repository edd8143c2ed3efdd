"""What processes with sharded tables do in test_sharding.py; also run unsharded, as the reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from fake_batches import ASKED, MIXED, make_batch
from isthmus import checkpoint
from isthmus.data.batch import Batch
from isthmus.errors import RunError
from isthmus.layers.tables import Box, FusedTable, Tables, tables_of
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.optimisers import EmbeddingUpdate, ModelOptimiser, build_optimiser, clip_gradients
from isthmus.schema import FittedField
from isthmus.sharding import (
    HeldPart,
    RowWiseTable,
    boxes_of,
    boxes_of_state,
    dealt_start,
    save_whole,
    shard_tables,
    write_shards,
)
from isthmus.sharding.exchange import lookup_bytes
from isthmus.train.events import TrainState

SIZES = {"a": (11, 4), "b": (6, 4), "c": (3, 2)}  # of four processes, one holds no row of c
ROWS = 24  # of a whole batch
STEPS = 5
SAVED_AFTER = 3  # steps
POOLINGS = ("sum", "mean", "max")


class Net(nn.Module):
    """Single ids in two tables of one width, pooled lists in three ways, and a third, small table."""

    def __init__(self, sizes: dict[str, tuple[int, int]] = SIZES) -> None:
        super().__init__()
        self.tables = Tables(tables=sizes, std=0.5)
        self.dims = sizes["a"][1], sizes["c"][1]
        self.linear = nn.Linear(5 * self.dims[0] + self.dims[1], 1)

    def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
        ids, items, offsets, small = batch
        store = self.tables.store(self.dims[0])
        both = ids + torch.tensor([store.first_row("a"), store.first_row("b")])
        parts = [store(both).flatten(1)]
        parts += [store.pooled(items, offsets, how) for how in POOLINGS]
        other = self.tables.store(self.dims[1])
        parts.append(other(small + other.first_row("c")))
        return self.linear(torch.cat(parts, dim=1)).squeeze(1)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def batch(step: int, rows: range) -> tuple[Tensor, ...]:
    """Those rows of a whole batch; lists have 0 to 3 items. Low ids are the commonest."""
    draw = torch.Generator().manual_seed(step)
    ids = torch.stack([_zipf(11, ROWS, draw), _zipf(6, ROWS, draw)], dim=1)
    lengths = torch.randint(0, 4, (ROWS,), generator=draw)
    items = _zipf(11, int(lengths.sum()), draw)
    small = torch.randint(0, 3, (ROWS,), generator=draw)
    mine = torch.tensor(list(rows), dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    taken = [items[offsets[row] : offsets[row + 1]] for row in rows]
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), lengths[mine].cumsum(0)])
    return (
        ids[mine].int(),
        torch.cat([*taken, items[:0]]).int(),
        ends,
        small[mine].int(),
    )


def _zipf(count: int, size: int, draw: torch.Generator) -> Tensor:
    return torch.multinomial(1 / torch.arange(1.0, count + 1), size, True, generator=draw)


def rows_of(rank: int, world: int) -> range:
    """Uneven shares; where there are four, the third has no row at all."""
    ends = {1: [0, 24], 2: [0, 15, 24], 4: [0, 15, 21, 21, 24]}[world]
    return range(ends[rank], ends[rank + 1])


def train(
    model: Net,
    *,
    update: EmbeddingUpdate = "lazy",
    clip: float | None = None,
    group: dist.ProcessGroup | None = None,
    steps: range = range(STEPS),
    optimiser: ModelOptimiser | None = None,
) -> tuple[ModelOptimiser, dict[str, Tensor]]:
    """Train; give the optimiser, and the logits and norms of the steps."""
    rank, world = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    if optimiser is None:
        optimiser = build_optimiser(model, lr=0.05, embedding_l2=0.1, embedding_update=update)
    found = {}
    for step in steps:
        optimiser.zero_grad()
        logits = model(batch(step, rows_of(rank, world)))
        (logits - 1).square().sum().div(ROWS).backward()
        optimiser.bring_gradients()
        if group is not None:
            for parameter in model.linear.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad, group=group)
        if clip is not None:
            norm = clip_gradients(model.parameters(), clip, tables_of(model))
            found[f"norm {step}"] = norm
        optimiser.step()
        found[f"logits {step}"] = logits.detach()
    return optimiser, found


def run(group: dist.ProcessGroup, folder: Path) -> dict[str, Tensor]:
    """Every scenario; names of tensors begin with the scenario's."""
    found: dict[str, Tensor] = {}
    scenarios: dict[str, Callable[[dist.ProcessGroup], dict[str, Tensor]]] = {
        "lazy": lambda g: trained(g, "lazy", None),
        "dense": lambda g: trained(g, "dense", None),
        "clipped": lambda g: trained(g, "lazy", 0.3),
        "start": start,
        "odd": odd,
        "network": networks,
        "bytes": measured_bytes,
        "resumed": lambda g: resumed(g, folder),
        "refused": lambda g: refused(g, folder),
    }
    for name, scenario in scenarios.items():
        found |= {f"{name}/{key}": value for key, value in scenario(group).items()}
    return found


def trained(
    group: dist.ProcessGroup, update: EmbeddingUpdate, clip: float | None
) -> dict[str, Tensor]:
    model = net()
    shard_tables(model, group)
    _, told = train(model, update=update, clip=clip, group=group)
    return {**model.state_dict(), **told}


def start(group: dist.ProcessGroup) -> dict[str, Tensor]:
    torch.manual_seed(0)
    with dealt_start(group):
        model = Net()
    assert all(isinstance(table, RowWiseTable) for table in tables_of(model))
    return {**model.state_dict(), "next": torch.rand(3)}


def odd(group: dist.ProcessGroup) -> dict[str, Tensor]:
    """Ids of odd shapes, none at all, and some that one process alone asks for; and whose part is whose."""
    torch.manual_seed(1)
    plain = FusedTable(rows={"x": 10, "y": 3}, dim=3, std=1.0)
    table = RowWiseTable.of(plain, group)
    rank = dist.get_rank(group)
    cube = torch.arange(12).view(2, 3, 2).int() % 13
    assert torch.equal(table(cube), plain(cube))
    assert torch.equal(table(torch.tensor(12)), plain(torch.tensor(12)))
    assert table(torch.zeros(0, 5, dtype=torch.int64)).shape == (0, 5, 3)
    none = torch.zeros(0, dtype=torch.int64)
    assert table.pooled(none, torch.zeros(3, dtype=torch.int64), "mean").tolist() == [[0.0] * 3] * 2
    table.drop_gradients()
    table.sparse = True
    mine = torch.tensor([7, 7, 2]) if rank == 0 else none  # only the first process asks
    table(mine).sum().backward()
    table.bring_gradients()
    assert table.weight.grad is not None
    gradient = table.weight.grad.to_dense()
    other = table(none)  # no backward pass follows
    table.bring_gradients()
    assert torch.equal(table.weight.grad.to_dense(), gradient)
    table.bring_gradients()
    assert other.shape == (0, 3)
    with pytest.raises(IndexError, match="with 13 rows must lie in 0 to 12, got 13 to 13"):
        table(torch.tensor([13]))
    boxes = {name: table.box(name) for name in ("x", "y")}
    whole = {name: plain.table(name).detach() for name in boxes}
    for name, box in boxes.items():
        assert torch.equal(box.of(whole[name]), table.table(name)), name
    assert set(boxes_of(nn.ModuleList([table]))) == {"0.x", "0.y"}
    return {"gradient": gradient}


# No norm: what norms make of a batch on several processes is no matter of tables.
NETWORK = {"backbone": {"name": "wide_deep", "widths": [6], "dropout": 0.0, "norm": "none"}}
FIELDS = {"mixed": MIXED, "asked": ASKED}  # every kind of column; lists with target attention


def network(fields: tuple[FittedField, ...]) -> DomainModel:
    """A wide part with a weight a value, and a deep part, drawn by everyone alike."""
    torch.manual_seed(0)
    model = build_network(ModelConfig.model_validate(NETWORK), fields, 3)
    for table in tables_of(model):
        nn.init.normal_(table.weight, std=0.5)
    return model


def one_step(model: DomainModel, batch: Batch, whole: int, group=None) -> Tensor:
    """A step of a network, whose dense gradients are summed; give its logits."""
    optimiser = build_optimiser(model, lr=0.05, embedding_l2=0.1, embedding_update="lazy")
    logits = model(batch)
    F.binary_cross_entropy_with_logits(logits, batch.label, reduction="sum").div(whole).backward()
    in_tables = {id(table.weight) for table in tables_of(model)}
    for parameter in model.parameters():
        if group is not None and id(parameter) not in in_tables:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(gradient, group=group)
            parameter.grad = gradient
    optimiser.step()
    return logits.detach()


def networks(group: dist.ProcessGroup) -> dict[str, Tensor]:
    found = {}
    rows = rows_of(dist.get_rank(group), dist.get_world_size(group))
    for name, fields in FIELDS.items():
        model = network(fields)
        shard_tables(model, group)
        assert all(table.sharded for table in tables_of(model))
        whole = make_batch(fields, ROWS)
        part = whole.take(torch.tensor(list(rows), dtype=torch.int64))
        found[f"{name}/logits"] = one_step(model, part, ROWS, group)
        found[f"{name}/after"] = model.eval()(whole).detach()  # every process scores all of them
    return found


def measured_bytes(group: dist.ProcessGroup) -> dict[str, Tensor]:
    """Bytes that one step sends, counted, and by the formula; every process asks for each row once."""
    world, rows, dim = dist.get_world_size(group), 1000, 8
    table = RowWiseTable(rows={"x": rows}, dim=dim, group=group)
    table(torch.arange(rows).repeat(2)).sum().backward()
    table.bring_gradients()
    told = lookup_bytes(rows, dim, world)
    return {"sent": torch.tensor(float(table.exchange.sent)), "formula": torch.tensor(told)}


def state_of(model: Net, optimiser: ModelOptimiser) -> TrainState:
    """A state after some steps, whose best weights are those of the model, and one."""
    weights = model.state_dict()
    return TrainState(
        step=SAVED_AFTER,
        epoch=0,
        step_in_epoch=SAVED_AFTER,
        model=weights,
        best={name: tensor + 1 for name, tensor in weights.items()},
        optimiser=optimiser.state_dict(),
        random={},
        loss_sum=torch.zeros((), dtype=torch.float64),
        loss_steps=0,
        history=(),
        stale_looks=0,
        seconds=0.0,
        dataset_key="",
        threads=1,
        torch_version="",
        config={},
    )


def resumed(group: dist.ProcessGroup, folder: Path) -> dict[str, Tensor]:
    """Write a checkpoint and whole weights; then go on from checkpoints of every number of processes."""
    world, found = dist.get_world_size(group), {}
    model = net()
    shard_tables(model, group)
    optimiser, _ = train(model, group=group, steps=range(SAVED_AFTER))
    boxes = boxes_of_state(model, optimiser)
    for _ in range(2):  # the second takes the first one's place
        checkpoint.save(
            folder / f"checkpoint-{world}", state_of(model, optimiser), boxes=boxes, group=group
        )
    tensors = {**model.state_dict(), "flag": torch.tensor([True]), "count": torch.tensor(3)}
    save_whole(folder / f"whole-{world}.safetensors", tensors, boxes_of(model), group)
    for writers in (1, 2, 4):
        if not (folder / f"checkpoint-{writers}").exists():  # 4 come after 2
            continue
        model = net()
        shard_tables(model, group)
        optimiser = build_optimiser(model, lr=0.05, embedding_l2=0.1, embedding_update="lazy")
        boxes = boxes_of_state(model, optimiser)
        state = checkpoint.load(folder / f"checkpoint-{writers}", boxes=boxes)
        model.load_state_dict(state.best)
        model.load_state_dict(state.model)
        optimiser.load_state_dict(state.optimiser)
        train(model, group=group, steps=range(SAVED_AFTER, STEPS), optimiser=optimiser)
        found |= {f"{writers}/{name}": tensor for name, tensor in model.state_dict().items()}
    return found


def refused(group: dist.ProcessGroup, folder: Path) -> dict[str, Tensor]:
    """What the disk refuses to one process is refused to all of them, and none of them hangs."""
    model = net()
    shard_tables(model, group)
    optimiser, _ = train(model, group=group, steps=range(1))
    state, boxes = state_of(model, optimiser), boxes_of_state(model, optimiser)
    a_file = folder / f"a-file-{dist.get_world_size(group)}"
    a_file.touch()
    missing = folder / "missing" / "file"
    for write in (
        lambda: checkpoint.save(a_file, state, boxes=boxes, group=group),
        lambda: save_whole(missing, model.state_dict(), boxes_of(model), group),
        lambda: write_shards(missing, {"x": HeldPart(torch.zeros(1, 1), whole((1, 1)))}, group),
    ):
        with pytest.raises(RunError, match="must be"):
            write()
    return {}


def whole(shape: tuple[int, ...]) -> Box:
    return Box(shape, range(shape[0]), range(shape[-1]))
