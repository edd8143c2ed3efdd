"""How domain and condition reach an adapter: at the call, around it, from the input; and again."""

import copy
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attached import AT, N_DOMAINS, Small, adapted, awake, rows, small
from isthmus.adapters import Film
from isthmus.attaching import Attachment, attach
from isthmus.layers.routing import Routing

X, DOMAIN = rows(9)
OTHER, OTHER_DOMAIN = rows(9, seed=1)


def by_hand(module: Small, x: Tensor, domain: Tensor) -> Tensor:
    """The adapted network written out."""
    adapter = awake().train(module.training)
    state = adapter.prepare(x, Routing(domain, N_DOMAINS))
    h = adapter(0, module.first(x), state)
    return module.out(adapter(1, module.second(h), state)).squeeze(1)


def test_at_the_call_around_it_and_from_the_input_are_one():
    expected = by_hand(small(), X, DOMAIN)
    assert torch.equal(adapted()(X, domain=DOMAIN, condition=X), expected)
    around = adapted()
    with around.batch(domain=DOMAIN, condition=X):
        assert torch.equal(around.module(X), expected)
    read = adapted(read=lambda x, **named: (named.get("domain", DOMAIN), x))
    assert torch.equal(read.module(X), expected)
    assert torch.equal(read(X), expected)
    # What a caller says stands before what would be read.
    other = adapted()
    found = read(X, domain=OTHER_DOMAIN, condition=X)
    assert torch.equal(found, other(X, domain=OTHER_DOMAIN, condition=X))


def test_a_function_reads_what_the_module_is_called_with():
    class Fed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, batch: dict[str, Tensor], *, scale: float) -> Tensor:
            return self.net(batch["x"], scale=scale)

    def read(batch: dict[str, Tensor], *, scale: float) -> tuple[Tensor, Tensor]:
        assert scale == 2.0
        return batch["market"], batch["x"]

    module = Fed()
    attach(
        module, at={f"net.{name}": site for name, site in AT.items()}, adapter=awake(), read=read
    )
    found = module({"x": X, "market": DOMAIN}, scale=2.0)
    torch.testing.assert_close(found, by_hand(small(), X, DOMAIN) * 2)


def test_a_mixed_batch_equals_its_domains_one_by_one():
    adapted_ = adapted()
    adapted_(X, domain=DOMAIN, condition=X)
    adapted_.eval()
    together = adapted_(X, domain=DOMAIN, condition=X)
    for domain in DOMAIN.unique().tolist():
        own = domain == DOMAIN
        alone = adapted_(X[own], domain=DOMAIN[own], condition=X[own])
        torch.testing.assert_close(together[own], alone)


def test_eight_threads_each_meet_their_own_domain():
    adapted_ = adapted()
    adapted_(X, domain=DOMAIN, condition=X)
    adapted_.eval()
    batches = [rows(20 + i, seed=i) for i in range(8)]
    expected = [adapted_(x, domain=domain, condition=x) for x, domain in batches]
    start = threading.Barrier(8)

    def score(number: int) -> bool:
        x, domain = batches[number]
        start.wait()
        for turn in range(4):
            if turn % 2:
                found = adapted_(x, domain=domain, condition=x)
            else:
                with adapted_.batch(domain=domain, condition=x):
                    found = adapted_.module(x)
            if not torch.allclose(found, expected[number], atol=1e-6):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(score, range(8)))


def test_a_domain_that_is_no_tensor_or_is_misread_is_refused():
    with pytest.raises(ValueError, match=r"domain must be a tensor \(rows,\), got list"):
        adapted()(X, domain=DOMAIN.tolist(), condition=X)
    misread = adapted(read=lambda x: DOMAIN)
    with pytest.raises(ValueError, match=r"read must return \(domain, condition\), got Tensor"):
        misread.module(X)


class Outer(nn.Module):
    """Holds a network that is adapted itself, by domains of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.mix = nn.Linear(1, 5)

    def forward(self, x: Tensor, market: Tensor) -> Tensor:
        inner = self.inner(x, domain=market, condition=x)
        return self.mix(inner.unsqueeze(1)).sum(dim=1)


def test_an_attached_module_inside_an_attached_one():
    outer = Outer(adapted()).eval()
    film = Film(site_widths=(5,), condition_width=4, n_domains=9)
    nn.init.normal_(film.cell(0).own)
    keys = set(outer.state_dict())
    nine = torch.arange(9) + 1
    around = attach(outer, at={"mix": 0}, adapter=film)
    film.eval()
    found = around(X, DOMAIN, domain=nine, condition=X)
    hidden = outer.mix
    around.detach()
    assert set(outer.state_dict()) == keys
    plain = hidden(outer.inner(X, domain=DOMAIN, condition=X).unsqueeze(1))
    expected = film(0, plain, film.prepare(X, Routing(nine, 9))).sum(dim=1)
    torch.testing.assert_close(found, expected)


class Odd(nn.Module):
    """Runs its one part as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)

    def forward(self, x: Tensor, times: int) -> Tensor:
        for _ in range(times):
            x = self.part(x)
        return self.other(x)


def test_a_site_that_did_not_run_or_ran_twice_or_outside_a_batch_is_named():
    module = Odd()
    part, other = module.part, module.other
    odd = attach(module, at={"part": 0, "other": 1}, adapter=awake(site_widths=(4, 4)))
    given = {"domain": DOMAIN, "condition": X}
    odd(X, 1, **given)
    with pytest.raises(
        ValueError, match="every site must run in a call of the module, got no call of 'part'"
    ):
        odd(X, 0, **given)
    with pytest.raises(
        ValueError, match="'part' must run once in a call of the module, got a second"
    ):
        odd(X, 2, **given)
    with pytest.raises(ValueError, match=r"attachment\.batch\(\.\.\.\); 'part' ran without them"):
        odd.module(X, 1)
    with (
        pytest.raises(ValueError, match="every site must run in a batch, got no call of 'other'"),
        odd.batch(**given),
    ):
        part(X)
    odd(X, 1, **given)  # no fault is left behind
    with odd.batch(**given):  # part by part, and the whole twice
        other(part(X))
        odd.module(X, 1)
        odd.module(X, 1)


def test_a_module_that_fails_leaves_no_batch_behind():
    adapted_ = adapted(read=lambda x: (DOMAIN, X))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        adapted_.module(torch.zeros(9, 5))
    assert adapted_.current.top() is None
    with pytest.raises(RuntimeError, match="shapes"):
        adapted_(torch.zeros(9, 5), domain=DOMAIN, condition=X)
    assert adapted_.current.top() is None
    adapted_.module(X)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"domain": DOMAIN[:5]}, "equally many rows, got 5 and 9"),
        ({"domain": DOMAIN + 1}, r"domain must lie in 0\.\.3, got"),
        ({"condition": None}, "condition must be given: Hamur reads one of each row"),
        ({"condition": X[:, :3]}, r"condition must be \(9, 4\), got \(9, 3\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(given: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text):
        adapted(condition_width=4)(X, **({"domain": DOMAIN, "condition": X} | given))


def trained(mode: bool | None, way: str) -> list[Tensor]:
    """Gradients of two forwards and one backward; the condition has a gradient too."""
    whole = way == "whole"
    adapted_ = adapted(None if whole else mode)
    torch.manual_seed(5)
    source = nn.Linear(4, 4)
    loss = torch.zeros(())
    for x, domain, weight in ((X, DOMAIN, 1.0), (OTHER, OTHER_DOMAIN, 2.0)):
        h = source(x)
        if whole and mode is not None:
            output = checkpoint(
                lambda h, domain: adapted_(h, domain=domain, condition=h),
                h, domain, use_reentrant=mode,
            )  # fmt: skip
        elif way == "around":
            with adapted_.batch(domain=domain, condition=h):
                output = adapted_.module(h)
        else:
            output = adapted_(h, domain=domain, condition=h)
        loss = loss + weight * (output * torch.linspace(-1, 1, 9)).sum()
    loss.backward()
    assert adapted_.current.top() is None
    parameters = [*adapted_.parameters(), *source.parameters()]
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("way", ["call", "around", "whole"])
@pytest.mark.parametrize("mode", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointed_blocks_meet_their_own_batch_again(mode: bool, way: str):
    expected, found = trained(None, way), trained(mode, way)
    assert len(found) == len(expected)
    for gradient, right in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-5)


@dataclass
class Scored:
    """What many networks of others return."""

    logits: Tensor
    told: str = "as it was"


@pytest.mark.parametrize("mode", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointed_blocks_of_a_network_that_returns_a_dataclass(mode: bool):
    class Record(Small):
        def forward(self, x: Tensor, *, scale: float = 1.0) -> Any:
            return Scored(super().forward(x, scale=scale))

    gradients = []
    for each in (None, mode):
        torch.manual_seed(0)
        adapted_ = attach(Record(each), at=AT, adapter=awake())
        x = X.clone().requires_grad_()
        outputs = [adapted_(x, domain=domain, condition=x) for domain in (DOMAIN, OTHER_DOMAIN)]
        assert outputs[0].told == "as it was"
        (outputs[0].logits - 2 * outputs[1].logits).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in adapted_.parameters())])
    for gradient, right in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-5)


def test_steps_in_checkpointed_blocks():
    gradients = []
    for mode in (None, True, False):
        adapted_ = adapted(mode)
        steps = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        adapted_.module.out = nn.Flatten()
        adapted_(steps, domain=DOMAIN, condition=steps[:, 0]).square().sum().backward()
        gradients.append([steps.grad, *(p.grad for p in adapted_.adapter.parameters())])
    for found in gradients[1:]:
        for gradient, right in zip(found, gradients[0], strict=True):
            torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_hides_the_batch_says_so():
    adapted_ = adapted()
    x = X.clone().requires_grad_()
    with adapted_.batch(domain=DOMAIN, condition=X):
        output = checkpoint(adapted_.module, x, use_reentrant=True)
    with pytest.raises(ValueError, match=r"'first\.1' ran again for a backward pass, and its rows"):
        output.sum().backward()


def test_nothing_of_a_batch_is_kept_after_its_step():
    adapted_ = adapted(True)
    output = adapted_(X.clone().requires_grad_(), domain=DOMAIN, condition=X)
    passed = weakref.ref(output)
    output.sum().backward()
    del output
    assert passed() is None
    assert adapted_.current._thread.stack == []


def test_a_copy_is_adapted_by_its_own_adapter():
    adapted_ = adapted()
    before = adapted_(X, domain=DOMAIN, condition=X)
    twin: Attachment = copy.deepcopy(adapted_)
    with torch.no_grad():
        for parameter in twin.adapter.parameters():
            parameter.zero_()
    assert not torch.equal(twin(X, domain=DOMAIN, condition=X), before)
    twin.detach()
    assert torch.equal(twin.module(X), small()(X))
    assert torch.equal(adapted_(X, domain=DOMAIN, condition=X), before)


def test_under_autocast_a_site_keeps_the_precision_of_its_network():
    adapted_ = adapted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = adapted_(X, domain=DOMAIN, condition=X)
        assert output.dtype == small()(X).dtype == torch.bfloat16
    output.float().sum().backward()
