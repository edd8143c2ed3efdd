"""Tables whose rows lie on several processes, against the same tables in one."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fake_batches import make_batch
from isthmus import checkpoint
from isthmus.disk import sha256
from isthmus.errors import BundleError
from isthmus.layers.tables import Box
from isthmus.optimisers import build_optimiser
from isthmus.sharding import (
    lookup_bytes,
    read_shards,
    resolve_tables,
    shard_files,
    shard_tables,
)
from isthmus.sharding.boxes import box_to_plain, common_rows
from ranked import on_ranks
from sharded_scenarios import (
    FIELDS,
    ROWS,
    SAVED_AFTER,
    SIZES,
    STEPS,
    batch,
    net,
    network,
    one_step,
    rows_of,
    state_of,
    train,
)

WORLDS = (2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds what the processes write, and a checkpoint that one process wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    model = net()
    optimiser, _ = train(model, steps=range(SAVED_AFTER))
    checkpoint.save(folder / "checkpoint-1", state_of(model, optimiser))
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[int, list[dict[str, Tensor]]]:
    return on_ranks("sharded_scenarios", folder, WORLDS)


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
@pytest.mark.parametrize("name", list(FIELDS))
def test_a_network_on_sharded_tables_is_the_network(found, world: int, name: str):
    model, whole = network(FIELDS[name]), make_batch(FIELDS[name], ROWS)
    logits = one_step(model, whole, ROWS)
    parts = [part[f"network/{name}/logits"] for part in found[world]]
    torch.testing.assert_close(torch.cat(parts), logits, rtol=1e-5, atol=1e-6)
    after = model.eval()(whole).detach()
    assert (after - logits).abs().max() > 1e-3  # the step moved something
    for part in found[world]:
        torch.testing.assert_close(part[f"network/{name}/after"], after, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(("world", "writers"), [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4)])
def test_a_run_goes_on_with_another_number_of_processes(found, world: int, writers: int):
    model = net()
    train(model)
    for name, tensor in put_together(found[world], f"resumed/{writers}").items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-6, atol=1e-6)
        if world == writers:  # to the bit, as if it had not been stopped
            assert torch.equal(tensor, put_together(found[world], "lazy")[name])


@pytest.mark.parametrize("writers", WORLDS)
def test_a_checkpoint_of_several_processes_goes_on_in_one(found, folder: Path, writers: int):
    straight, model = net(), net()
    train(straight)
    optimiser = build_optimiser(model, lr=0.05, embedding_l2=0.1, embedding_update="lazy")
    state = checkpoint.load(folder / f"checkpoint-{writers}")
    model.load_state_dict(state.model)
    optimiser.load_state_dict(state.optimiser)
    for name, tensor in model.state_dict().items():
        assert torch.equal(state.best[name], tensor + 1)
    train(model, steps=range(SAVED_AFTER, STEPS), optimiser=optimiser)
    for name, tensor in straight.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)
    files = {file.name[:5] for file in (folder / f"checkpoint-{writers}").iterdir()}
    assert files == {"check", "tenso", "shard"}  # and none of the former state
    assert len(list((folder / f"checkpoint-{writers}").iterdir())) == 2 + writers


@pytest.mark.parametrize("writers", WORLDS)
def test_whole_weights_of_several_processes_are_one_file(found, folder: Path, writers: int):
    model = net()
    train(model, steps=range(SAVED_AFTER))
    tensors = load_file(folder / f"whole-{writers}.safetensors")
    assert tensors.pop("flag").tolist() == [True]
    assert tensors.pop("count").item() == 3
    assert set(tensors) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-6, atol=1e-6)


def test_shards_that_are_missing_damaged_or_of_another_shape_are_refused(
    found, folder: Path, tmp_path: Path
):
    kept = folder / "checkpoint-2"
    one = sorted(kept.glob("shard-*"))[0]
    index = json.loads(json.loads((kept / checkpoint.FILE).read_text())["body"])["shards"]
    wrong = {"model.tables.a": Box((12, 4), range(12), range(4))}
    with pytest.raises(BundleError, match=r"model.tables.a with shape \(12, 4\), got \(11, 4\)"):
        read_shards(kept, index, wrong)
    with pytest.raises(BundleError, match="must hold all of"):
        read_shards(kept, {**index, "files": index["files"][:1]}, {})
    with pytest.raises(BundleError, match="format 1, got 9"):
        read_shards(kept, {**index, "format": 9}, {})
    broken = Path(shutil.copytree(kept, tmp_path / "broken"))
    os.truncate(broken / one.name, one.stat().st_size - 1)
    with pytest.raises(BundleError, match="checksum"):
        checkpoint.load(broken)
    (broken / one.name).unlink()
    with pytest.raises(BundleError, match=f"{one.name} is missing"):
        checkpoint.load(broken)


@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 12), st.integers(1, 6))
def test_common_rows_are_those_of_both(a: int, by_a: int, b: int, by_b: int):
    one, other = range(a, 40, by_a), range(b, 33, by_b)
    assert list(common_rows(one, other)) == sorted(set(one) & set(other))


@given(st.integers(0, 23), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_parts_are_read_by_any_number_of_processes(rows: int, wrote: int, read: int, piece: int):
    """Rows in turn, or columns, written as one way of dealing and read as another, in small pieces."""
    whole = torch.randn(rows, 2, 4)
    columns = [range(1), range(1, 4)]
    boxes = [
        Box((rows, 2, 4), range(r, max(rows, r), wrote), c) for r in range(wrote) for c in columns
    ]
    with tempfile.TemporaryDirectory() as name, mock.patch.object(shard_files, "PIECE_ROWS", piece):
        files = []
        for number, box in enumerate(boxes):
            file = Path(name) / f"shard-{number}"
            save_file({"x": box.of(whole).contiguous()}, file)
            files.append(
                {"file": file.name, "sha256": sha256(file), "parts": {"x": box_to_plain(box)}}
            )
        for rank in range(read):
            box = Box((rows, 2, 4), range(rank, max(rows, rank), read), range(3))
            index = {"format": 1, "files": files}
            assert torch.equal(read_shards(Path(name), index, {"x": box})["x"], box.of(whole))


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
