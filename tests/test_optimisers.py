from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isthmus.layers.tables import FusedTable
from isthmus.optimisers import (
    LazyAdam,
    adam,
    build_optimiser,
    clip_gradients,
    padded_rows,
    resolve_embedding_update,
    summed_rows,
)

ROWS, DIM = 12, 4


class Toy(nn.Module):
    """Two tables (one of single weights) and a linear layer."""

    def __init__(self, rows: int = ROWS) -> None:
        super().__init__()
        self.table = FusedTable(rows={"a": rows}, dim=DIM, std=0.5)
        self.wide = FusedTable(rows={"a": rows}, dim=1, std=0.5)
        self.linear = nn.Linear(DIM, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return (self.linear(self.table(ids)) + self.wide(ids)).square().mean()


def toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy()


def train(model: Toy, batches: list[Tensor], **options) -> None:
    optimiser = build_optimiser(model, **options)
    for ids in batches:
        optimiser.zero_grad()
        model(ids).backward()
        optimiser.step()


def every_row(steps: int) -> list[Tensor]:
    """Batches that hold each row, some of them several times."""
    draw = torch.Generator().manual_seed(1)
    extra = [torch.randint(0, ROWS, (30,), generator=draw) for _ in range(steps)]
    return [torch.cat([torch.arange(ROWS), ids]) for ids in extra]


def test_lazy_is_dense_when_every_row_is_in_every_batch():
    dense, lazy = toy(), toy()
    train(dense, every_row(20), lr=0.01, embedding_l2=0.1, embedding_update="dense")
    train(lazy, every_row(20), lr=0.01, embedding_l2=0.1, embedding_update="lazy")
    for a, b in zip(dense.parameters(), lazy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_rows_that_no_batch_held_keep_every_bit():
    model = toy()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    held = torch.tensor([3, 3, 7, 1])
    train(model, [held] * 5, lr=0.01, embedding_l2=0.1, embedding_update="lazy")
    absent = [row for row in range(ROWS) if row not in (1, 3, 7)]
    for name in ("table.weight", "wide.weight"):
        now = model.get_parameter(name)
        assert torch.equal(now[absent], before[name][absent])
        assert (now[[1, 3, 7]] != before[name][[1, 3, 7]]).all()


def test_lazy_matches_the_formula_written_out_row_by_row():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 2, dtype=torch.float64).float())
    w = weight.detach().double().clone()
    m, v = torch.zeros(6, 2).double(), torch.zeros(6, 2).double()
    optimiser = LazyAdam([weight], lr=0.05, l2=0.3)
    for t in range(1, 9):
        ids = torch.randint(0, 6, (4,))
        values = torch.randn(4, 2)
        weight.grad = torch.sparse_coo_tensor(ids[None], values, (6, 2), check_invariants=False)
        optimiser.step()
        for row in set(ids.tolist()):  # each row once, however often it occurs
            g = values[ids == row].double().sum(0) + 0.3 * w[row]
            m[row] = 0.9 * m[row] + 0.1 * g
            v[row] = 0.999 * v[row] + 0.001 * g**2
            rate = 0.05 / (1 - 0.9**t)
            w[row] -= rate * m[row] / ((v[row] / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(weight.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_l2_pulls_on_tables_and_on_nothing_else():
    for update in ("dense", "lazy"):
        model = toy()
        with torch.no_grad():
            model.linear.weight.zero_()
            model.linear.bias.zero_()
            model.wide.weight.zero_()
        before = model.table.weight.detach().clone()
        # The loss is flat here, so only the L2 term moves anything.
        train(model, every_row(1), lr=0.01, embedding_l2=1.0, embedding_update=update)
        assert (model.table.weight.abs() < before.abs()).all()
        assert model.linear.weight.abs().max() == 0


def test_the_wide_weights_feel_the_l2_too():
    for update in ("dense", "lazy"):
        free, held = toy(), toy()
        train(free, every_row(3), lr=0.01, embedding_l2=0.0, embedding_update=update)
        train(held, every_row(3), lr=0.01, embedding_l2=10.0, embedding_update=update)
        assert held.wide.weight.norm() < free.wide.weight.norm()


def test_the_lazy_form_never_makes_a_dense_gradient():
    model = toy()
    optimiser = build_optimiser(model, lr=0.01, embedding_update="lazy")
    model(torch.tensor([1, 1, 2])).backward()
    for table in (model.table, model.wide):
        assert table.weight.grad is not None
        assert table.weight.grad.is_sparse
        assert table.weight.grad._nnz() == 3
    optimiser.step()
    again = build_optimiser(model, lr=0.01, embedding_update="dense")
    again.zero_grad()
    model(torch.tensor([1])).backward()
    assert model.table.weight.grad is not None
    assert not model.table.weight.grad.is_sparse


def test_summed_rows_are_what_coalescing_gives():
    torch.manual_seed(0)
    ids = torch.randint(0, 40, (1, 300))
    grad = torch.sparse_coo_tensor(ids, torch.randn(300, 3), (50, 3), check_invariants=False)
    rows, sums = summed_rows(grad)
    reference = grad.coalesce()
    assert torch.equal(rows, reference.indices()[0])
    torch.testing.assert_close(sums, reference.values(), rtol=1e-5, atol=1e-5)
    assert torch.equal(sums, summed_rows(grad)[1])  # bit for bit
    assert torch.equal(summed_rows(reference)[1], reference.values())


@pytest.mark.parametrize("entries", [1, 30])
def test_padded_rows_are_the_summed_ones_and_the_first_of_them_again(entries: int):
    torch.manual_seed(0)
    ids, values = torch.randint(ROWS, (1, entries)), torch.randn(entries, DIM)
    grad = torch.sparse_coo_tensor(ids, values, (ROWS, DIM), check_invariants=False)
    rows, sums = summed_rows(grad)
    padded, padded_sums = padded_rows(grad)
    assert len(padded) == entries
    assert torch.equal(padded[: len(rows)], rows)
    assert torch.equal(padded_sums[: len(rows)], sums)
    assert (padded[len(rows) :] == rows[0]).all()
    assert (padded_sums[len(rows) :] == sums[0]).all()


def test_a_lazy_step_with_fixed_shapes_is_the_step_with_the_others(monkeypatch: pytest.MonkeyPatch):
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, ROWS, (9,), generator=draw) for _ in range(5)]
    plain, fixed = toy(), toy()
    train(plain, batches, lr=0.01, embedding_l2=0.1, embedding_update="lazy")
    monkeypatch.setattr(adam, "shapes_are_fixed", lambda _: True)  # as on a GPU
    train(fixed, batches, lr=0.01, embedding_l2=0.1, embedding_update="lazy")
    for a, b in zip(plain.parameters(), fixed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("update", ["dense", "lazy"])
def test_training_goes_on_exactly_where_a_saved_state_left_it(update, tmp_path: Path):
    draw = torch.Generator().manual_seed(3)
    batches = [torch.randint(0, ROWS, (8,), generator=draw) for _ in range(10)]
    options = {"lr": 0.01, "embedding_l2": 0.1, "embedding_update": update}
    straight = toy()
    train(straight, batches, **options)

    first = toy()
    optimiser = build_optimiser(first, **options)
    for ids in batches[:4]:
        optimiser.zero_grad()
        first(ids).backward()
        optimiser.step()
    state = optimiser.state_dict()
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    assert all(type(value) in (int, float) for value in numbers.values())
    save_file(tensors, tmp_path / "state.safetensors")

    second = toy(seed=1)
    second.load_state_dict(first.state_dict())
    resumed = build_optimiser(second, **options)
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors") | numbers)
    for ids in batches[4:]:
        resumed.zero_grad()
        second(ids).backward()
        resumed.step()
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_another_model_or_form_is_refused():
    model = toy()
    lazy = build_optimiser(model, lr=0.01, embedding_update="lazy")
    model(torch.tensor([1])).backward()
    lazy.step()
    state = lazy.state_dict()
    with pytest.raises(ValueError, match=r"no place for.*lazy_steps"):
        build_optimiser(toy(), lr=0.01, embedding_update="dense").load_state_dict(state)
    with pytest.raises(ValueError, match=r"must have shape \(20, 2, 4\), got \(12, 2, 4\)"):
        build_optimiser(Toy(rows=20), lr=0.01, embedding_update="lazy").load_state_dict(state)
    with pytest.raises(ValueError, match="'lr'"):
        build_optimiser(toy(), lr=0.01).load_state_dict({})


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_clipping_is_the_same_for_sparse_and_dense_gradients(max_norm):
    ids = torch.tensor([1, 1, 1, 5])
    dense, sparse = toy(), toy()
    build_optimiser(sparse, lr=0.01, embedding_update="lazy")
    for model in (dense, sparse):
        model(ids).backward()
    whole = torch.nn.utils.get_total_norm(
        [p.grad for p in dense.parameters() if p.grad is not None]
    )
    assert torch.isclose(clip_gradients(dense.parameters(), max_norm), whole)
    assert torch.isclose(clip_gradients(sparse.parameters(), max_norm), whole)
    for a, b in zip(dense.parameters(), sparse.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad.to_dense() if b.grad.is_sparse else b.grad)
    now = torch.nn.utils.get_total_norm([p.grad for p in dense.parameters() if p.grad is not None])
    assert now <= max(max_norm, float(whole)) + 1e-6
    if max_norm < whole:
        assert torch.isclose(now, torch.tensor(max_norm), rtol=1e-3)


def test_clipping_nothing_is_no_fault():
    assert clip_gradients(toy().parameters(), 1.0) == 0
    with pytest.raises(ValueError, match="max_norm must be positive, got 0"):
        clip_gradients(toy().parameters(), 0)


def test_auto_is_lazy_above_a_million_rows():
    with torch.device("meta"):
        small, large = Toy(rows=500_000), Toy(rows=500_001)
    assert resolve_embedding_update(small, "auto") == "dense"
    assert resolve_embedding_update(large, "auto") == "lazy"
    assert resolve_embedding_update(large, "dense") == "dense"
    assert resolve_embedding_update(small, "lazy") == "lazy"


def test_the_learning_rate_can_be_changed():
    model = toy()
    optimiser = build_optimiser(model, lr=0.01, embedding_update="lazy")
    optimiser.lr = 1e-9
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.arange(ROWS)).backward()
    optimiser.step()
    for a, b in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-7)
    assert optimiser.lr == 1e-9


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="lr must be positive, got 0"):
        build_optimiser(toy(), lr=0)
    with pytest.raises(ValueError, match="embedding_l2 must not be negative, got -1"):
        build_optimiser(toy(), lr=1, embedding_l2=-1)
    with pytest.raises(ValueError, match="'dense' or 'lazy', got 'auto'"):
        build_optimiser(toy(), lr=1, embedding_update="auto")  # type: ignore[arg-type]
