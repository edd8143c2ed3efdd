"""InfoNCE over domains: by hand, against a slow formula, and what it leaves out."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from by_method import assert_same, make_dataset, make_model, run
from by_method import settings as train_settings
from isthmus.layers.sites import SiteSpec
from isthmus.objectives import DomainContrast, DomainContrastConfig
from isthmus.objectives.domain_contrast import MOST_ROWS, Labels, next_alike
from resumed import in_pieces
from weighed import batch_of

SPEC = SiteSpec(site_widths=(6, 2), n_domains=3, input_width=9)


def loss_of(
    h: Tensor,
    domain: list[int],
    label: list[float],
    *,
    weight: list[float] | None = None,
    temperature: float = 1.0,
    labels: Labels = "matched",
) -> Tensor:
    objective = DomainContrast(spec=SPEC, temperature=temperature, labels=labels)
    assert objective.sites == (1,)
    weights = None if weight is None else torch.tensor(weight)
    batch = replace(batch_of([1] * len(domain)), label=torch.tensor(label), weight=weights)
    return objective({1: h}, batch, torch.tensor(domain))


def test_info_nce_by_hand():
    """Rows at 0, 90 and 180 degrees: cosines 0 to the positive, -1 and 0 to the negative."""
    h = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    near, apart, beside = math.exp(0), math.exp(-1), math.exp(0)
    first = -math.log(near / (near + apart))
    second = -math.log(near / (near + beside))
    found = loss_of(h, [1, 1, 2], [1.0, 1.0, 1.0])  # the third row lacks a positive
    assert float(found) == pytest.approx((first + second) / 2, abs=1e-6)
    weighted = loss_of(h, [1, 1, 2], [1.0, 1.0, 1.0], weight=[3.0, 1.0, 9.0])
    assert float(weighted) == pytest.approx((3 * first + second) / 4, abs=1e-6)
    colder = -math.log(1 / (1 + math.exp(-2.0)))
    found = loss_of(h[:3], [1, 1, 2], [1.0, 1.0, 1.0], weight=[1.0, 0.0, 1.0], temperature=0.5)
    assert float(found) == pytest.approx(colder, abs=1e-6)


def test_matched_labels_compare_rows_of_one_label_alone():
    h = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    # Rows 0 and 2 of domain 1 have other labels: no positive. No other pair is of one domain.
    assert loss_of(h, [1, 2, 1, 3], [1.0, 1.0, 0.0, 0.0]) == 0
    assert loss_of(h, [1, 2, 1, 3], [1.0, 1.0, 0.0, 0.0], labels="ignored") > 0


def test_rows_without_a_domain_and_domains_without_another_do_not_count():
    h = torch.randn(4, 2)
    assert loss_of(h, [0, 0, 1, 1], [1.0] * 4) == 0
    assert loss_of(h, [2, 2, 2, 2], [1.0] * 4) == 0
    both = loss_of(torch.cat([h, torch.randn(3, 2)]), [1, 1, 2, 2, 0, 0, 0], [1.0] * 7)
    torch.testing.assert_close(both, loss_of(h, [1, 1, 2, 2], [1.0] * 4))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 20),
    seed=st.integers(0, 99),
    labels=st.sampled_from(["matched", "ignored"]),
)
def test_the_fast_form_is_the_formula_written_out(rows: int, seed: int, labels: Labels):
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, 2, generator=draw)
    domain = torch.randint(0, 4, (rows,), generator=draw).tolist()
    label = torch.randint(0, 2, (rows,), generator=draw).float().tolist()
    unit = h / h.norm(dim=1, keepdim=True)
    kind = [label[r] if labels == "matched" else 0.0 for r in range(rows)]
    losses = []
    for i in range(rows):
        alike = [r for r in range(rows) if (domain[r], kind[r]) == (domain[i], kind[i])]
        p = alike[(alike.index(i) + 1) % len(alike)]
        others = [r for r in range(rows) if domain[r] not in (0, domain[i]) and kind[r] == kind[i]]
        if domain[i] == 0 or p == i or not others:
            continue
        near = math.exp(float(unit[i] @ unit[p]) / 0.7)
        far = sum(math.exp(float(unit[i] @ unit[n]) / 0.7) for n in others)
        losses.append(-math.log(near / (near + far)))
    expected = sum(losses) / len(losses) if losses else 0.0
    found = loss_of(h, domain, label, temperature=0.7, labels=labels)
    assert float(found) == pytest.approx(expected, abs=1e-5)


@given(kind=st.lists(st.integers(0, 4), min_size=1, max_size=15))
def test_the_next_of_a_kind_goes_around_all_of_the_kind(kind: list[int]):
    found, other = next_alike(torch.tensor(kind))
    for row in range(len(kind)):
        seen, at = [], row
        while at not in seen:
            seen.append(at)
            at = int(found[at])
        assert sorted(seen) == [r for r, k in enumerate(kind) if k == kind[row]]
        assert bool(other[row]) == (len(seen) > 1)


def test_a_large_batch_compares_its_first_rows():
    torch.manual_seed(0)
    rows = MOST_ROWS + 40
    h, domain = torch.randn(rows, 2), torch.randint(1, 4, (rows,)).tolist()
    label = torch.randint(0, 2, (rows,)).float().tolist()
    few = loss_of(h[:MOST_ROWS], domain[:MOST_ROWS], label[:MOST_ROWS])
    torch.testing.assert_close(loss_of(h, domain, label), few)


def test_descent_brings_domains_together_and_apart():
    torch.manual_seed(0)
    h = torch.randn(60, 6).requires_grad_()
    domain, label = (torch.arange(60) % 3 + 1).tolist(), [1.0] * 60
    optimiser = torch.optim.Adam([h], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss_of(h, domain, label, temperature=0.3).backward()
        optimiser.step()
    unit = torch.nn.functional.normalize(h.detach(), dim=1)
    centre = torch.nn.functional.normalize(
        torch.stack([unit[torch.tensor(domain) == d].mean(0) for d in (1, 2, 3)]), dim=1
    )
    assert ((unit @ centre.t()).argmax(1) + 1).tolist() == domain
    cosines = (centre @ centre.t())[~torch.eye(3, dtype=torch.bool)]
    np.testing.assert_allclose(cosines, -0.5, atol=0.1)  # 120 degrees apart


@pytest.mark.usefixtures("one_thread")
def test_a_training_with_it_goes_on_with_the_same_bits(tmp_path: Path):
    dataset = make_dataset(tmp_path / "cache")
    want = train_settings(objectives=[{"name": "domain_contrast", "weight": 0.1}])
    whole = make_model(dataset, "modulation")
    looks, _ = run(whole, dataset, want)
    pieced, told, _ = in_pieces(
        lambda seed: make_model(dataset, "modulation", seed=seed), dataset, want, [2, 7], tmp_path
    )
    assert told == looks
    assert all(look.losses["domain_contrast"] > 0 for look in looks)
    assert_same(whole, pieced)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        DomainContrast(spec=SPEC, temperature=0.0)
    with pytest.raises(ValueError, match=r"objectives\.site"):
        DomainContrastConfig(site=5).build(SPEC)
    with pytest.raises(ValueError, match="greater than 0"):
        DomainContrastConfig(temperature=0.0)
    assert DomainContrastConfig.compares_domains
