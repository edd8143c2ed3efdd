"""TAL: its formula a row at a time, whose norms an unknown row mixes, and who moves them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.adapters import Tal
from isthmus.layers.per_domain import domain_tensors
from isthmus.layers.routing import Routing
from isthmus.testing import adapter_subject, check_matches_formula
from isthmus.train.generators import seeded

WIDTH, N_DOMAINS = 6, 3


def drawn(n_domains: int = N_DOMAINS) -> Any:
    torch.manual_seed(0)
    adapter = Tal(site_widths=(WIDTH,), n_domains=n_domains)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.5)
    return adapter


def apart(rows: int = 300) -> tuple[Tensor, Tensor]:
    """Rows of three domains that lie at -4, 0 and 4, and their domains."""
    with seeded(1):
        domain = 1 + torch.arange(rows) % N_DOMAINS
        return torch.randn(rows, WIDTH) + 4.0 * (domain - 2).unsqueeze(1), domain


def answer(adapter: Tal, h: Tensor, domain: Tensor | int) -> Tensor:
    given = domain if isinstance(domain, Tensor) else torch.full((len(h),), domain)
    return adapter(0, h, adapter.prepare(h, Routing(given, adapter.spec.n_domains)))


def trained() -> Tal:
    adapter = drawn()
    h, domain = apart()
    for _ in range(3):
        answer(adapter, h, domain)
    return adapter.eval()


def test_it_is_its_formula():
    adapter = drawn()
    subject = adapter_subject(adapter, condition_width=3, n_domains=N_DOMAINS, rows=40)
    cell = adapter.cell(0)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(40, WIDTH, generator=generator)

    def own(d: int, row: Tensor) -> Tensor:
        return cell.own(row.unsqueeze(0), Routing(torch.tensor([d]), N_DOMAINS))[0]

    def one_row(row: Tensor, d: int) -> Tensor:
        normal = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
        y = row + own(d, row) + cell.free.gain * normal + cell.free.bias
        if d > 0:
            return y
        memory, distances, norms = cell.mixture, [], []
        for k in range(N_DOMAINS):
            var = memory.var[k] + 1e-5
            distances.append(((row - memory.mean[k]) ** 2 / var + var.log()).mean())
            norms.append(memory.gain[k] * (row - memory.mean[k]) / var.sqrt() + memory.bias[k])
        weights = torch.softmax(-memory.log_sharpness.exp() * torch.stack(distances), dim=0)
        return y + (weights.unsqueeze(1) * torch.stack(norms)).sum(0)

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        pairs = zip(rows.tolist(), domain.tolist(), strict=True)
        return torch.stack([one_row(h[r], d) for r, d in pairs])

    check_matches_formula(subject, formula)


def test_an_unknown_row_mixes_the_norms_of_the_domains_that_it_lies_near():
    adapter = trained()
    mixture = adapter.cell(0).mixture
    h, domain = apart()
    with torch.no_grad():
        mixture.log_sharpness.fill_(1.0)
    weights = mixture.weights(h)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(h)))
    assert (weights.argmax(1) + 1 == domain).all()
    own = weights.gather(1, (domain - 1).unsqueeze(1))
    assert own.min() > 0.9
    between = mixture.weights(torch.full((1, WIDTH), 2.0))[0]  # half way from domain 2 to domain 3
    assert between[0] < 0.01
    assert 0.2 < between[1] < 0.8


def test_a_domain_that_training_never_met_has_no_weight():
    adapter = drawn()
    h, domain = apart()
    for _ in range(2):
        answer(adapter, h[domain != 2], domain[domain != 2])
    mixture = adapter.eval().cell(0).mixture
    assert mixture.met.tolist() == [True, False, True]
    assert (mixture.weights(h)[:, 1] == 0).all()


def test_without_any_domain_an_unknown_row_is_finite():
    adapter = drawn()
    h, _ = apart(6)
    assert answer(adapter.eval(), h, 0).isfinite().all()


def test_a_known_row_reads_no_mixture():
    adapter = trained()
    h, domain = apart()
    before = answer(adapter, h, domain)
    mixture = adapter.cell(0).mixture
    with torch.no_grad():
        mixture.gain.fill_(torch.nan)
        mixture.log_sharpness.fill_(torch.nan)
    assert torch.equal(answer(adapter, h, domain), before)
    assert answer(adapter, h, 0).isnan().all()


def test_what_a_domain_learns_later_moves_the_unknown_answer_only_in_training():
    adapter = trained()
    h, domain = apart()
    before = answer(adapter, h, 0)
    with torch.no_grad():
        for tensor in domain_tensors(adapter).values():
            tensor[2] = tensor[2] + 1.0
    assert torch.equal(answer(adapter, h, 0), before)
    answer(adapter.train(), h, domain)
    assert not torch.equal(answer(adapter.eval(), h, 0), before)


def test_a_frozen_mixture_keeps_its_memory():
    adapter = trained()
    memory = adapter.cell(0).mixture.gain.clone()
    adapter.train()
    adapter.cell(0).mixture.eval()  # as `TrainedParts.only` leaves a part that is not trained
    with torch.no_grad():
        adapter.cell(0).own.gain.add_(1.0)
    h, domain = apart()
    answer(adapter, h, domain)
    assert torch.equal(adapter.cell(0).mixture.gain, memory)


@pytest.mark.parametrize("centre", [0.0, 300.0])
def test_the_weights_hold_far_from_zero(centre: float):
    adapter = drawn()
    h, domain = apart()
    for _ in range(3):
        answer(adapter, h + centre, domain)
    mixture = adapter.eval().cell(0).mixture
    slow = torch.stack(
        [
            ((h.double() + centre - mixture.mean[k]) ** 2 / (mixture.var[k] + 1e-5)).mean(1)
            + (mixture.var[k].double() + 1e-5).log().mean()
            for k in range(N_DOMAINS)
        ],
        dim=1,
    )
    expected = F.softmax(-mixture.log_sharpness.exp() * slow, dim=1).float()
    torch.testing.assert_close(mixture.weights(h + centre), expected, atol=2e-3, rtol=1e-2)
