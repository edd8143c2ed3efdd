"""FiLM: the formula, written out a row at a time, and what each part of it reads."""

import torch
from torch import Tensor, nn

from isthmus.adapters import Film
from isthmus.layers.routing import Routing
from isthmus.testing import adapter_subject, check_matches_formula

N_DOMAINS = 4


def make() -> Film:
    torch.manual_seed(0)
    return Film(site_widths=(12, 9), condition_width=6, n_domains=N_DOMAINS, hidden_width=5)


def test_the_fast_form_is_the_formula():
    adapter = make()
    cell = adapter.cell(1)
    nn.init.normal_(cell.weight)
    nn.init.normal_(cell.own)
    subject = adapter_subject(adapter, condition_width=6, n_domains=N_DOMAINS, rows=40)
    generator = torch.Generator().manual_seed(0)  # as adapter_subject draws its rows
    h = torch.randn(40, 9, generator=generator)
    e = torch.randn(40, 6, generator=generator)

    def formula(rows: Tensor, domain: Tensor) -> Tensor:
        found = []
        for r, d in zip(rows.tolist(), domain.tolist(), strict=True):
            g = adapter.reader(e[r])
            a, b = cell.weight[:, :9] / 5**0.5, cell.weight[:, 9:] / 5**0.5
            gamma = g @ a + cell.own[d, :9]
            beta = g @ b + cell.own[d, 9:]
            found.append((1 + gamma) * h[r] + beta)
        return torch.stack(found)

    check_matches_formula(subject, formula)


def test_domains_differ_by_their_offsets_and_rows_by_their_condition():
    adapter = make()
    cell = adapter.cell(1)
    nn.init.normal_(cell.own)
    h, e = torch.ones(1, 9), torch.randn(2, 6)

    def answer(domain: int, row: int) -> Tensor:
        state = adapter.prepare(e[row : row + 1], Routing(torch.tensor([domain]), N_DOMAINS))
        return adapter(1, h, state)

    assert torch.equal(answer(2, 0), answer(2, 1))  # weight is 0: the condition says nothing
    assert not torch.allclose(answer(1, 0), answer(2, 0))
    nn.init.normal_(cell.weight)
    assert not torch.allclose(answer(2, 0), answer(2, 1))
