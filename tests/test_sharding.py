"""Tables whose rows lie on several processes, against the same tables in one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from isthmus.layers.tables import Box
from isthmus.sharding import lookup_bytes, resolve_tables, shard_tables
from ranked import on_ranks
from sharded_scenarios import ROWS, SIZES, STEPS, batch, net, rows_of, train

WORLDS = (2, 4)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    return {world: on_ranks(world, "sharded_scenarios", folder) for world in WORLDS}


def put_together(parts: list[dict[str, Tensor]], scenario: str) -> dict[str, Tensor]:
    """The whole tables of the net from the parts, row ``r`` of a storage from process ``r % world``."""
    whole = {}
    first = {"a": 0, "b": SIZES["a"][0], "c": 0}  # where each table begins in its storage
    for name, (rows, dim) in SIZES.items():
        whole[f"tables.{name}"] = torch.full((rows, dim), torch.nan)
        for row in range(rows):
            rank = (first[name] + row) % len(parts)
            before = sum((first[name] + r) % len(parts) == rank for r in range(row))
            whole[f"tables.{name}"][row] = parts[rank][f"{scenario}/tables.{name}"][before]
    return whole


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("scenario", ["lazy", "dense", "clipped"])
def test_five_steps_equal_those_of_one_process(found, world: int, scenario: str):
    parts, model = found[world], net()
    update = "dense" if scenario == "dense" else "lazy"
    _, told = train(model, update=update, clip=0.3 if scenario == "clipped" else None)
    for name, tensor in {**model.state_dict(), **put_together(parts, scenario)}.items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-6, atol=1e-6)
    for step in range(STEPS):
        logits = torch.cat([part[f"{scenario}/logits {step}"] for part in parts])
        torch.testing.assert_close(logits, told[f"logits {step}"], rtol=1e-6, atol=1e-6)
        if scenario == "clipped":
            assert told[f"norm {step}"] > 0.3 or step  # it does clip
            for part in parts:
                norm = part[f"clipped/norm {step}"]
                torch.testing.assert_close(norm, told[f"norm {step}"], rtol=1e-5, atol=1e-6)
    for part in parts:  # the dense part is the same everywhere
        expected = model.linear.weight.detach()
        torch.testing.assert_close(
            part[f"{scenario}/linear.weight"], expected, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("world", WORLDS)
def test_a_fresh_start_is_that_of_one_process_to_the_bit(found, world: int):
    model = net()
    drawn = torch.rand(3)
    for name, tensor in put_together(found[world], "start").items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    for part in found[world]:
        assert torch.equal(part["start/linear.weight"], model.linear.weight)
        assert torch.equal(part["start/next"], drawn)  # as many random numbers were taken


@pytest.mark.parametrize("world", WORLDS)
def test_ids_that_one_process_asks_for_get_their_gradient_where_they_lie(found, world: int):
    expected = torch.zeros(13, 3)
    expected[7], expected[2] = 2.0, 1.0
    for rank, part in enumerate(found[world]):
        assert torch.equal(part["odd/gradient"], expected[rank::world])


@pytest.mark.parametrize("world", WORLDS)
def test_a_step_sends_the_bytes_of_the_formula(found, world: int):
    sent = [part["bytes/sent"].item() for part in found[world]]
    assert sum(sent) / world == found[world][0]["bytes/formula"].item()


def test_the_formula_is_that_of_a_look_up_written_out():
    # 1,000 rows of 16 floats, half of them elsewhere: a count, 500 ids, 500 rows, 500 gradients.
    assert lookup_bytes(1000, 16, 2) == 8 + 500 * 4 + 2 * 500 * 64
    assert lookup_bytes(1000, 16, 2, trained=False) == 8 + 500 * 4 + 500 * 64
    assert lookup_bytes(1000, 16, 1) == 0


def test_rows_dealt_in_turn_share_the_work_of_zipf_ids():
    draw = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1.0, 10_001)
    asked = [torch.multinomial(weights, 2000, True, generator=draw).unique() for _ in range(4)]
    rows = torch.cat(asked)
    in_turn = torch.bincount(rows % 4, minlength=4)
    in_blocks = torch.bincount(rows // 2500, minlength=4)
    assert in_turn.max() < 1.1 * in_turn.float().mean()
    assert in_blocks.max() > 2 * in_blocks.float().mean()


def test_auto_shards_large_tables_on_several_processes_only():
    large = 2**32 // 12 + 1
    assert resolve_tables("auto", weights=large, world=2) == "sharded"
    assert resolve_tables("auto", weights=large - 1, world=2) == "replicated"
    assert resolve_tables("auto", weights=large, world=1) == "replicated"
    assert resolve_tables("sharded", weights=1, world=1) == "replicated"
    assert resolve_tables("sharded", weights=1, world=2) == "sharded"
    assert resolve_tables("replicated", weights=large, world=2) == "replicated"


def test_one_process_keeps_its_plain_tables():
    model = net()
    before = list(model.modules())
    shard_tables(model, None)
    assert list(model.modules()) == before


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 3))
def test_a_box_takes_its_part_of_a_whole(rows: int, step: int, first: int):
    whole = torch.arange(rows * 6).view(rows, 2, 3)
    box = Box((rows, 2, 3), range(first, max(rows, first), step), range(1, 3))
    part = box.of(whole)
    assert part.tolist() == [[line[1:3] for line in whole[r].tolist()] for r in box.rows]
    assert part.shape == box.part_shape
    taken = box.taken_from(whole)
    assert taken is not None
    assert taken.tolist() == part.tolist()
    assert box.taken_from(torch.zeros(rows + 1, 2, 3)) is None


def test_batches_of_the_scenarios_are_parts_of_one_whole():
    whole = batch(0, range(ROWS))
    for world in WORLDS:
        parts = [batch(0, rows_of(rank, world)) for rank in range(world)]
        for index in (0, 1, 3):
            assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])
