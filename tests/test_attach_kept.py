"""A frozen backbone, the adapter's own file, and an adapter that becomes a part of the weights."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from attached import AT, N_DOMAINS, adapted, awake, rows, small, still
from isthmus.adapters import Film
from isthmus.attaching import Attachment, attach, load_adapters, merge_adapters, save_adapters
from isthmus.errors import BundleError, RunError

X, DOMAIN = rows(12)


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
    )


def train(adapted_: Attachment, steps: int = 5) -> None:
    optimiser = torch.optim.AdamW(adapted_.parameters(), lr=0.05)
    adapted_.train()
    for _ in range(steps):
        optimiser.zero_grad()
        adapted_(X, domain=DOMAIN, condition=X).square().mean().backward()
        optimiser.step()


def test_a_frozen_backbone_stays_bit_for_bit_while_its_adapter_trains():
    module = normed()
    module[0].weight.requires_grad_(False)  # by the user's own hand
    module(X).sum().backward()
    before = copy.deepcopy(module.state_dict())
    adapted_ = attach(module, at="2", adapter=awake(site_widths=(8,), sites=(0,)))
    adapted_.freeze()
    of_adapter = copy.deepcopy(adapted_.adapter.state_dict())
    train(adapted_)
    module.train()
    train(adapted_)
    now = adapted_.adapter.state_dict()
    assert any(not torch.equal(now[name], tensor) for name, tensor in of_adapter.items())
    assert adapted_.adapter.training
    assert not module[1].training
    assert adapted_.adapter.cell(0).norm.pooled_rows > 0
    adapted_.detach()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == set(dict(module.named_parameters())) - {"0.weight"}
    assert all(part.training for part in module.modules())


def test_unfreeze_lets_the_backbone_train_again():
    module = normed()
    adapted_ = attach(module, at="2", adapter=awake(site_widths=(8,), sites=(0,)))
    adapted_.freeze()
    adapted_.unfreeze()
    before = copy.deepcopy(module.get_parameter("0.weight"))
    train(adapted_, steps=1)
    assert not torch.equal(module.get_parameter("0.weight"), before)
    assert module[1].num_batches_tracked == 1


def test_adapters_come_back_from_a_small_file(tmp_path: Path):
    path = tmp_path / "adapters.safetensors"
    adapted_ = adapted()
    adapted_.freeze()
    train(adapted_)
    adapted_.eval()
    expected = adapted_(X, domain=DOMAIN, condition=X)
    save_adapters(adapted_, path)
    fresh = attach(small(), at=AT, adapter=awake())
    load_adapters(fresh, path)
    assert torch.equal(fresh.eval()(X, domain=DOMAIN, condition=X), expected)
    weights = sum(t.numel() * t.element_size() for t in adapted_.adapter.state_dict().values())
    assert path.stat().st_size < weights + 4096
    with safe_open(path, framework="pt") as file:
        assert all(name.startswith(("hyper.", "cells.")) for name in file.keys())  # noqa: SIM118
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def other_weights() -> nn.Module:
    module = small()
    with torch.no_grad():
        module.get_parameter("second.0.bias").add_(1e-3)
    return module


def wider() -> nn.Module:
    module = small()
    module.out = nn.Linear(6, 2)
    return module


@pytest.mark.parametrize(
    ("attached", "text"),
    [
        (lambda: attach(other_weights(), at=AT, adapter=awake()),
         "must have the weights it was saved with, and 'second.0.bias' differs"),
        (lambda: attach(wider(), at=AT, adapter=awake()),
         r"'out\.weight' of the backbone must be \(1, 6\), got \(2, 6\)"),
        (lambda: attach(small(), at=AT, adapter=awake(n_domains=4)),
         "the number of domains must be 3 as in the file, got 4"),
        (lambda: attach(small(), at=AT, adapter=awake(rank=3)),
         r"'cells\.0\.down\.left' of the adapter must be \(4, 8, 2\) as in the file, got \(4, 8, 3\)"),
        (lambda: attach(small(), at={"first.1": 0}, adapter=awake()),
         "an adapter must sit behind 'second.1' as in the file, got first.1"),
        (lambda: attach(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), at="1",
                        adapter=awake(site_widths=(8,), sites=(0,))),
         "an adapter must sit behind 'first.1'"),
        (lambda: attach(nn.ModuleDict({"first": nn.Sequential(nn.Linear(4, 5), nn.ReLU()),
                                       "second": nn.Sequential(nn.Linear(5, 6), nn.ReLU())}),
                        at=AT, adapter=awake(site_widths=(5, 6))),
         "'first.1' must be site 0 of width 8 as in the file, got site 0 of width 5"),
        (lambda: attach(small(), at=AT, adapter=Film(site_widths=(8, 6), sites=(0, 1),
                                                     condition_width=4, n_domains=3)),
         "the adapter must be Hamur as in the file, got Film"),
    ],
)  # fmt: skip
def test_a_file_for_another_backbone_or_adapter_is_refused_by_name(attached, text, tmp_path: Path):
    path = tmp_path / "adapters.safetensors"
    save_adapters(adapted(), path)
    other = attached()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(BundleError, match=text):
        load_adapters(other, path)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_no_adapter_file_is_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(BundleError, match="must be an adapter file"):
        load_adapters(adapted(), path)
    path.write_bytes(b"no tensors here")
    with pytest.raises(BundleError, match="must be an adapter file"):
        load_adapters(adapted(), path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BundleError, match="written by save_adapters"):
        load_adapters(adapted(), path)
    told = {"isthmus_adapters": json.dumps({"format": "9", "isthmus": "7.0"})}
    save_file({"a": torch.zeros(1)}, path, metadata=told)
    with pytest.raises(BundleError, match=r"must have format 1, got 9 \(written by isthmus 7\.0\)"):
        load_adapters(adapted(), path)
    with pytest.raises(RunError, match=r"adapter file .* cannot be written"):
        save_adapters(adapted(), tmp_path / "missing" / "x")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("domain", range(N_DOMAINS + 1))
def test_a_still_adapter_becomes_a_part_of_the_weights(domain: int, bias: bool):
    module = small().eval()
    module.first[0] = nn.Linear(4, 8, bias=bias)
    adapted_ = attach(module, at={"first.0": 0, "second.0": 1}, adapter=still())
    of_domain = torch.full((12,), domain)
    expected = adapted_(X, domain=of_domain)
    assert not torch.allclose(expected, adapted_(X, domain=torch.full((12,), (domain + 1) % 4)))
    assert merge_adapters(adapted_, domain=domain) is module
    assert not any(part._forward_hooks for part in module.modules())
    torch.testing.assert_close(module(X), expected, rtol=1e-4, atol=1e-5)


def test_what_arithmetic_does_not_allow_is_not_merged():
    tied = small()
    tied.second[0] = nn.Linear(8, 8)
    tied.first.append(nn.Linear(8, 8))
    tied.first[2].weight = tied.second[0].weight
    cases = {
        "Hamur reads a condition of each row": attach(
            small(), at={"out": 0}, adapter=awake(site_widths=(1,), sites=(0,))
        ),
        "'first.1' must be a Linear for a merge into weights, got ReLU": attach(
            small(), at=AT, adapter=still()
        ),
        "the cell at 'first.0' must be linear": attach(
            small(), at={"first.0": 0, "second.0": 1}, adapter=still(bend=True)
        ),
        "the weight of 'second.0' must be its own, got one of": attach(
            tied, at={"second.0": 0}, adapter=still(site_widths=(8,))
        ),
    }
    for text, adapted_ in cases.items():
        before = copy.deepcopy(adapted_.state_dict())
        with pytest.raises(ValueError, match=text):
            merge_adapters(adapted_, domain=1)
        assert adapted_.attached
        for name, tensor in adapted_.state_dict().items():
            assert torch.equal(tensor, before[name])
    with pytest.raises(ValueError, match=r"domain must lie in 0\.\.3, got 4"):
        merge_adapters(attach(small(), at={"first.0": 0, "second.0": 1}, adapter=still()), domain=4)
