"""A training that is stopped anywhere and resumed from disk ends with the same bits."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from isthmus import checkpoint
from isthmus.data import Dataset
from isthmus.errors import RunError
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.schema import DataConfig
from isthmus.train import CheckpointDue, End, Look, TrainConfig, score_batch, train
from resumed import in_pieces

ROWS = 2400


def make_table(rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 150, rows), rng.zipf(1.3, rows).clip(max=80)
    history = [rng.integers(1, 80, rng.integers(0, 5)).tolist() for _ in range(rows)]
    tab = rng.choice(["home", "feed", "shop"], rows, p=[0.6, 0.3, 0.1])
    logit = np.sin(user) + np.where(tab == "shop", -1, 1) * np.cos(item)
    return pa.table(
        {
            "user": user,
            "item": item,
            "history": history,
            "tab": tab,
            "x": rng.normal(size=rows),
            "w": rng.random(rows) + 0.5,
            "click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
        }
    )


def data_config(**changes) -> DataConfig:
    return DataConfig.model_validate(
        {
            "domain": "tab",
            "label": "click",
            "weight": "w",
            "features": {
                "user": {"kind": "categorical", "dim": 4},
                "item": {"kind": "categorical", "dim": 4},
                "history": {"kind": "categorical_list", "shares": "item", "dim": 4},
                "tab": {"kind": "categorical", "dim": 4},
                "x": "numeric",
            },
            "split": {"by": "random", "fractions": (0.7, 0.15, 0.15)},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.from_table(data_config(), make_table(), cache=tmp_path_factory.mktemp("cache"))


def make_model(dataset: Dataset, adapter: str, seed: int) -> DomainModel:
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "mlp", "widths": [16, 8], "dropout": 0.3},
            "adapter": {"name": adapter},
        }
    )
    torch.manual_seed(seed)
    return build_network(config, dataset.encoder.fields, dataset.encoder.n_domains)


def settings(**changes) -> TrainConfig:
    defaults = {
        "batch_rows": 150,
        "epochs": 2,
        "lr": 0.01,
        "domain_dropout": 0.1,
        "clip_norm": 1.0,
        "patience": 1,
        "checkpoint_minutes": 0,
        "device": "cpu",
    }
    return TrainConfig(**{**defaults, **changes})


def run(model: nn.Module, dataset: Dataset, config: TrainConfig) -> tuple[list[Look], End]:
    events = list(train(model, dataset, config))
    end = events[-1]
    assert isinstance(end, End)
    return [event for event in events if isinstance(event, Look)], end


@pytest.mark.parametrize("embedding_update", ["dense", "lazy"])
@pytest.mark.parametrize("adapter", ["none", "hamur", "tal"])
def test_resuming_gives_the_same_bits(
    dataset: Dataset, tmp_path: Path, adapter: str, embedding_update: str
):
    config = settings(embedding_update=embedding_update)
    whole = make_model(dataset, adapter, seed=1)
    again = make_model(dataset, adapter, seed=1)
    looks, end = run(whole, dataset, config)
    run(again, dataset, config)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

    steps = dataset.rows("train").steps(config.batch_rows)
    assert 9 < steps < 15
    # After the first step, inside an epoch, at a look, at its end, one step later, at the very end.
    stops = [1, 2, 5, steps // 2, steps, steps + 1, end.step]
    model, told, last = in_pieces(
        lambda seed: make_model(dataset, adapter, seed), dataset, config, stops, tmp_path
    )
    assert told == looks
    assert last.history == end.history
    assert (last.step, last.best, last.stopped) == (end.step, end.best, end.stopped)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_domain_sampling_resumes_too(dataset: Dataset, tmp_path: Path):
    config = settings(domain_sampling=0.5, epochs=1, patience=9)
    whole = make_model(dataset, "none", seed=1)
    run(whole, dataset, config)
    model, _, _ = in_pieces(
        lambda seed: make_model(dataset, "none", seed), dataset, config, [4], tmp_path
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_another_dataset_model_or_thread_count_is_refused(dataset: Dataset, tmp_path: Path):
    config = settings()
    for event in train(make_model(dataset, "none", seed=1), dataset, config):
        if isinstance(event, CheckpointDue):
            checkpoint.save(tmp_path, event.state)
            break
    state = checkpoint.load(tmp_path)
    other = Dataset.from_table(data_config(), make_table(1200), cache=tmp_path / "cache")
    with pytest.raises(RunError, match="dataset that it began with"):
        next(train(make_model(other, "none", seed=1), other, config, state=state))
    with pytest.raises(RunError, match="model that it began with"):
        next(train(make_model(dataset, "hamur", seed=1), dataset, config, state=state))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(RunError, match=f"began with, {threads}, got {threads + 1}"):
            next(train(make_model(dataset, "none", seed=1), dataset, config, state=state))
    finally:
        torch.set_num_threads(threads)


def test_domain_dropout_trains_the_unknown_domain_of_a_real_model(dataset: Dataset):
    model = make_model(dataset, "hamur", seed=1)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    run(model, dataset, settings(epochs=1, embedding_l2=0.0))
    unknown = dataset.encoder.n_domains + 1
    own = {
        name: (tensor[0], before[name][0])
        for name, tensor in model.named_parameters()
        if name.startswith("adapter.") and tensor.ndim > 1 and len(tensor) == unknown
    }
    assert len(own) >= 4
    for name, (after, start) in own.items():
        assert torch.isfinite(after).all(), name
        assert not torch.equal(after, start), name
    batch = next(dataset.rows("test").batches(64))
    everyone = torch.ones(batch.rows, dtype=torch.bool)
    hidden = score_batch(model, batch.hide_domain(everyone, model.domain_places))
    assert np.isfinite(hidden).all()
    assert not np.array_equal(hidden, score_batch(model, batch))
