"""Target attention: the formula, the places, what a row sees, gradients, and the parts around it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fake_batches import ASKED, make_batch, many, single
from isthmus import testing
from isthmus.data.batch import Batch, DomainPlaces, Jagged
from isthmus.layers import FeatureEmbedding, TargetAttention, Wide
from isthmus.models import DomainModel, ModelConfig, build_network

DIM = 4
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=9)


def unit(*, places: int = 0, seed: int = 0) -> TargetAttention:
    """An activation unit that has left its start, in float64."""
    torch.manual_seed(seed)
    made = TargetAttention(dim=DIM, places=places, hidden=5).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def ragged(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Query, items and offsets of rows with so many items."""
    draw = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    query = torch.randn(len(lengths), DIM, generator=draw, dtype=torch.float64)
    items = torch.randn(sum(lengths), DIM, generator=draw, dtype=torch.float64)
    return query, items, offsets


def slowly(made: TargetAttention, query: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    """Row by row, item by item, as the formula is written."""
    pooled = []
    for r in range(len(query)):
        q, own = query[r], items[offsets[r] : offsets[r + 1]]
        total = torch.zeros_like(q)
        for i in range(len(own)):
            read, asked = own[i] / own[i].square().mean().sqrt(), q / q.square().mean().sqrt()
            if made.places is not None:
                read = read + made.places[min(len(own) - 1 - i, len(made.places) - 1)]
            hidden = made.read(torch.cat([asked, read, asked - read, asked * read]))
            hidden = torch.where(hidden > 0, hidden, made.bend.weight * hidden)
            total = total + made.weigh(hidden) * own[i]
        pooled.append(total / max(len(own), 1))
    return torch.stack(pooled)


@given(LENGTHS, st.sampled_from([0, 1, 3, 9]), st.integers(0, 99))
def test_matches_the_formula_written_out(lengths: list[int], places: int, seed: int):
    made, given_ = unit(places=places, seed=seed), ragged(lengths, seed)
    torch.testing.assert_close(made(*given_), slowly(made, *given_), rtol=1e-6, atol=1e-6)


def test_an_empty_list_gives_zeros():
    query, items, offsets = ragged([0, 2, 0])
    pooled = unit(places=2)(query, items, offsets)
    assert torch.equal(pooled[[0, 2]], torch.zeros(2, DIM, dtype=torch.float64))
    nothing = ragged([0, 0, 0])
    assert torch.equal(unit()(*nothing), torch.zeros(3, DIM, dtype=torch.float64))


@pytest.mark.parametrize("places", [0, 3])
def test_a_fresh_unit_is_the_mean(places: int):
    made = TargetAttention(dim=DIM, places=places)
    query, items, offsets = ragged([3, 0, 1, 5])
    pooled = made(query.float(), items.float(), offsets)
    means = [part.mean(0) for part in items.float().split([3, 1, 5])]
    torch.testing.assert_close(pooled[[0, 2, 3]], torch.stack(means))


def test_weights_need_not_sum_to_one():
    # All the history is of the query's kind, or half of it is: a softmax would tell them apart less.
    made = unit()
    query, items, _ = ragged([1, 1])
    kind, other = items
    ask = query[:1].expand(2, DIM)
    both = torch.stack([kind, kind, kind, other])
    pooled = made(ask, both, torch.tensor([0, 2, 4]))
    alone = made(ask, torch.stack([kind, other]), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(pooled, torch.stack([alone[0], (alone[0] + alone[1]) / 2]))


def test_order_counts_where_places_do():
    lengths = [5, 0, 4]
    query, items, offsets = ragged(lengths)
    draw = torch.Generator().manual_seed(1)
    shuffled = torch.cat(
        [part[torch.randperm(len(part), generator=draw)] for part in items.split(lengths)]
    )
    plain, placed = unit(), unit(places=6)
    torch.testing.assert_close(plain(query, shuffled, offsets), plain(query, items, offsets))
    moved = (placed(query, shuffled, offsets) - placed(query, items, offsets)).abs().amax(1)
    assert (moved[[0, 2]] > 1e-3).all()


def test_places_count_from_the_end():
    made = unit(places=2)
    assert made.places is not None
    given_ = ragged([1, 3])
    with torch.no_grad():
        made.places.zero_()
        before = made(*given_)
        made.places[0] += 1.0  # of the last items
        last = made(*given_) - before
        made.places.zero_()
        made.places[1] += 1.0  # of those before, however far
        others = made(*given_) - before
    assert last.abs().amax(1).gt(1e-3).all()
    assert torch.equal(others[0], torch.zeros_like(others[0]))  # a list of one has no other place
    for change, own in ((last[1], given_[1][3:]), (others[1], given_[1][1:3])):
        weights = torch.linalg.lstsq(own.T, change).solution
        torch.testing.assert_close(weights @ own, change)  # only their items count otherwise


@pytest.mark.parametrize("places", [0, 2])
def test_gradients_are_those_of_the_formula(places: int):
    made = unit(places=places)
    query, items, offsets = ragged([2, 0, 4])
    for tensor in (query, items):
        tensor.requires_grad_()
    names = [name for name, _ in made.named_parameters()]

    def run(query: Tensor, items: Tensor, *parameters: Tensor) -> Tensor:
        own = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(made, own, (query, items, offsets))

    parameters = [parameter.detach().clone().requires_grad_() for parameter in made.parameters()]
    assert torch.autograd.gradcheck(run, (query, items, *parameters))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1, got dim=0, hidden=36"):
        TargetAttention(dim=0)
    with pytest.raises(ValueError, match="at least 1, got dim=4, hidden=0"):
        TargetAttention(dim=4, hidden=0)
    with pytest.raises(ValueError, match="places must not be negative, got -1"):
        TargetAttention(dim=4, places=-1)


# In the embedded row, and in models.


def embedding(seed: int = 0) -> FeatureEmbedding:
    torch.manual_seed(seed)
    made = FeatureEmbedding(fields=ASKED, std=1.0)
    for parameter in made.attention.parameters():
        torch.nn.init.normal_(parameter)
    return made


def build(section: dict, n_domains: int = 3) -> DomainModel:
    torch.manual_seed(0)
    model = build_network(ModelConfig.model_validate(section), ASKED, n_domains)
    for parameter in model.inputs.attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


SMALL = {"widths": (9, 7), "dropout": 0.1}
SECTIONS = {
    **{
        name: {"backbone": {"name": name, **SMALL}}
        for name in ("mlp", "dcn", "deepfm", "wide_deep")
    },
    "condition": {
        "backbone": {"name": "mlp", **SMALL},
        "adapter": {"name": "hamur", "bottleneck": 6, "rank": 3, "condition": ["history"]},
    },
}


def test_each_list_is_pooled_by_its_own_unit_and_query():
    made, batch = embedding(), make_batch(ASKED, 30)
    x, tables = (
        made(batch),
        {name: made.tables.store(DIM).table(name) for name in ("item", "tags", "tab")},
    )
    ids = batch.categorical.long()
    for number, (column, table, query) in enumerate(
        [("history", "item", tables["item"][ids[:, 1]]), ("tags", "tags", tables["tab"][ids[:, 0]])]
    ):
        own, attention = batch.lists[number], made.attention[number]
        assert isinstance(attention, TargetAttention)
        expected = slowly(attention, query, tables[table][own.values.long()], own.offsets)
        torch.testing.assert_close(x[:, made.columns[column]], expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        made.tables.store(DIM).table("item")[0] += 1.0
    unknown = (ids[:, 1] == 0) | torch.tensor(
        [bool((own == 0).any()) for own in rows_of(batch.lists[0])]
    )
    moved = (made(batch) - x)[:, made.columns["history"]].abs().amax(1) > 1e-6
    some = batch.lists[0].offsets.diff() > 0
    assert torch.equal(moved, unknown & some)  # the unknown is an item like others


def rows_of(column: Jagged) -> list[Tensor]:
    return list(column.values.split(column.offsets.diff().tolist()))


def test_a_row_does_not_depend_on_its_batch():
    made, batch = embedding(), make_batch(ASKED, 4096)
    x = made(batch)
    for size in (1, 7):
        parts = [made(batch.take(torch.arange(at, at + size))) for at in range(0, 70, size)]
        torch.testing.assert_close(torch.cat(parts), x[:70], rtol=1e-5, atol=1e-5)
    order = torch.randperm(4096, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(batch.take(order)), x[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SECTIONS)
def test_models_keep_the_contracts(name: str):
    def make(n_domains: int) -> DomainModel:
        return build(SECTIONS[name], n_domains)

    def batch(n_domains: int) -> Batch:
        return make_batch(ASKED, 96, n_domains=n_domains)

    testing.check_model(make, batch)
    testing.check_everything_learns(testing.model_subject(make(5), batch(5)))


def test_gradients_reach_query_and_items_in_both_forms():
    made, batch = embedding(), make_batch(ASKED, 16)
    (table,) = made.tables.all_stores()
    aim = torch.randn(16, made.width)
    gradients = []
    for sparse in (False, True):
        table.sparse, table.weight.grad = sparse, None
        made(batch)[:, made.columns["history"]].mul(
            aim[:, made.columns["history"]]
        ).sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad.is_sparse == sparse
        gradients.append(table.weight.grad.to_dense() if sparse else table.weight.grad)
    torch.testing.assert_close(*gradients)
    used = set((batch.lists[0].values + table.first_row("item")).tolist())
    full = [own.numel() > 0 for own in rows_of(batch.lists[0])]
    used |= {int(i) + table.first_row("item") for i in batch.categorical[full, 1]}
    assert set(gradients[0].abs().sum(1).nonzero().flatten().tolist()) == used


def test_a_hidden_domain_asks_as_the_unknown():
    made, batch = embedding(), make_batch(ASKED, 20)
    hidden = torch.ones(20, dtype=torch.bool)
    unknown = replace(batch, categorical=batch.categorical.clone())
    unknown.categorical[:, 0] = 0
    shown = made(batch.hide_domain(hidden, DomainPlaces.of(ASKED)))
    assert torch.equal(shown, made(unknown))
    assert not torch.equal(shown[:, made.columns["tags"]], made(batch)[:, made.columns["tags"]])


def test_a_linear_part_takes_the_mean():
    wide, batch = Wide(fields=ASKED), make_batch(ASKED, 12)
    plain = Wide(fields=tuple(replace(field, query="", places=0) for field in ASKED))
    torch.nn.init.normal_(wide._store.weight)
    plain.load_state_dict(wide.state_dict())
    assert torch.equal(wide(batch), plain(batch))


def test_parameters_are_counted_with_the_inputs():
    model = build(SECTIONS["mlp"])
    report = model.parameter_report()
    each = 16 * 36 + 36 + 36 + 36 + 1  # read, its bias, the slopes of PReLU, weigh, its bias
    assert report.inputs == 2 * each + 3 * 4
    assert report.total == sum(parameter.numel() for parameter in model.parameters())
    assert report.dense == report.total - (7 + 4 + 5) * 4


def test_only_a_list_that_asks_has_a_unit():
    plain = tuple(replace(field, query="", places=0) for field in ASKED)
    asked, other = build({}), build_network(ModelConfig(), plain, 3)
    assert not any("attention" in name for name in other.state_dict())
    assert {"inputs.attention.0.places", "inputs.attention.1.read.weight"} <= set(
        asked.state_dict()
    )
    assert "inputs.attention.1.places" not in asked.state_dict()


def test_a_query_that_does_not_fit_is_refused():
    wide = replace(many("history", 7), query="item")
    for fields in ((wide,), (wide, single("item", 7, width=2)), (wide, many("item", 7))):
        with pytest.raises(
            ValueError, match="query of 'history' must be a categorical feature of dim 4"
        ):
            FeatureEmbedding(fields=fields)


# The network as a graph.


class OfTensors(torch.nn.Module):
    """A model of `ASKED` whose batch comes as tensors, for torch.export."""

    def __init__(self, model: DomainModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        categorical: Tensor,
        numeric: Tensor,
        lists: list[tuple[Tensor, Tensor]],
        domain: Tensor,
    ) -> Tensor:
        columns = tuple(Jagged(values, offsets) for values, offsets in lists)
        return self.model(Batch(categorical, numeric, columns, domain, numeric[:, 0]))


def tensors(batch: Batch) -> tuple:
    lists = [(column.values, column.offsets) for column in batch.lists]
    return batch.categorical, batch.numeric, lists, batch.domain


@pytest.mark.usefixtures("without_shape_checks")
def test_an_exported_graph_gives_the_same_logits():
    model, batch = build(SECTIONS["mlp"]).eval(), make_batch(ASKED, 12)
    free = {0: torch.export.Dim.AUTO}
    graph = torch.export.export(
        OfTensors(model), tensors(batch), dynamic_shapes=(free, free, [(free, free)] * 2, free)
    )
    for rows in (12, 31, 2):
        other = make_batch(ASKED, rows, seed=rows)
        torch.testing.assert_close(graph.module()(*tensors(other)), model(other))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.usefixtures("without_shape_checks")
# torch looks at every tensor's .grad while it traces, and warns itself of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_gives_the_same_logits_and_gradients(sparse: bool):
    model, batch = build(SECTIONS["mlp"]).eval(), make_batch(ASKED, 16)
    for table in model.tables():
        table.sparse = sparse
    gradients = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=not sparse)):
        model.zero_grad()
        logits = run(batch)
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad for parameter in model.parameters())])
    for eager, compiled in zip(*gradients, strict=True):
        eager, compiled = (
            each.to_dense() if each.is_sparse else each for each in (eager, compiled)
        )
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
