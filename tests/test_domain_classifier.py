"""The domain classifier: its formula by hand, and what turning the gradient's sign leaves alone."""

import pytest
import torch

from isthmus.layers.sites import SiteSpec
from isthmus.objectives import DomainClassifier
from weighed import batch_of


def test_the_domain_classifier_is_its_formula():
    torch.manual_seed(0)
    spec = SiteSpec(site_widths=(6, 4), n_domains=3, input_width=9)
    objective = DomainClassifier(spec=spec, site=-1, hidden_widths=(5,))
    h = torch.randn(7, 4)
    domain = torch.tensor([1, 3, 0, 2, 2, 1, 0])
    batch = batch_of([1] * 7, weighted=True)
    assert batch.weight is not None
    total, mass = torch.zeros(()), torch.zeros(())
    for r in range(7):
        if domain[r] == 0:
            continue
        z = objective.classifier(h[r])
        total += batch.weight[r] * (torch.logsumexp(z, 0) - z[domain[r] - 1])
        mass += batch.weight[r]
    torch.testing.assert_close(objective({1: h}, batch, domain), total / mass)
    nobody = objective({1: h}, batch, torch.zeros(7, dtype=torch.int64))
    assert nobody == 0
    at_input = DomainClassifier(spec=spec, site="input", hidden_widths=())
    assert at_input.sites == ("input",)
    assert at_input.classifier(torch.zeros(2, 9)).shape == (2, 3)


@pytest.mark.parametrize("reverse", [False, True])
def test_reversed_the_network_has_the_other_sign_and_the_classifier_the_same(reverse: bool):
    torch.manual_seed(0)
    spec = SiteSpec(site_widths=(4,), n_domains=3)
    objective = DomainClassifier(spec=spec, reverse=reverse)
    plain = DomainClassifier(spec=spec)
    plain.load_state_dict(objective.state_dict())
    h, domain, batch = torch.randn(9, 4), torch.tensor([1, 2, 3] * 3), batch_of([1] * 9)
    found = []
    for one in (objective, plain):
        x = h.clone().requires_grad_()
        loss = one({0: x}, batch, domain)
        own = torch.autograd.grad(loss, [x, *one.parameters()])
        found.append((loss, *own))
    (loss, to_h, *to_own), (loss_plain, to_h_plain, *to_own_plain) = found
    assert torch.equal(loss, loss_plain)
    assert torch.equal(to_h, -to_h_plain if reverse else to_h_plain)
    for gradient, wanted in zip(to_own, to_own_plain, strict=True):
        assert torch.equal(gradient, wanted)
