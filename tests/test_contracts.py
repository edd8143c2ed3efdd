"""Every adapter, backbone and model keeps the contracts of ``isthmus.testing``."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fake_batches import EVEN, make_batch
from isthmus import testing
from isthmus.adapters import (
    AbstractAdapter,
    AbstractAdapterConfig,
    AbstractLinearConfig,
    AdapterConfig,
)
from isthmus.backbones import (
    AbstractBackbone,
    AbstractBackboneConfig,
    BackboneConfig,
    BackboneSpec,
)
from isthmus.data.batch import Batch
from isthmus.family import members
from isthmus.layers.embedding import FeatureEmbedding
from isthmus.layers.sites import SiteSpec
from isthmus.models import DomainModel, ModelConfig, build_network
from isthmus.testing import Subject

CONDITION = 16
BACKBONES = members(BackboneConfig)


ADAPTERS = {name: kind for name, kind in members(AdapterConfig).items() if name != "none"}
UNSOUND = {name for name, kind in ADAPTERS.items() if kind.unsound is not None}
# Widths and rank near those of the paper: the released start is dead at these.
LARGE = {"bottleneck": 32, "rank": 20}
LITTLE = {"bottleneck": 8, "rank": 4, "branches": 2}


SITED = [name for name, kind in ADAPTERS.items() if issubclass(kind, AbstractAdapterConfig)]
AT_LINEARS = {name for name, kind in ADAPTERS.items() if issubclass(kind, AbstractLinearConfig)}
WITHOUT_LOW_RANK = {"film", "modulation", "norm", "prompt", "tal"}


def adapter_config(name: str, sizes: dict[str, int]) -> Any:
    kind = ADAPTERS[name]
    known = {key: size for key, size in sizes.items() if key in kind.model_fields}
    return kind.model_validate({"name": name} | known)


def make_adapter(name: str, n_domains: int = 5, sizes: dict[str, int] = LARGE) -> AbstractAdapter:
    torch.manual_seed(0)
    spec = SiteSpec((20, 64), n_domains, 48, linears={0: (48, 20), 1: (20, 64)})
    return adapter_config(name, sizes).build(spec, condition_width=CONDITION)


def adapted(name: str, n_domains: int = 5, sizes: dict[str, int] = LARGE) -> Subject:
    adapter = make_adapter(name, n_domains, sizes)
    return testing.adapter_subject(adapter, condition_width=CONDITION, n_domains=n_domains)


def released_breaks(contract: int, why: str) -> list:
    """Every adapter; an unsound one as a strict expected failure."""
    reason = f"contract {contract} is broken by the released code itself: {why}"
    broken = pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)
    return [pytest.param(name, marks=[broken] if name in UNSOUND else []) for name in ADAPTERS]


def test_only_the_released_form_is_unsound():
    assert {"hamur_released"} == UNSOUND


@pytest.mark.parametrize(
    "name", released_breaks(1, "its norm uses the batch's own statistics in eval")
)
def test_1_rows_do_not_see_their_neighbours(name):
    testing.check_rows_do_not_see_neighbours(adapted(name))


@pytest.mark.parametrize("name", released_breaks(2, "its norm starts with gain 1"))
def test_2_a_fresh_adapter_is_the_identity(name):
    testing.check_fresh_adapter_is_identity(adapted(name))


@pytest.mark.parametrize("name", released_breaks(2, "its first sigmoid is saturated"))
def test_2_everything_learns(name):
    testing.check_everything_learns(adapted(name))


@pytest.mark.parametrize("name", released_breaks(2, "its output has unit variance from the start"))
def test_2_the_identity_is_left_smoothly(name):
    testing.check_identity_is_left_smoothly(adapted(name))


@pytest.mark.parametrize(
    "name",
    [
        param
        for param in released_breaks(3, "all entries of its factors start equal")
        if param.values[0] not in WITHOUT_LOW_RANK
    ],
)
def test_3_hidden_units_learn_different_things(name):
    testing.check_hidden_units_differ(adapted(name))


@pytest.mark.parametrize("name", SITED)
def test_an_adapter_works_at_the_input_too(name):
    config = adapter_config(name, LITTLE).model_copy(update={"sites": (-1, "input")})
    spec = SiteSpec((20, 64), 5, input_width=12)
    adapter = config.build(spec, condition_width=CONDITION)
    assert adapter.sites == ("input", 1)
    subject = testing.adapter_subject(adapter, condition_width=CONDITION, n_domains=5, site="input")
    assert subject.output(subject.all_rows()).shape == (96, 12)


# Contract 4 needs each adapter's formula: test_hamur.py has both.


@pytest.mark.parametrize("name", ADAPTERS)
def test_5_domains_are_apart(name):
    testing.check_domains_are_apart(adapted(name))


@pytest.mark.parametrize("name", ADAPTERS)
def test_6_work_does_not_grow(name):
    testing.check_work_does_not_grow(lambda n: adapted(name, n, LITTLE))


@pytest.mark.parametrize("name", ADAPTERS)
def test_8_the_unknown_domain_is_answered(name):
    testing.check_unknown_domain_is_answered(adapted(name))


def towers_of(name: str) -> tuple[str, ...]:
    """The towers that a backbone may have: some networks say themselves what domains own."""
    kind = BACKBONES[name]
    assert issubclass(kind, AbstractBackboneConfig)
    return ("shared",) if kind.paper_head else ("shared", "per_domain")


def small(name: str) -> dict[str, Any]:
    """A backbone's section with small sizes: of these keys, those that it has."""
    sizes = {"widths": (9, 7), "width": 9, "dropout": 0.1}
    known = BACKBONES[name].model_fields
    return {"name": name} | {key: size for key, size in sizes.items() if key in known}


def make_backbone(name: str, towers: str, n_domains: int, **options) -> AbstractBackbone:
    torch.manual_seed(0)
    config = TypeAdapter(BackboneConfig).validate_python(small(name) | options)
    inputs = FeatureEmbedding(fields=EVEN)
    return config.build(BackboneSpec(inputs, towers, n_domains))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "towers"), [(name, towers) for name in BACKBONES for towers in towers_of(name)]
)
def test_backbones_keep_the_contracts(name, towers):
    testing.check_backbone(lambda n: make_backbone(name, towers, n))


def test_a_backbone_with_norms_per_domain_keeps_the_contracts():
    testing.check_backbone(lambda n: make_backbone("mlp", "shared", n, norm="domain"))


ONE_FORM = [name for name in BACKBONES if towers_of(name) == ("shared",)]
MODELS = {
    **{name: {"backbone": small(name)} for name in BACKBONES if name not in ONE_FORM},
    **{
        f"{name}, towers": {"backbone": small(name), "towers": "per_domain"}
        for name in BACKBONES
        if "per_domain" in towers_of(name)
    },
    **{
        f"{name}, {adapter}": {
            "backbone": small(name),
            "adapter": adapter_config(adapter, {"bottleneck": 6, "rank": 3}),
        }
        for name in BACKBONES
        for adapter in (ADAPTERS if name == "mlp" else ("hamur", "film"))
        if adapter not in UNSOUND and name not in ONE_FORM
    },
    **{  # with the adapter that is claimed to help each of them; alone they are tested above
        f"{name}, hamur": {
            "backbone": small(name),
            "adapter": {"name": "hamur", "bottleneck": 6, "rank": 3},
        }
        for name in ONE_FORM
    },
    "mlp, hamur, heads": {
        "backbone": {**small("mlp"), "norm": "domain"},
        "head": "per_domain",
        "adapter": {"name": "hamur", "bottleneck": 6, "rank": 3, "sites": (0, 1)},
    },
}


@pytest.mark.usefixtures("without_shape_checks")  # they take longer than the contracts
@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_contracts(name):
    def make(n_domains: int) -> DomainModel:
        torch.manual_seed(0)
        return build_network(ModelConfig.model_validate(MODELS[name]), EVEN, n_domains)

    def batch(n_domains: int) -> Batch:
        return make_batch(EVEN, 96, n_domains=n_domains)

    testing.check_model(make, batch)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_shapes_and_can_be_copied(name):
    model = build_network(ModelConfig.model_validate(MODELS[name]), EVEN, 3)
    batch = make_batch(EVEN, 8, n_domains=3)
    testing.train_a_little(testing.model_subject(model, batch))
    assert torch.equal(copy.deepcopy(model)(batch), model(batch))


# The checks themselves: each must fail for a module that breaks its contract.


class Broken(nn.Module):
    """An adapter with one fault, chosen by name."""

    def __init__(self, fault: str, n_domains: int) -> None:
        super().__init__()
        self.fault = fault
        self.bank = nn.Parameter(torch.randn(n_domains + 1, 6, 6) * 0.1)
        self.per_domain = ("bank",)
        self.gain = nn.Parameter(torch.zeros(1, 6))

    def forward(self, h: Tensor, domain: Tensor) -> Tensor:
        if self.fault == "sees the batch":
            return h + self.gain + h.mean(0)
        if self.fault == "single rows are nan":
            return h / h.std(0) + self.gain if len(h) > 1 else h * torch.nan
        if self.fault == "runs every domain":
            every = torch.einsum("ri,dio->dro", h, self.bank)
            return h + self.gain * every[domain, torch.arange(len(h))]
        if self.fault == "mixes domains":
            return h + (1 + self.gain) * torch.einsum("ri,dio->ro", h, self.bank)
        if self.fault == "unknown is nan":
            return h + self.gain * torch.where(domain == 0, torch.nan, 1.0).unsqueeze(1)
        if self.fault == "unknown is fixed":
            return torch.where((domain == 0).unsqueeze(1), h, h + self.gain)
        if self.fault == "jumps":
            return h + self.gain / (self.gain.detach().abs() + 1e-12)
        if self.fault == "dead":
            return h + self.gain * (h @ self.bank[0].detach())
        assert self.fault == "not the identity"
        return h + 1.0 + self.gain


def broken(fault: str, n_domains: int = 5) -> Subject:
    torch.manual_seed(0)
    module = Broken(fault, n_domains)
    h = torch.randn(48, 6)
    return Subject(
        module=module,
        domain=torch.arange(48) % (n_domains + 1),
        n_domains=n_domains,
        run=lambda rows, domain: module(h[rows], domain),
        plain=lambda rows, domain: h[rows],
    )


FAULTS: list[tuple[str, Callable[[Subject], None], str]] = [
    ("sees the batch", testing.check_rows_do_not_see_neighbours, "contract 1"),
    ("single rows are nan", testing.check_rows_do_not_see_neighbours, "contract 1"),
    ("not the identity", testing.check_fresh_adapter_is_identity, "contract 2"),
    ("dead", testing.check_everything_learns, r"contract 2: .*bank"),
    ("jumps", testing.check_identity_is_left_smoothly, "contract 2"),
    ("mixes domains", testing.check_domains_are_apart, "contract 5"),
    ("unknown is nan", testing.check_unknown_domain_is_answered, "contract 8"),
    ("unknown is fixed", testing.check_unknown_domain_is_answered, "contract 8"),
]


@pytest.mark.parametrize(("fault", "check", "text"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_check_finds_the_fault_it_is_for(fault, check, text):
    with pytest.raises(AssertionError, match=text):
        check(broken(fault))


def test_running_every_domain_on_every_row_is_found():
    with pytest.raises(AssertionError, match=r"contract 6: 3 domains take .* products, 1000 take"):
        testing.check_work_does_not_grow(lambda n: broken("runs every domain", n))


def test_a_fast_form_that_is_not_the_formula_is_found():
    subject = broken("runs every domain")
    testing.check_matches_formula(subject, subject.run)
    with pytest.raises(AssertionError, match="contract 4"):
        testing.check_matches_formula(
            subject, lambda rows, domain: 1.01 * subject.run(rows, domain)
        )


def test_check_adapter_runs_them_all():
    testing.check_adapter(lambda n: make_adapter("hamur", n, LITTLE), condition_width=CONDITION)
    with pytest.raises(AssertionError, match="contract"):
        testing.check_adapter(
            lambda n: make_adapter("hamur_released", n), condition_width=CONDITION
        )
