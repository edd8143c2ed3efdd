from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fake_batches import EVEN, MIXED, make_batch, many, one_row, single
from isthmus.data.batch import Batch
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.tables import FusedTable, pool
from isthmus.schema import FittedField


@pytest.fixture
def embedding() -> FeatureEmbedding:
    torch.manual_seed(0)
    return FeatureEmbedding(fields=MIXED, std=1.0)


def slowly(embedding: FeatureEmbedding, batch: Batch) -> Tensor:
    """Row by row, field by field, from the state dict's logical tables."""
    tables = {key.removeprefix("tables."): table for key, table in embedding.state_dict().items()}
    result = []
    for r in range(batch.rows):
        singles = iter(batch.categorical[r].tolist())
        lists = iter(batch.lists)
        n_numeric = sum(field.kind == "numeric" for field in embedding.fields)
        numbers = iter(batch.numeric[r, :n_numeric].tolist())
        vectors = iter(batch.numeric[r, n_numeric:].tolist())
        row: list[float] = []
        for field in embedding.fields:
            if field.kind == "categorical":
                row += tables[field.table][next(singles)].tolist()
            elif field.kind == "numeric":
                row.append(next(numbers))
            elif field.kind == "vector":
                row += [next(vectors) for _ in range(field.width)]
            else:
                column = next(lists)
                items = column.values[column.offsets[r] : column.offsets[r + 1]]
                found = tables[field.table][items.long()] if field.table else items[:, None]
                if len(items) == 0:
                    row += [0.0] * field.width
                elif field.pooling == "max":
                    row += found.amax(0).tolist()
                else:
                    row += getattr(found, field.pooling)(0).tolist()
        result.append(row)
    return torch.tensor(result)


def test_matches_the_formula_written_out(embedding: FeatureEmbedding):
    batch = make_batch(MIXED, 40)
    assert any((column.offsets.diff() == 0).any() for column in batch.lists)
    torch.testing.assert_close(embedding(batch), slowly(embedding, batch))


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_every_pooling_matches(pooling):
    fields = (many("a", 5, pooling=pooling), FittedField("b", "numeric_list", 1, pooling=pooling))
    embedding = FeatureEmbedding(fields=fields, std=1.0)
    batch = make_batch(fields, 30)
    torch.testing.assert_close(embedding(batch), slowly(embedding, batch))


def test_columns_name_the_slices_in_the_order_of_the_config(embedding: FeatureEmbedding):
    assert list(embedding.columns) == [field.name for field in MIXED]
    assert embedding.columns["item"] == slice(9, 13)
    assert embedding.width == sum(field.width for field in MIXED)
    batch = make_batch(MIXED, 5)
    x = embedding(batch)
    assert x.shape == (5, embedding.width)
    item = embedding.state_dict()["tables.item"][batch.categorical[:, 1].long()]
    torch.testing.assert_close(x[:, embedding.columns["item"]], item)


def test_a_row_does_not_see_its_neighbours(embedding: FeatureEmbedding):
    batch = make_batch(MIXED, 12)
    alone = torch.cat([embedding(one_row(batch, r)) for r in range(12)])
    torch.testing.assert_close(embedding(batch), alone)


def test_tables_of_one_width_share_one_parameter(embedding: FeatureEmbedding):
    shapes = {tuple(parameter.shape) for parameter in embedding.parameters()}
    assert shapes == {(9 + 7 + 6, 4), (4 + 5, 2)}


def test_the_state_dict_has_one_tensor_per_table(embedding: FeatureEmbedding):
    state = embedding.state_dict()
    assert {key: tuple(table.shape) for key, table in state.items()} == {
        "tables.user": (9, 4),
        "tables.item": (7, 4),  # history shares it
        "tables.tab": (4, 2),
        "tables.tags": (5, 2),
        "tables.city": (6, 4),
    }


def test_the_state_dict_comes_back_through_a_file(embedding: FeatureEmbedding, tmp_path: Path):
    save_file(embedding.state_dict(), tmp_path / "weights.safetensors")
    other = FeatureEmbedding(fields=MIXED)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    batch = make_batch(MIXED, 20)
    assert torch.equal(embedding(batch), other(batch))


def test_a_wrong_state_dict_is_refused(embedding: FeatureEmbedding):
    state = dict(embedding.state_dict())
    missing = {key: table for key, table in state.items() if key != "tables.city"}
    with pytest.raises(RuntimeError, match=r"Missing key.*tables\.city"):
        embedding.load_state_dict(missing)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*tables\.town"):
        embedding.load_state_dict(state | {"tables.town": torch.zeros(1, 4)})
    with pytest.raises(RuntimeError, match=r"tables\.city must have shape \(6, 4\), got \(3, 4\)"):
        embedding.load_state_dict(state | {"tables.city": torch.zeros(3, 4)})
    assert embedding.load_state_dict(missing, strict=False).missing_keys == ["tables.city"]


def test_a_column_name_may_hold_dots():
    fields = (single("a.b", 3), single("c", 2))
    embedding = FeatureEmbedding(fields=fields)
    other = FeatureEmbedding(fields=fields)
    other.load_state_dict(embedding.state_dict())
    batch = make_batch(fields, 6)
    assert torch.equal(embedding(batch), other(batch))


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_sparse_gradients_are_sparse_and_equal_dense_ones(pooling):
    fields = (single("a", 50), single("b", 8), many("c", 50, table="a", pooling=pooling))
    embedding = FeatureEmbedding(fields=fields, std=1.0)
    batch = make_batch(fields, 16)
    aim = torch.randn(16, embedding.width)
    (table,) = embedding.tables.all_stores()
    (embedding(batch) * aim).sum().backward()
    dense = table.weight.grad
    table.weight.grad = None
    table.sparse = True
    (embedding(batch) * aim).sum().backward()
    assert dense is not None
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse
    torch.testing.assert_close(table.weight.grad.to_dense(), dense)


def test_a_column_of_weights_looks_up_alike_in_both_forms():
    table = FusedTable(rows={"a": 3, "b": 4}, dim=1, std=1.0)
    ids = torch.tensor([[0, 3], [2, 6]], dtype=torch.int32)
    found = table(ids)
    found.square().sum().backward()
    dense = table.weight.grad
    table.weight.grad, table.sparse = None, True
    assert torch.equal(table(ids), found)
    table(ids).square().sum().backward()
    assert table.weight.grad is not None
    assert dense is not None
    torch.testing.assert_close(table.weight.grad.to_dense(), dense)


def test_a_shared_table_learns_from_every_feature_that_shares_it():
    fields = (single("item", 5), many("history", 5, table="item", pooling="sum"))
    embedding = FeatureEmbedding(fields=fields)
    batch = make_batch(fields, 30)
    embedding(batch).sum().backward()
    (table,) = embedding.tables.all_stores()
    uses = torch.bincount(batch.categorical[:, 0], minlength=5)
    uses += torch.bincount(batch.lists[0].values, minlength=5)
    assert table.weight.grad is not None
    torch.testing.assert_close(table.weight.grad, uses.float()[:, None].expand(5, 4))


def test_the_unknown_id_has_a_row_that_learns():
    fields = (single("a", 3), single("b", 3))
    embedding = FeatureEmbedding(fields=fields)
    batch = make_batch(fields, 1)
    batch.categorical.zero_()
    embedding(batch).sum().backward()
    (table,) = embedding.tables.all_stores()
    assert table.weight.grad is not None
    assert table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [0, 3]


def test_the_field_matrix_stacks_the_embedded_features():
    embedding = FeatureEmbedding(fields=EVEN, std=1.0)
    x = embedding(make_batch(EVEN, 6))
    matrix = embedding.field_matrix(x)
    assert matrix.shape == (6, 4, 4)
    for i, name in enumerate(["user", "item", "history", "tab"]):
        assert torch.equal(matrix[:, i], x[:, embedding.columns[name]])
    side_by_side = FeatureEmbedding(fields=EVEN[:2], std=1.0)
    y = side_by_side(make_batch(EVEN[:2], 6))
    assert torch.equal(side_by_side.field_matrix(y).flatten(1), y)


def test_a_field_matrix_needs_one_width(embedding: FeatureEmbedding):
    with pytest.raises(ValueError, match="same dim"):
        embedding.field_matrix(embedding(make_batch(MIXED, 2)))


def test_features_of_one_table_must_agree():
    with pytest.raises(ValueError, match="'item' must agree"):
        FeatureEmbedding(fields=(single("item", 5), many("history", 6, table="item")))


def test_no_fields_and_empty_tables_are_refused():
    with pytest.raises(ValueError, match="at least one field"):
        FeatureEmbedding(fields=())
    with pytest.raises(ValueError, match="at least one row"):
        FusedTable(rows={"a": 0}, dim=4)


def test_ids_become_int64_where_int32_cannot_count_the_rows():
    with torch.device("meta"):
        assert FusedTable(rows={"a": 2**31 - 1}, dim=1).id_dtype == torch.int32
        assert FusedTable(rows={"a": 2**31 - 1, "b": 1}, dim=1).id_dtype == torch.int64


def test_only_numbers_need_no_table():
    fields = (FittedField("age", "numeric", 1), FittedField("v", "vector", 2))
    embedding = FeatureEmbedding(fields=fields)
    batch = make_batch(fields, 3)
    assert torch.equal(embedding(batch), batch.numeric)
    assert not list(embedding.parameters())


def test_pooling_an_empty_column_gives_zeros():
    assert torch.equal(pool(torch.zeros(0, 2), torch.tensor([0, 0, 0]), "max"), torch.zeros(2, 2))


def test_a_storage_of_its_own_keeps_its_tables_too():
    table = FusedTable(rows={"a": 3, "b": 2}, dim=4)
    assert set(table.state_dict()) == {"a", "b"}
    other = FusedTable(rows={"a": 3, "b": 2}, dim=4)
    other.load_state_dict(table.state_dict())
    assert torch.equal(other.weight, table.weight)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(dict(table.state_dict()) | {"c": torch.zeros(1, 4)})
