"""The domain classifier: its formula by hand, and what turning the gradient's sign leaves alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import t as student

from isthmus.data import Dataset
from isthmus.layers.sites import SiteSpec
from isthmus.objectives import DomainClassifier
from isthmus.schema import DataConfig
from isthmus.train import End, train
from test_objectives_training import config, make_model, probed
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


def planted(seed: int, cache: Path) -> Dataset:
    """Three domains that are an input, and a label that follows ``x`` alone."""
    rng = np.random.default_rng(seed)
    d, x = rng.integers(0, 3, 3000), rng.normal(size=3000)
    names = np.array(["home", "feed", "shop"])[d]
    click = (rng.random(3000) < 1 / (1 + np.exp(-1.5 * x))).astype(np.int64)
    features = {"x": "numeric", "tab": {"kind": "categorical", "dim": 4}}
    data = {"domain": "tab", "label": "click", "features": features}
    data["split"] = {"fractions": (0.6, 0.3, 0.1)}
    table = pa.table({"tab": names, "x": x, "click": click})
    return Dataset.from_table(DataConfig.model_validate(data), table, cache=cache)


@pytest.mark.truth
def test_over_many_tables_a_fresh_probe_tells_less_after_reversed_training(tmp_path: Path):
    """Paired over tables that had no part in the choice of PACE; removal is partial, not total."""
    differences = []
    for k in range(16):
        dataset = planted(1000 + k, tmp_path / str(k))
        told = []
        for objectives in ([], [{"name": "domain_classifier", "reverse": True}]):
            backbone = {"name": "mlp", "widths": [16, 8], "dropout": 0.0, "norm": "none"}
            model = make_model(dataset, 2000 + k, backbone=backbone)
            with torch.no_grad():
                model.tables()[0].weight.normal_(std=0.5)
            settings = config(
                seed=2000 + k,
                lr=0.001,
                epochs=40,
                patience=40,
                looks_per_epoch=1,
                domain_dropout=0.0,
                objectives=objectives,
            )
            last: dict[str, torch.Tensor] = {}
            for event in train(model, dataset, settings):
                if not isinstance(event, End):  # the last weights, not those of the best look
                    last = {name: one.clone() for name, one in model.state_dict().items()}
            model.load_state_dict(last)
            told.append(probed(model, dataset))
        differences.append(told[1] - told[0])
    found = np.array(differences)
    half = student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    assert found.mean() + half < 0
