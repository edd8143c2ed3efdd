"""Several processes at one training: N ranks with a part of each batch are one rank with the whole."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ranks_at_work import CASES, STEPS
from small_runs import clicks
from worlds import HERE, ends, environment, start_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What worlds of 1, 2 and 3 processes have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    table = clicks()
    weight = 0.5 + np.random.default_rng(1).random(len(table))
    pq.write_table(table.append_column("weight", pa.array(weight)), folder / "table.parquet")
    subprocess.run(command(folder, list(CASES)), check=True, env=environment())  # encodes, too
    several = [start_world(2, words(folder, list(CASES))), start_world(3, words(folder, ["short"]))]
    for world in several:
        for code, _, err in ends(world):
            assert code == 0, err
    return folder


def words(folder: Path, names: list[str]) -> list[Any]:
    return [HERE / "ranks_at_work.py", folder, *names]


def command(folder: Path, names: list[str]) -> list[str]:
    return [sys.executable, *map(str, words(folder, names))]


def result(folder: Path, name: str, size: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    file = folder / f"{name}-{size}"
    return load_file(file.with_suffix(".safetensors")), json.loads(
        file.with_suffix(".json").read_text()
    )


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in CASES), ("short", 3)])
def test_ranks_with_parts_of_a_batch_are_one_rank_with_the_whole(
    folder: Path, name: str, size: int
):
    (alone, told), (shared, told_shared) = result(folder, name, 1), result(folder, name, size)
    assert alone.keys() == shared.keys()
    # A choice of a cluster is hard, and some gradients about it are as small as the noise of a sum.
    atol = {"clusters": 1e-3, "half": 2e-2}.get(name, 1e-5)
    close = 1e-3 if name == "half" else 1e-5
    for key in alone:
        torch.testing.assert_close(shared[key], alone[key], rtol=0, atol=atol, msg=key)
    look, look_shared = told["looks"][-1], told_shared["looks"][-1]
    assert look["step"] == look_shared["step"] == CASES[name].get("steps", STEPS)
    assert look_shared["loss"] == pytest.approx(look["loss"], abs=close)
    for metric, value in look["metrics"].items():
        # In half precision each step rounds gradients to 8 bits, in sums of other parts.
        near = close if name == "half" else close / 10
        assert look_shared["metrics"][metric] == pytest.approx(value, abs=near), metric
    np.testing.assert_allclose(told_shared["logits"], told["logits"], atol=max(atol, 1e-5))
