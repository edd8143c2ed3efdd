"""Learnt vectors of domains: camps, copies, what is left alone, and the sum that is learnt by."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_example import example
from isthmus.data import Dataset
from isthmus.diagnosis.measures.domain2vec import _Apart, learnt_vectors, vectors_of
from isthmus.diagnosis.measures.likeness import distances
from isthmus.report.diagnosis import page
from isthmus.schema import DataConfig
from small_runs import clicks, settings
from test_likeness import a_model

NAMES = tuple("abcd")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Every kind of column."""
    config = DataConfig.model_validate(settings()["data"])
    return Dataset.from_table(config, clicks(), cache=tmp_path_factory.mktemp("mixed"))


def two_camps(seed: int, rows: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one place for all domains; what a, b like is unrelated to what c, d like."""
    rng = np.random.default_rng(seed)
    domain = rng.integers(0, 4, rows)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    taste = np.where(domain < 2, x[:, 0] + x[:, 1], x[:, 2] - x[:, 0])
    label = (rng.random(rows) < 1 / (1 + np.exp(-2 * taste))).astype(np.float32)
    return x, label, domain


def test_domains_that_like_the_same_are_nearer_though_their_inputs_are_alike():
    for seed in range(3):
        distance = distances(vectors_of(*two_camps(seed), NAMES, seed=seed))
        assert max(distance[0, 1], distance[2, 3]) < distance[:2, 2:].min()


def test_domains_with_other_inputs_are_told_too():
    rng = np.random.default_rng(0)
    domain = rng.integers(0, 4, 4000)
    x = rng.normal(size=(4000, 3)) + np.array([0, 0, 1, 1])[domain, None]
    label = (rng.random(4000) < 0.5).astype(np.float32)
    distance = distances(vectors_of(x.astype(np.float32), label, domain, NAMES))
    assert max(distance[0, 1], distance[2, 3]) < distance[:2, 2:].min()


def test_copies_are_at_about_no_distance():
    """The rows that vectors are taken from were not learnt, so chance is all that parts copies."""
    rng = np.random.default_rng(99)  # not that of the camps
    x, label, _ = two_camps(0)
    domain = rng.integers(0, 4, len(x))
    vectors = vectors_of(x, label, domain, NAMES)
    distance = distances(vectors)[np.triu_indices(4, 1)]
    assert (distance**2).mean() < 2 / vectors.rows.mean()
    assert list(vectors.parts) == ["domain features", "their second moment"]
    assert vectors.values.shape == (4, 32)


def test_a_seed_gives_one_result_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    one, again, other = (vectors_of(*two_camps(0, 500), NAMES, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.values, again.values)
    assert not np.allclose(one.values, other.values)
    assert torch.equal(torch.get_rng_state(), before)


class Turned(torch.autograd.Function):
    """The identity whose gradient has the other sign."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore
        return -grad


def test_the_loss_is_the_sum_that_is_written_down():
    torch.manual_seed(0)
    network = _Apart(3, 4)
    x, both = torch.randn(20, 3), torch.randn(20, 7)
    label, domain = torch.randint(0, 2, (20,)).float(), torch.randint(0, 4, (20,))

    def slow() -> Tensor:
        c, f = network.of_class(x), network.of_domain(both)
        chance = torch.sigmoid(network.label(c))[:, 0]
        total = F.binary_cross_entropy(chance, label)
        total = total + F.nll_loss(network.domain(f).softmax(1).log(), domain)
        hidden = network.no_domain(Turned.apply(c)).softmax(1).log()
        total = total + F.nll_loss(hidden, domain)
        total = total + F.binary_cross_entropy(
            torch.sigmoid(network.no_label(Turned.apply(f)))[:, 0], label
        )
        correlations = torch.corrcoef(torch.cat([c, f], dim=1).T)[:16, 16:]
        total = total + correlations.square().mean()
        decoded = network.decode(torch.cat([c, f], dim=1))
        return total + 0.1 * (decoded - x).square().mean()

    gradients = []
    for loss in (network.loss(x, both, label, domain), slow()):
        network.zero_grad()
        loss.backward()
        gradients.append((loss.detach(), [p.grad for p in network.parameters()]))
    (fast, of_fast), (wanted, of_wanted) = gradients
    torch.testing.assert_close(fast, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(of_fast, of_wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_model_is_left_as_it_was_and_its_domain_is_not_read(mixed: Dataset):
    model = a_model(mixed).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    vectors = learnt_vectors(model, mixed)
    assert vectors.names == mixed.domain_names
    assert np.isfinite(distances(vectors)).all()
    assert model.training
    assert not model.inputs._forward_hooks
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    (column,) = (model.inputs.columns[f.name] for f in mixed.encoder.fields if f.is_domain)
    seen: list[Tensor] = []

    def see(_module: nn.Module, _batch: object, x: Tensor) -> None:
        seen.append(x)

    handle = model.inputs.register_forward_hook(see)
    learnt_vectors(model, mixed)
    handle.remove()
    for x in seen:
        assert torch.equal(x[:, column], x[:1, column].expand(len(x), -1))


def test_many_batches_are_one_pass(mixed: Dataset, monkeypatch: pytest.MonkeyPatch):
    model = a_model(mixed)
    whole = learnt_vectors(model, mixed)
    monkeypatch.setattr("isthmus.diagnosis.measures.domain2vec.SCORE_ROWS", 50)
    np.testing.assert_allclose(learnt_vectors(model, mixed).values, whole.values, atol=0.05)
    monkeypatch.setattr("isthmus.diagnosis.measures.domain2vec.LEARNT_ROWS", 90)
    assert learnt_vectors(model, mixed).rows.sum() == 45


def test_too_few_rows_are_refused():
    x, label, domain = two_camps(0, 1)
    with pytest.raises(ValueError, match="2 rows of domains or more, got 1"):
        vectors_of(x, label, domain, NAMES)


def test_the_page_tells_what_the_vectors_foretell():
    report = example()
    report["likeness"]["domain2vec"]["spearman_pairwise"] = -0.27
    assert "That of learnt vectors (Domain2Vec) is" in page(report)
    report["likeness"]["domain2vec"]["spearman_pairwise"] = None
    assert "learnt vectors" not in page(report)
    del report["likeness"]["domain2vec"]  # of an earlier release
    assert "learnt vectors" not in page(report)
