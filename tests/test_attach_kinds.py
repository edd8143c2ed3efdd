"""Every registered adapter: attached to a network of others, or refused with the reason."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attached import N_DOMAINS, rows, small
from isthmus.adapters import (
    AbstractAdapter,
    AdapterConfig,
    MLora,
    MLoraConfig,
    NormalisedConfig,
    Prompt,
)
from isthmus.attaching import Attachment, attach, load_adapters, merge_adapters, save_adapters
from isthmus.errors import BundleError
from isthmus.family import members
from isthmus.layers.routing import Routing

X, DOMAIN = rows(9)
KINDS: dict[str, Any] = {**members(AdapterConfig)}
REFUSED = {"none", "prompt"}  # there is nothing to attach; the slots belong to the embedded row
AT_LINEARS = {"mlora", "moe_mlora", "modulation"}
READING = {"hamur", "hamur_released", "film", "instance_modulation"}
SOUND = sorted(KINDS.keys() - REFUSED - {"hamur_released"})  # that one sees the whole batch


def drawn(adapter: AbstractAdapter) -> None:
    """Let no cell be at its start."""
    generator = torch.Generator().manual_seed(3)
    for parameter in adapter.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)


def attached(name: str, module: nn.Module | None = None, **options: Any) -> Attachment:
    """An adapter of this kind behind both blocks of a small network, or at two of its Linears."""
    torch.manual_seed(1)
    at = ["first.0", "second.0"] if name in AT_LINEARS else ["first.1", "second.1"]
    given: dict[str, Any] = {
        "n_domains": N_DOMAINS,
        "condition_width": 4 if name in READING else None,
        "at": at,
    }
    return attach(module or small(), adapter=KINDS[name](), **(given | options))


def run(adapted: Attachment, x: Tensor, domain: Tensor) -> Tensor:
    """A call with what the adapter needs."""
    reads = adapted.condition_width is not None
    condition = x.flatten(1)[:, :4] if reads else None
    return adapted(x, domain=domain, condition=condition)


def test_every_kind_is_spoken_of():
    assert KINDS.keys() >= REFUSED | AT_LINEARS | READING


@pytest.mark.parametrize("name", SOUND)
def test_fresh_it_changes_nothing_and_each_row_meets_its_own_domain(name: str):
    adapted = attached(name)
    assert len(adapted.places) == 2
    assert torch.equal(run(adapted, X, DOMAIN), small()(X))
    drawn(adapted.adapter)
    adapted.train()
    run(adapted, X, DOMAIN).square().sum().backward()  # norms have seen rows
    moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.adapter.parameters()]
    assert sum(moved) >= len(moved) - 2  # an offset before a batch norm has no gradient
    adapted.eval()
    together = run(adapted, X, DOMAIN)
    alone = [run(adapted, X[i : i + 1], DOMAIN[i : i + 1]) for i in range(9)]
    torch.testing.assert_close(torch.cat(alone), together)
    other = run(adapted, X, (DOMAIN + 1) % (N_DOMAINS + 1))
    assert torch.allclose(together, other) == (name == "instance_modulation")


@pytest.mark.parametrize("name", SOUND)
def test_each_step_is_adapted_as_a_row(name: str):
    adapted = attached(name)
    drawn(adapted.adapter)
    adapted.module.out = nn.Identity()
    adapted.module.forward = lambda x: adapted.module.second(adapted.module.first(x))  # type: ignore[method-assign]
    adapted.eval()
    steps = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(0))
    given = {"domain": DOMAIN}
    if name in READING:
        given["condition"] = X
    found = adapted(steps, **given)
    one_by_one = [adapted(steps[:, i], **given) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(one_by_one, dim=1))


def test_the_released_code_is_attached_as_it_is():
    """It answers by its neighbours: see its contracts."""
    adapted = attached("hamur_released")
    assert not torch.allclose(run(adapted, X, DOMAIN), small()(X))
    assert run(adapted, X, DOMAIN).isfinite().all()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_belongs_to_no_other_network_is_refused(name: str):
    module = small()
    with pytest.raises(
        ValueError,
        match=f"adapter must be built, or the config of one with .* any network, got '{name}'",
    ):
        attach(module, at="out", adapter=KINDS[name](), n_domains=3)
    assert not any(part._forward_hooks for part in module.modules())


def test_a_built_prompt_fills_the_columns_of_the_place_that_is_named():
    module = nn.Sequential(nn.Identity(), nn.Linear(6, 2))
    prompt = Prompt(input_width=6, n_domains=N_DOMAINS, slots=1, dim=2)
    drawn(prompt)
    x = torch.cat([X, torch.zeros(9, 2)], dim=1)
    found = attach(module, at={"0": "input"}, adapter=prompt)(x, domain=DOMAIN)
    x[:, 4:] = prompt.cell("input").slots[DOMAIN, 0]
    torch.testing.assert_close(found, module[1](x))


def test_an_adapter_at_linears_reads_what_goes_in():
    module = small().eval()
    adapted = attach(module, at=nn.Linear, adapter=MLoraConfig(rank=2), n_domains=N_DOMAINS)
    assert [str(place) for place in adapted.places] == ["first.0", "second.0", "out"]
    drawn(adapted.adapter)
    adapter, routing = adapted.adapter, Routing(DOMAIN, N_DOMAINS)
    h = X
    for number, name in enumerate(["first.0", "second.0", "out"]):
        linear, cell = module.get_submodule(name), adapter.linear_cell(number)
        y = nn.functional.linear(h, linear.weight, linear.bias)  # type: ignore[arg-type]
        y = y + cell.map(h, routing) + cell.bias[DOMAIN]
        h = y if name == "out" else y.relu()
    torch.testing.assert_close(adapted(X, domain=DOMAIN), h.squeeze(1))


class ByName(nn.Module):
    """Calls its Linear by the name of the argument."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.part(input=x)


def test_a_linear_that_is_called_by_name():
    adapted = attach(ByName(), at="part", adapter=MLoraConfig(), n_domains=N_DOMAINS)
    drawn(adapted.adapter)
    cell = adapted.adapter.linear_cell(0)
    extra = cell.map(X, Routing(DOMAIN, N_DOMAINS)) + cell.bias[DOMAIN]
    found = adapted(X, domain=DOMAIN)
    adapted.detach()
    torch.testing.assert_close(found, adapted.module(X) + extra)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("first.1", "'first.1' must be a place where an adapter can sit: it is no Linear"),
        (nn.ReLU, "at must fit a place where an adapter can sit, got first.1 .*: it is no Linear"),
        (
            {"first.0": 0, "second.0": 7},
            r"'second.0' must go to one of the Linears \(0, 1\), got 7",
        ),
        ({"first.0": 1}, "'first.0' must have the widths of Linear 1, 8 x 6, got 4 x 8"),
        ("out", "as many places as the adapter has Linears, 2, got 1: out"),
    ],
)
def test_an_adapter_at_linears_elsewhere_is_refused(at: Any, text: str):
    adapter = MLora(linear_widths={0: (4, 8), 1: (8, 6)}, n_domains=N_DOMAINS)
    with pytest.raises(ValueError, match=text):
        attach(small(), at=at, adapter=adapter)


def test_features_of_a_table_are_refused_as_a_condition():
    with pytest.raises(ValueError, match=r"must name no features, .*got condition=\('age',\)"):
        attach(small(), at="out", adapter=KINDS["film"](condition=("age",)), n_domains=3)
    with pytest.raises(ValueError, match=r"must be built, or the config of .*, got 'MLoraConfig'"):
        attach(small(), at="out", adapter=MLoraConfig, n_domains=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["modulation", "moe_mlora"])
def test_checkpointed_blocks_with_what_linears_share(name: str):
    gradients = []
    steps = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(0))
    for mode in (None, True, False):
        adapted = attached(name, small(mode))
        drawn(adapted.adapter)
        adapted.module.out = nn.Flatten()
        x, loss = steps.clone().requires_grad_(), torch.zeros(())
        for domain in (DOMAIN, DOMAIN.flip(0)):
            loss = loss + adapted(x, domain=domain).square().sum()
        loss.backward()
        gradients.append([x.grad, *(p.grad for p in adapted.parameters())])
    for found in gradients[1:]:
        for gradient, right in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_around_the_whole_with_cells_at_linears():
    adapted = attached("modulation")
    drawn(adapted.adapter)
    x = X.clone().requires_grad_()

    def call(x: Tensor) -> Tensor:
        return adapted(x, domain=DOMAIN)

    for mode in (True, False):
        plain = torch.autograd.grad(call(x).sum(), x)
        again = checkpoint(call, x, use_reentrant=mode)
        x.grad = None
        again.sum().backward()
        torch.testing.assert_close(x.grad, plain[0])


@pytest.mark.parametrize("name", sorted(KINDS.keys() - REFUSED))
def test_an_adapter_of_its_kind_comes_back_from_its_file(name: str, tmp_path: Path):
    path = tmp_path / "adapters.safetensors"
    adapted, fresh = attached(name), attached(name)
    drawn(adapted.adapter)
    save_adapters(adapted, path)
    load_adapters(fresh, path)
    expected = run(adapted.eval(), X, DOMAIN)
    assert torch.equal(run(fresh.eval(), X, DOMAIN), expected)
    assert path.stat().st_size < 100_000


def test_a_file_for_linears_of_other_widths_is_refused(tmp_path: Path):
    path = tmp_path / "adapters.safetensors"
    save_adapters(attached("mlora"), path)
    other = small()
    other.first[0] = nn.Linear(5, 8)
    with pytest.raises(
        BundleError,
        match=r"'first\.0' must be Linear 0 of 4 x 8 as in the file, got Linear 0 of 5 x 8",
    ):
        load_adapters(attached("mlora", other), path)


MERGED = {*AT_LINEARS, "norm of all rows"}  # a norm of the domain's rows counts the row itself


@pytest.mark.parametrize("name", sorted((KINDS.keys() - REFUSED) | MERGED))
def test_a_kind_is_merged_where_arithmetic_allows(name: str):
    if name == "norm of all rows":
        pooled = NormalisedConfig(statistics="pooled")
        adapted = attach(small(), at=["first.0", "second.0"], adapter=pooled, n_domains=N_DOMAINS)
    else:
        adapted = attached(name, at=["first.0", "second.0"])
    drawn(adapted.adapter)
    run(adapted, X, DOMAIN)
    adapted.eval()
    before = copy.deepcopy(adapted.state_dict())
    if name not in MERGED:
        why = "reads a condition of each row" if name in READING else "must be linear for a merge"
        with pytest.raises(ValueError, match=why):
            merge_adapters(adapted, domain=1)
        assert adapted.attached
        assert all(torch.equal(t, before[name]) for name, t in adapted.state_dict().items())
        return
    for domain in range(N_DOMAINS + 1):
        expected = run(adapted, X, torch.full((9,), domain))
        merged = merge_adapters(copy.deepcopy(adapted), domain=domain)
        assert merged.state_dict().keys() == small().state_dict().keys()
        torch.testing.assert_close(merged(X), expected, rtol=1e-4, atol=1e-5)
    assert adapted.attached
