"""Where an adapter can sit: by name, pattern, type or predicate, and in what a submodule returns."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isthmus
from attached import AT, N_DOMAINS, awake, rows, small
from isthmus.adapters import FilmConfig, Hamur, HamurConfig
from isthmus.attaching import Attachment, Place, attach, sites_of
from isthmus.layers.routing import Routing

X, DOMAIN = rows(6)
CONFIG = HamurConfig(rank=2, bottleneck=4)


def places(at: Any, module: nn.Module | None = None, **options: Any) -> list[str]:
    module = small() if module is None else module
    given = {"adapter": CONFIG, "n_domains": N_DOMAINS, "condition_width": 4} | options
    return [str(place) for place in attach(module, at=at, **given).places]


def test_places_by_name_pattern_type_and_predicate():
    assert places("second.1") == ["second.1"]
    assert places(["second.1", "first.0"]) == ["first.0", "second.1"]  # in the module's order
    assert places("*.0") == ["first.0", "second.0"]
    assert places(nn.ReLU) == ["first.1", "second.1"]
    assert places(lambda name, part: name.startswith("second.")) == ["second.0", "second.1"]
    assert places(lambda name, part: getattr(part, "out_features", 0) == 8) == ["first.0"]


def test_a_config_gets_a_cell_of_the_right_width_at_every_place():
    adapted = attach(small(), at=nn.ReLU, adapter=CONFIG, n_domains=N_DOMAINS, condition_width=4)
    assert adapted.adapter.spec.site_widths == (8, 6)
    assert adapted.adapter.sites == (0, 1)
    assert isthmus.attach is attach


def test_sites_of_a_built_adapter_are_taken_in_the_modules_order():
    adapted = attach(small(), at=nn.ReLU, adapter=awake())
    by_name = attach(small(), at=AT, adapter=awake())
    found, expected = (each(X, domain=DOMAIN, condition=X) for each in (adapted, by_name))
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="as many places as the adapter has sites, 2, got 1: out"):
        attach(small(), at="out", adapter=awake())


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("secnd.1", r"got 'secnd\.1'; the nearest are 'second\.1', 'second\.0'"),
        ("third.*", r"must name submodules of the module, got 'third\.\*'"),
        (nn.Conv1d, "no submodules of type Conv1d among Linear, ReLU, Sequential"),
        (lambda name, part: False, "no submodules for which the predicate is true among"),
        ([], "at must name at least one submodule, got none"),
    ],
)
def test_what_fits_nothing_is_refused_and_the_near_ones_are_listed(at: Any, text: str):
    module = small()
    keys = list(module.state_dict())
    with pytest.raises(ValueError, match=text):
        places(at, module)
    assert list(module.state_dict()) == keys


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_domains": None}, "n_domains must be given with an adapter's config"),
        ({"condition_width": None}, "condition_width must be given: 'hamur' reads a condition"),
        ({"adapter": HamurConfig(sites=(0,))}, "a config gets a cell at every place"),
    ],
)
def test_what_a_config_needs_is_named(options: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text):
        places(nn.ReLU, **options)


def test_a_width_that_no_type_tells_comes_from_an_example():
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], dim=1)

    module = nn.ModuleDict({"part": Doubled()})
    module.forward = lambda x: module["part"](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the width at 'part' must be known: give an example"):
        places("part", module)
    adapted = attach(
        module, at="part", adapter=CONFIG, n_domains=3, condition_width=4, example=(X,)
    )
    assert adapted.adapter.spec.site_widths == (8,)


def test_an_example_is_run_once_by_position_or_by_name():
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.GLU()  # halves the width
            self.runs = 0

        def forward(self, *, x: Tensor) -> Tensor:
            self.runs += 1
            return self.part(x)

    module = Halved()
    given: dict[str, Any] = {"adapter": CONFIG, "n_domains": 3, "condition_width": 4}
    given["example"] = {"x": X}
    assert attach(module, at="part", **given).adapter.spec.site_widths == (2,)
    assert module.runs == 1
    assert sites_of(module).others[0].width is None
    with pytest.raises(ValueError, match=r"example must be a tuple .*, or a dict .*, got Tensor"):
        attach(Halved(), at="part", **{**given, "example": X})


def test_widths_pass_through_what_keeps_them():
    nested = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Dropout(), nn.Linear(8, 3)), nn.ReLU())
    widths = {str(site.place): site.width for site in sites_of(nested).fitting}
    assert widths == {"0": 8, "1": 3, "1.0": 8, "1.1": 3, "2": 3}


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.twice = nn.Dropout(0.5)
        self.flat = nn.Linear(4, 1)
        self.parts = nn.ModuleList([nn.Linear(4, 4)])
        self.picture = nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.twice(self.twice(self.parts[0](self.used(x))))
        return self.flat(
            self.picture(h.unsqueeze(1)).squeeze(1).flatten()[: len(x) * 2].view(-1, 4)
        )


def test_sites_of_says_where_and_why_not():
    module = Three()
    module.train()
    module.twice.eval()
    by_type = {str(site.place): site for site in (*sites_of(module).fitting,)}
    assert [(name, site.width) for name, site in by_type.items()] == [
        ("used", 4), ("unused", 4), ("flat", 1), ("parts.0", 4),
    ]  # fmt: skip
    seen = sites_of(module, X)
    assert [str(site) for site in seen.fitting] == [
        "used (Linear, width 4)",
        "parts.0 (Linear, width 4)",
    ]
    assert [str(site) for site in seen.others] == [
        "unused (Linear, width 4): is not called",
        "twice (Dropout): is called 2 times",
        "flat (Linear, width 1): it gives (3, 1) for 6 rows",
        "parts (ModuleList): it holds others and is not called",
        "picture (Conv1d): channels come before steps: it gives no (rows, steps, width)",
    ]
    assert (module.training, module.twice.training, module.used.training) == (True, False, True)
    assert isthmus.sites_of is sites_of


def test_a_dry_run_changes_nothing_and_says_what_it_would():
    module = small()
    keys = list(module.state_dict())
    told = attach(module, at=nn.ReLU, adapter=CONFIG, dry_run=True)
    assert str(told) == "\n".join([
        "sites:",
        "  first.1 (ReLU, width 8)",
        "  second.1 (ReLU, width 6)",
        "not:",
        "  first (Sequential, width 8): at does not name it",
        "  first.0 (Linear, width 8): at does not name it",
        "  second (Sequential, width 6): at does not name it",
        "  second.0 (Linear, width 6): at does not name it",
        "  out (Linear, width 1): at does not name it",
    ])  # fmt: skip
    assert list(module.state_dict()) == keys
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("module", "name", "why"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), "0", "channels come before steps"),
        (nn.Sequential(nn.LSTM(4, 5)), "0", "steps come before rows: build it with batch_first"),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 1, 4)), "0.linear2", "steps come before rows"),
        (nn.Sequential(nn.ModuleList()), "0", "it holds others and is not called"),
        (nn.TransformerEncoderLayer(4, 1, 4, batch_first=True), "self_attn.out_proj", "its parent"),
    ],
)
def test_a_place_that_no_adapter_fits_is_refused(module: nn.Module, name: str, why: str):
    with pytest.raises(
        ValueError, match=rf"'{name}(\[0\])?' must be a place where an adapter can sit: {why}"
    ):
        places(name, module)


Pair = namedtuple("Pair", ["hidden", "rest"])


@dataclass
class Record:
    hidden: Tensor
    rest: Tensor


FORMS = {
    "[0]": lambda h: (h, h + 1),
    "[-1]": lambda h: [h + 1, h],
    "[hidden]": lambda h: OrderedDict(hidden=h, rest=h + 1),
    "[rest]": lambda h: Pair(h + 1, h),
    "['hidden']": lambda h: Record(h, h + 1),
}


class Many(nn.Module):
    """Returns its input in one of the forms above."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return FORMS[self.form](x)


class Around(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.many = Many(form)

    def forward(self, x: Tensor) -> Any:
        return self.many(x)


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Record):
        return [output.hidden, output.rest]
    return list(output.values()) if isinstance(output, dict) else list(output)


def one_site(width: int) -> Hamur:
    return awake(site_widths=(width,), sites=(0,))


@pytest.mark.parametrize("form", FORMS)
def test_the_tensor_is_named_in_a_tuple_list_dict_or_dataclass(form: str):
    module = Around(form).eval()
    adapter = one_site(4).eval()
    plain = module(X)
    state = adapter.prepare(X, Routing(DOMAIN, N_DOMAINS))
    adapted = attach(module, at=f"many{form}", adapter=adapter)
    output = adapted(X, domain=DOMAIN, condition=X)
    assert type(output) is type(plain)
    changed, kept = adapter(0, X, state), X + 1
    at = 1 if form in ("[-1]", "[rest]") else 0
    expected = [changed, kept] if at == 0 else [kept, changed]
    for found, right in zip(tensors(output), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_a_tensor_that_is_not_there_is_named():
    adapted = attach(Around("[hidden]"), at="many[hiden]", adapter=one_site(4))
    with pytest.raises(
        ValueError,
        match=r"'many\[hiden\]' must be a tensor, got OrderedDict with tensors at \[hidden\], \[rest\]",
    ):
        adapted(X, domain=DOMAIN, condition=X)
    with pytest.raises(
        ValueError, match=r"an adapter can sit: the output of 'many' must be a tensor, got tuple"
    ):
        attach(Around("[0]"), at="many", adapter=one_site(4), example=(X,))
    found = attach(Around("[0]"), at="many", output=0, adapter=CONFIG, n_domains=3,
                   condition_width=4, example=(X,))  # fmt: skip
    assert found.places == (Place("many", 0),)


def test_steps_are_adapted_one_by_one_each_as_its_row():
    steps = torch.randn(6, 5, 4)
    module = nn.Sequential(nn.Linear(4, 8))
    adapter = one_site(8).eval()
    module.eval()
    plain = module(steps)
    adapted = attach(module, at="0", adapter=adapter)
    output = adapted(steps, domain=DOMAIN, condition=X)
    state = adapter.prepare(X, Routing(DOMAIN, N_DOMAINS))
    expected = torch.stack([adapter(0, plain[:, i], state) for i in range(5)], dim=1)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("part", [nn.LSTM, nn.GRU])
def test_the_steps_of_a_recurrent_part(part: Any):
    module = nn.Sequential(part(4, 5, batch_first=True))
    adapted = attach(module, at=part, adapter=FilmConfig(), n_domains=N_DOMAINS, condition_width=4)
    assert [str(place) for place in adapted.places] == ["0[0]"]
    steps = torch.randn(6, 3, 4)
    output, state = adapted(steps, domain=DOMAIN, condition=X)
    adapted.detach()
    plain, plain_state = module(steps)
    assert torch.equal(output, plain)  # a fresh adapter
    torch.testing.assert_close(state, plain_state)


def test_a_site_of_the_wrong_rank_is_named():
    class Raised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x.unsqueeze(1).unsqueeze(1))

    adapted = attach(Raised(), at="part", adapter=one_site(4))
    with pytest.raises(
        ValueError,
        match=r"'part' must be a tensor \(6, 4\) or \(6, steps, 4\) for a domain of 6 rows, got \(6, 1, 1, 4\)",
    ):
        adapted(X, domain=DOMAIN, condition=X)
    with pytest.raises(ValueError, match=r"it gives \(6, 1, 1, 4\), not \(rows, width\)"):
        attach(Raised(), at="part", adapter=one_site(4), example=(X,))


def test_what_is_nested_is_refused_with_the_way_out():
    """In eval an encoder with a padding mask hands nested tensors from layer to layer."""
    layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True, dropout=0.0)
    steps, mask = torch.randn(6, 3, 4), torch.tensor([[False, False, True]] * 6)
    for nested in (True, False):
        module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).eval()
        adapted = attach(module, at="layers.1.linear2", adapter=one_site(4))

        def run(adapted: Attachment = adapted) -> Tensor:
            with torch.no_grad():
                return adapted(steps, src_key_padding_mask=mask, domain=DOMAIN, condition=X)

        if nested:
            with (
                pytest.warns(UserWarning, match="nested tensors is in prototype"),
                pytest.raises(ValueError, match="enable_nested_tensor=False"),
            ):
                run()
        else:
            assert run().shape == (6, 3, 4)
