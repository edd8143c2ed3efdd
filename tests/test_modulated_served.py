"""A modulated network from config to served score, and resumed from disk."""

from pathlib import Path

import numpy as np
import pytest
import torch

import isthmus
from isthmus.bundle import Bundle
from isthmus.data import Dataset
from isthmus.models import ModelConfig, build_model
from isthmus.run.scores import read_scores
from isthmus.schema import DataConfig
from isthmus.train import TrainConfig, train
from modulated_parts import NAMES, small_config
from resumed import in_pieces
from small_runs import clicks, settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def with_network(name: str) -> dict:
    """A config with the network, and HAMUR at its upper site."""
    config = settings()
    config["model"]["backbone"] = small_config(name).model_dump(mode="json")
    return config


@pytest.mark.parametrize("name", NAMES)
def test_a_raw_row_gets_the_score_that_was_evaluated(name, cache: Path, tmp_path: Path):
    config = isthmus.load_config(with_network(name))
    run = isthmus.fit(config, clicks(), out=tmp_path / "run", cache=cache)
    bundle = Bundle.load(run.path / "bundle")
    logits = bundle.logits(clicks())
    for split in ("validation", "test"):
        scored = read_scores(run.path / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(logits[scored.row], scored.logits, atol=1e-5)
    alone = [bundle.logits(clicks().slice(row, 1))[0] for row in range(8)]
    np.testing.assert_allclose(alone, logits[:8], atol=1e-5)


@pytest.mark.parametrize("name", ["adasparse", "adaptdhm"])  # both keep what is no parameter
def test_a_stopped_training_goes_on_with_the_same_bits(name, cache: Path, tmp_path: Path):
    config = with_network(name)
    dataset = Dataset.from_table(DataConfig.model_validate(config["data"]), clicks(), cache=cache)

    def make(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = ModelConfig.model_validate(config["model"])
        return build_model(model, dataset.encoder.fields, dataset.n_domains)

    want = TrainConfig(batch_rows=128, epochs=2, lr=0.01, checkpoint_minutes=0, device="cpu")
    whole = make(1)
    for _ in train(whole, dataset, want):
        pass
    pieced, _, _ = in_pieces(make, dataset, want, (2, 7), tmp_path)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieced.state_dict()[key]), key
