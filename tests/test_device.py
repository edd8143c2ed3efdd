"""A step of training lets nobody wait for a GPU, told on the CPU; batches are on their way beside it."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from by_method import make_dataset, settings
from fake_batches import MIXED, make_batch
from host_reads import HostReads
from isthmus.adapters import AdapterConfig, tal
from isthmus.backbones import BackboneConfig
from isthmus.backbones.experts import block_bank
from isthmus.data import Dataset
from isthmus.family import members
from isthmus.layers import domain_norm, routing
from isthmus.models import ModelConfig, build_network
from isthmus.optimisers import adam
from isthmus.train import Budget, TrainConfig, train
from isthmus.train.device import Feed

# Torch checks the classes of `one_hot` by reading them on the CPU alone.
ONE_HOT = {"ClusterGate.forward", "PathGate.forward", "VirtualClassifier.forward"}
WAITING = {  # as docs/training.md has it
    "domain_mixup": {"objectives": [{"name": "domain_mixup"}]},
    "category_mixup": {"objectives": [{"name": "category_mixup"}]},
    "gradnorm": {"weighting": "gradnorm"},
    "pcgrad": {"weighting": "pcgrad"},
    "clipped lazy tables": {"embedding_update": "lazy", "clip_norm": 1.0},
}
QUICK: dict[str, dict[str, Any]] = {
    "domain_classifier": {"objectives": [{"name": "domain_classifier"}]},
    "domain_contrast": {"objectives": [{"name": "domain_contrast"}]},
    "virtual_classifier": {"objectives": [{"name": "virtual_classifier"}]},
    **{one: {"weighting": one} for one in ("uniform", "uncertainty", "dwa", "random")},
    "clipped": {"clip_norm": 1.0},
    "lazy": {"embedding_update": "lazy"},
    "mamdr": {"method": {"name": "mamdr"}},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every part that asks do what it does on a GPU."""
    for module in (routing, domain_norm, tal, block_bank, adam):
        monkeypatch.setattr(module, "shapes_are_fixed", lambda _: True)


def three_steps(
    dataset: Dataset, config: TrainConfig, backbone: str = "mlp", adapter: str = "none"
) -> None:
    sizes = {"widths": [8, 4]} if backbone == "mlp" else {}
    model = ModelConfig.model_validate(
        {"backbone": {"name": backbone, **sizes}, "adapter": {"name": adapter}}
    )
    torch.manual_seed(1)
    network = build_network(model, dataset.encoder.fields, dataset.n_domains)
    list(train(network, dataset, config, budget=Budget(steps=3, looks=1)))


def reads(dataset: Dataset, *parts: str, **changes: Any) -> set[str]:
    """The functions that read a value in a step."""
    with HostReads() as found:
        three_steps(dataset, settings(checkpoint_minutes=9, **changes), *parts)
    return {where.partition(":")[0] for where in found.found} - ONE_HOT


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("backbone", members(BackboneConfig))
def test_no_backbone_reads_a_value_in_a_step(backbone: str, dataset: Dataset):
    assert reads(dataset, backbone) == set()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("adapter", members(AdapterConfig))
def test_no_adapter_reads_a_value_in_a_step(adapter: str, dataset: Dataset):
    assert reads(dataset, "mlp", adapter) == set()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("changes", QUICK.values(), ids=QUICK)
def test_no_value_is_read_in_a_step_with(changes: dict[str, Any], dataset: Dataset):
    assert reads(dataset, **changes) == set()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("changes", WAITING.values(), ids=WAITING)
def test_what_waits_in_every_step_is_known(changes: dict[str, Any], dataset: Dataset):
    assert reads(dataset, **changes) != set()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: not run without one")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_a_gpu(precision: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    from isthmus.train import loop

    take_step = loop._Loop.take_step

    def watched(self: Any, lesson: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if self.step else "default")
        try:
            take_step(self, lesson)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop._Loop, "take_step", watched)
    config = settings(checkpoint_minutes=9, device="cuda", precision=precision)
    three_steps(dataset, config, "mlp", "hamur")


class Streams:
    """Streams that write down what is asked of them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.here = "at work"

    def Stream(self, device: torch.device) -> str:
        return f"copies to {device}"

    def current_stream(self, device: torch.device) -> "Streams":
        assert self.here == "at work"
        return self

    def wait_stream(self, other: str) -> None:
        self.told.append(f"{self.here} waits for {other}")

    @contextmanager
    def stream(self, other: str):
        self.here = other
        yield
        self.here = "at work"


def test_a_batch_is_pinned_and_copied_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch):
    streams = Streams()
    batch = make_batch(MIXED, 5)
    tensors: list[Tensor] = []
    batch.map(lambda tensor: tensors.append(tensor) or tensor)

    def pinned(tensor: Tensor) -> Tensor:
        streams.told.append(f"pinned, {streams.here}")
        return tensor.clone()

    def used(tensor: Tensor, stream: Any) -> None:
        assert tensor.is_meta
        assert stream is streams
        streams.told.append("used at work")

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "record_stream", used)
    there = Feed(torch.device("meta"), streams=streams).bring(batch)

    found: list[Tensor] = []
    there.map(lambda tensor: found.append(tensor) or tensor)
    assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in tensors]
    copied = ["pinned, copies to meta"] * len(tensors)
    assert streams.told == [
        *copied,
        "at work waits for copies to meta",
        *["used at work"] * len(tensors),
    ]


def test_on_the_cpu_a_batch_stays_where_it_is():
    batch = make_batch(MIXED, 5)
    assert Feed(torch.device("cpu"), streams=None).bring(batch) is batch
