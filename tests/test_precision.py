"""Training with products in half the bits: what is computed in them, what is not, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from by_method import assert_same, make_dataset, make_model, run, settings, states
from isthmus.adapters import AdapterConfig
from isthmus.backbones import BackboneConfig
from isthmus.data import Dataset
from isthmus.errors import ConfigError, RunError
from isthmus.experiments import Training
from isthmus.family import members
from isthmus.models import ModelConfig, build_network
from isthmus.train import Budget, End, train
from resumed import in_pieces

HALF = "bfloat16"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


def test_products_are_in_half_the_bits_and_all_else_is_not(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    model = make_model(dataset, "hamur", norm="domain")
    products: set[tuple[bool, torch.dtype]] = set()  # while training, and while a look scores
    losses: set[torch.dtype] = set()
    linear = nn.functional.linear
    loss_of = nn.functional.binary_cross_entropy_with_logits

    def product(*given: Any) -> Tensor:
        found = linear(*given)
        products.add((model.training, found.dtype))
        return found

    def loss(logits: Tensor, *given: Any, **options: Any) -> Tensor:
        losses.add(logits.dtype)
        return loss_of(logits, *given, **options)

    monkeypatch.setattr(nn.functional, "linear", product)
    monkeypatch.setattr(nn.functional, "binary_cross_entropy_with_logits", loss)
    *_, state = states(model, dataset, settings(precision=HALF, epochs=1))
    assert products == {(True, torch.bfloat16), (False, torch.float32)}
    assert losses == {torch.float32}
    kept = [*state.model.values(), *state.optimiser.values(), *state.best.values()]
    assert {one.dtype for one in kept if isinstance(one, Tensor)} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("backbone", members(BackboneConfig))
def test_every_backbone_trains_in_it(backbone: str, dataset: Dataset):
    assert_close_losses(dataset, {"backbone": {"name": backbone}, "adapter": {"name": "none"}})


@pytest.mark.parametrize("adapter", members(AdapterConfig))
def test_every_adapter_trains_in_it(adapter: str, dataset: Dataset):
    mlp = {"name": "mlp", "widths": [8, 4]}
    assert_close_losses(dataset, {"backbone": mlp, "adapter": {"name": adapter}})


def assert_close_losses(dataset: Dataset, model: dict[str, Any]) -> None:
    """The first loss is that of float32 to the rounding of half the bits."""
    found = []
    for precision in ("float32", HALF):
        torch.manual_seed(1)
        config = ModelConfig.model_validate(model)
        network = build_network(config, dataset.encoder.fields, dataset.n_domains)
        config = settings(precision=precision, batch_rows=1000)
        *_, end = train(network, dataset, config, budget=Budget(steps=1, looks=1))
        assert isinstance(end, End)
        found.append(end.best.loss)
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_a_resumed_training_ends_with_the_same_bits(dataset: Dataset, tmp_path: Path):
    config = settings(precision=HALF, embedding_update="lazy")

    def make(seed: int) -> nn.Module:
        return make_model(dataset, "hamur", norm="domain", seed=seed)

    whole = make(1)
    looks, end = run(whole, dataset, config)
    model, told, last = in_pieces(make, dataset, config, [1, 3, 8], tmp_path)
    assert told == looks
    assert last.history == end.history
    assert_same(model, whole)


def test_a_state_of_the_other_precision_is_refused(dataset: Dataset):
    state = next(states(make_model(dataset), dataset, settings(precision=HALF)))
    with pytest.raises(RunError, match=r"train\.precision as it began, 'bfloat16', got 'float32'"):
        next(train(make_model(dataset), dataset, settings(), state=state))
    # What began before there was a choice began in float32.
    state = next(states(make_model(dataset), dataset, settings()))
    del state.config["precision"]
    assert next(train(make_model(dataset), dataset, settings(), state=state)) is not None


def test_a_compiled_step_is_refused(dataset: Dataset):
    config = settings(precision=HALF, compile=True)
    with pytest.raises(
        ConfigError, match=r"train\.precision 'bfloat16' needs train\.compile false"
    ):
        next(train(make_model(dataset), dataset, config))


def test_a_description_from_before_there_was_a_choice_stays_the_same():
    def described(**train: Any) -> dict[str, Any]:
        return Training(model=ModelConfig(), train=settings(**train)).describe()["train"]

    assert "precision" not in described()
    assert described(precision=HALF)["precision"] == HALF
