"""Clusters that are planted are found, kept, and not moved by prediction."""

import torch
from torch import Tensor

from isthmus.backbones import ADL
from isthmus.layers.gates import ClusterGate
from isthmus.layers.per_domain import domain_tensors

WIDTH = 6


def adl() -> ADL:
    return ADL(in_width=WIDTH, n_domains=3, widths=(5, 4), clusters=3, dropout=0.0, norm="none")


def planted(rows: int = 900, *, size: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Rows around three centres, of the size of embeddings, with a large mean in common."""
    generator = torch.Generator().manual_seed(1)
    kind = torch.arange(rows) % 3
    centres = torch.randn(3, WIDTH, generator=generator)
    x = centres[kind] + 0.2 * torch.randn(rows, WIDTH, generator=generator)
    return size * (x + 3), kind


def test_planted_clusters_are_found():
    torch.manual_seed(0)
    gate = ClusterGate(in_width=WIDTH, clusters=3, momentum=0.3)
    x, kind = planted()
    for part in x.split(300) * 10:
        gate(part)
    sent = gate.eval()(x).argmax(1)
    found = [torch.unique(sent[kind == k]).tolist() for k in range(3)]
    assert all(len(of_kind) == 1 for of_kind in found)
    assert len({of_kind[0] for of_kind in found}) == 3


def test_clusters_stay_apart_where_there_are_none():
    torch.manual_seed(0)
    gate = ClusterGate(in_width=WIDTH, clusters=4)
    for _ in range(50):
        gate(torch.randn(256, WIDTH) + 5)
    shares = gate(torch.randn(1000, WIDTH) + 5).mean(0)
    assert (shares > 0.02).all()
    assert torch.linalg.matrix_rank(gate.centres) == 4


def test_prediction_moves_no_centre_and_a_saved_network_keeps_them():
    torch.manual_seed(0)
    net = adl()
    x = torch.randn(50, WIDTH)
    start = net.gate.centres.clone()
    net(x)
    moved = net.gate.centres.clone()
    assert not torch.equal(start, moved)
    net.eval()
    before = net(x)
    assert torch.equal(net.gate.centres, moved)
    again = adl()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x), before)


def test_no_domain_owns_a_cluster():
    assert domain_tensors(adl()) == {}
