"""Tables by TorchRec against plain ones; without TorchRec, what is said of that."""

import importlib
import importlib.util
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isthmus import checkpoint
from isthmus.errors import ConfigError
from isthmus.optimisers import build_optimiser
from isthmus.sharding import torchrec_table
from isthmus.sharding.torchrec_table import can_hold, check_torchrec
from ranked import on_ranks
from sharded_scenarios import SAVED_AFTER, STEPS, train
from torchrec_scenarios import network, ways

installed = pytest.mark.skipif(
    importlib.util.find_spec("torchrec") is None, reason="TorchRec is not installed"
)
WORLDS = (2, 4)


@installed
def test_five_steps_equal_those_of_one_process_and_state_is_one_tensor_a_table(tmp_path: Path):
    found = on_ranks("torchrec_scenarios", tmp_path, WORLDS)
    for update in ("lazy", "dense"):
        straight = network()
        _, told = train(straight, update=update, clip=0.3)
        for world in WORLDS:
            for way in ways(world):
                name = f"{way}-{update}-{world}"
                for key, tensor in load_file(tmp_path / f"{name}.safetensors").items():
                    expected = straight.state_dict()[key]
                    torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-6)
                for step in range(STEPS):
                    parts = [part[f"{way}/{update}/logits {step}"] for part in found[world]]
                    expected = told[f"logits {step}"]
                    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-5, atol=1e-6)
                model = network()  # goes on in one process
                optimiser = build_optimiser(
                    model, lr=0.05, embedding_l2=0.1, embedding_update=update
                )
                state = checkpoint.load(tmp_path / name)
                model.load_state_dict(state.model)
                optimiser.load_state_dict(state.optimiser)
                train(model, clip=0.3, steps=range(SAVED_AFTER, STEPS), optimiser=optimiser)
                for key, tensor in model.state_dict().items():
                    expected = straight.state_dict()[key]
                    torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-6)
    assert set(ways(2)) == {"table_wise", "column_wise"}
    assert ways(4) == ["table_wise"]


def test_a_missing_torchrec_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(torchrec_table.importlib, "import_module", missing)
    with pytest.raises(
        ConfigError, match=r"need torchrec==1\.8\.0 .* --no-deps, got torch .*No module"
    ):
        check_torchrec()


def test_a_clash_of_the_packages_of_fbgemm_is_named(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "fbgemm-gpu-genai":
            raise metadata.PackageNotFoundError(name)
        return "1.8.0"

    monkeypatch.setattr(torchrec_table.metadata, "version", version)
    with pytest.raises(ConfigError, match=r"got fbgemm-gpu 1\.8\.0 and fbgemm-gpu-cpu 1\.8\.0; un"):
        check_torchrec()


def test_columns_must_be_what_the_kernels_take():
    assert can_hold(8, 2, "column_wise")
    assert not can_hold(8, 4, "column_wise")
    assert can_hold(8, 4, "table_wise")
    assert not can_hold(2, 1, "table_wise")
