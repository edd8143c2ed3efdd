"""The proof on networks of others: two domains in conflict, and each network beats itself frozen.

Both domains read the same inputs, and the answer of one is the opposite of the other's. A network
that does not know the domain can do no better than guess. The network is trained, then frozen, and
its adapter alone is trained on batches that mix both domains.
"""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters import HamurConfig, MLoraConfig
from isthmus.attaching import Attachment, attach

ROWS, FIELDS, VALUES = 1024, 3, 5
DOMAIN = torch.arange(ROWS) % 2 + 1
HAMUR = HamurConfig(bottleneck=8, rank=4)
FROZEN, ADAPTED = 0.6, 0.45  # logloss: no better than guessing (0.69), and better by far


@dataclass
class Planted:
    """Ids (rows, fields), numbers (rows, 1) and labels of two domains that contradict each other."""

    ids: Tensor
    number: Tensor
    label: Tensor


@pytest.fixture(scope="module")
def planted() -> Planted:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VALUES, (ROWS, FIELDS), generator=generator)
    number = torch.randn(ROWS, 1, generator=generator)
    score = (torch.randn(FIELDS, VALUES, generator=generator)[torch.arange(FIELDS), ids]).sum(dim=1)
    agrees = (score + number[:, 0]) > 0
    return Planted(ids, number, (agrees == (DOMAIN == 1)).float())


def logloss(logits: Tensor, label: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.flatten(), label)


def fit(run: Callable[[], Tensor], module: nn.Module, label: Tensor, steps: int) -> float:
    """Logloss after so many steps of Adam on all rows, in eval."""
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.02)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        logloss(run(), label).backward()
        optimiser.step()
    module.eval()
    with torch.no_grad():
        return float(logloss(run(), label))


def beats_itself_frozen(
    module: nn.Module,
    inputs: tuple[Any, ...],
    planted: Planted,
    at: Any,
    *,
    odds: bool = True,
    adapter: Any = HAMUR,
) -> Attachment:
    """Train a network, then its adapter alone. ``odds``: the network gives probabilities."""
    condition = torch.cat([F.one_hot(planted.ids, VALUES).flatten(1).float(), planted.number], 1)

    def logits(output: Tensor) -> Tensor:
        return torch.logit(output, eps=1e-6) if odds else output

    frozen = fit(lambda: logits(module(*inputs)), module, planted.label, steps=20)
    torch.manual_seed(1)
    adapted = attach(
        module, at=at, adapter=adapter, n_domains=2,
        condition_width=condition.shape[1], example=inputs,
    )  # fmt: skip
    with torch.no_grad():
        fresh = adapted(*inputs, domain=DOMAIN, condition=condition)
    assert torch.equal(fresh, module_alone(adapted, inputs))
    adapted.freeze()
    found = fit(
        lambda: logits(adapted(*inputs, domain=DOMAIN, condition=condition)),
        adapted, planted.label, steps=60,
    )  # fmt: skip
    assert frozen > FROZEN
    assert found < ADAPTED
    before = {name: t for name, t in module.state_dict().items() if "isthmus" not in name}
    adapted.detach()
    with torch.no_grad():
        assert abs(float(logloss(logits(module(*inputs)), planted.label)) - frozen) < 1e-6
    assert module.state_dict().keys() == before.keys()
    return adapted


def module_alone(adapted: Attachment, inputs: tuple[Any, ...]) -> Tensor:
    """What the network gives without its adapter."""
    places = dict(adapted.sites)
    adapted.detach()
    with torch.no_grad():
        output = adapted.module(*inputs)
    adapted.__init__(adapted.module, places, adapted.adapter)
    return output


@pytest.mark.parametrize(
    ("at", "adapter", "names"),
    [(nn.ReLU, HAMUR, ["2"]), (nn.Linear, MLoraConfig(rank=4), ["0", "3"])],
    ids=["hamur", "mlora"],
)
def test_a_sequential(planted: Planted, at: Any, adapter: Any, names: list[str]):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.cat([F.one_hot(planted.ids, VALUES).flatten(1).float(), planted.number], 1)
    adapted = beats_itself_frozen(module, (x,), planted, at, odds=False, adapter=adapter)
    assert [place.name for place in adapted.places] == names


class Encoder(nn.Module):
    """Every id is a step; torch's own encoder reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(FIELDS * VALUES, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(9, 1)

    def forward(self, ids: Tensor, number: Tensor) -> Tensor:
        steps = self.table(ids + VALUES * torch.arange(FIELDS))
        return self.out(torch.cat([self.encoder(steps).mean(dim=1), number], dim=1))


def test_torchs_transformer_encoder(planted: Planted):
    torch.manual_seed(0)
    inputs = (planted.ids, planted.number)
    adapted = beats_itself_frozen(
        Encoder(), inputs, planted, ["encoder.layers.*.linear2", "encoder"], odds=False
    )
    assert len(adapted.places) == 3


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Both packages print when they are imported."""
    return contextlib.redirect_stdout(io.StringIO())


@pytest.mark.filterwarnings("ignore")  # theirs, at import
def test_deepctr_torchs_deepfm(planted: Planted, monkeypatch: pytest.MonkeyPatch):
    import requests

    def offline(*asked: Any, **named: Any) -> None:
        raise OSError("tests ask nobody")

    monkeypatch.setattr(requests, "get", offline)  # it asks for its newest version when imported
    with quiet():
        from deepctr_torch import models
        from deepctr_torch.inputs import DenseFeat, SparseFeat

        features: list[Any] = [SparseFeat(f"f{i}", VALUES, embedding_dim=8) for i in range(FIELDS)]
        features.append(DenseFeat("number", 1))
        module = models.DeepFM(features, features, dnn_hidden_units=(16, 16), init_std=0.1)
    x = torch.cat([planted.ids.float(), planted.number], dim=1)
    adapted = beats_itself_frozen(module, (x,), planted, "dnn")
    assert [place.name for place in adapted.places] == ["dnn"]


@pytest.mark.filterwarnings("ignore")  # theirs, at import
def test_torch_rechubs_wide_deep(planted: Planted):
    with quiet():
        from torch_rechub.basic.features import DenseFeature, SparseFeature
        from torch_rechub.models import ranking

        torch.manual_seed(0)
        sparse = [SparseFeature(f"f{i}", vocab_size=VALUES, embed_dim=8) for i in range(FIELDS)]
        dense = [DenseFeature("number")]
        module = ranking.WideDeep(
            dense, sparse + dense, {"dims": [16, 16], "dropout": 0.1, "activation": "relu"}
        )
    columns = {f"f{i}": planted.ids[:, i] for i in range(FIELDS)} | {"number": planted.number[:, 0]}
    adapted = beats_itself_frozen(module, (columns,), planted, "mlp.mlp.6")
    assert [place.name for place in adapted.places] == ["mlp.mlp.6"]
