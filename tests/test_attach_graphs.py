"""An adapted network as one graph: compiled, exported, and in ONNX with the domain as an input."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from attached import N_DOMAINS, adapted, rows
from isthmus.attaching import Attachment
from isthmus.layers.routing import Routing, Tiles, _lay_out_in_graph

pytestmark = pytest.mark.usefixtures("without_shape_checks")

COUNTS = (1, 7, 513)
ROWS = Dim("rows")
SHAPES = {"inputs": ({0: ROWS},), "domain": {0: ROWS}, "condition": {0: ROWS}}


def trained() -> Attachment:
    """An adapted network whose norms have seen rows, in eval."""
    adapted_ = adapted()
    for seed in range(3):
        x, domain = rows(64, seed)
        adapted_(x, domain=domain, condition=x)
    return adapted_.eval()


@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_graph_follows_the_domain(training: bool):
    torch._dynamo.reset()
    adapted_ = trained().train(training)
    eager = copy.deepcopy(adapted_)
    compiled = torch.compile(adapted_, fullgraph=True, backend="aot_eager")
    x, domain = rows(16)
    found = []
    for turn in (domain, domain.flip(0)):
        logits, expected = (run(x, domain=turn, condition=x) for run in (compiled, eager))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        gradients = []
        for run, output in ((adapted_, logits), (eager, expected)):
            wanted = [p for p in run.adapter.parameters() if p.requires_grad]
            gradients.append(torch.autograd.grad(output.square().sum(), wanted))
        for gradient, right in zip(*gradients, strict=True):
            torch.testing.assert_close(gradient, right, rtol=1e-3, atol=1e-4)
        found.append(logits)
    assert not torch.allclose(*found)


def test_a_compiled_module_meets_the_batch_around_it():
    torch._dynamo.reset()
    adapted_ = trained()
    compiled = torch.compile(adapted_.module, fullgraph=True, backend="aot_eager")
    x, domain = rows(16)
    for turn in (domain, domain.flip(0)):
        with adapted_.batch(domain=turn, condition=x):
            found = compiled(x)
        torch.testing.assert_close(found, adapted_(x, domain=turn, condition=x))


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_graph_gives_the_same_for_any_number_of_rows(strict: bool):
    adapted_ = trained()
    x, domain = rows(7)
    graph = torch.export.export(
        adapted_, (x,), {"domain": domain, "condition": x}, dynamic_shapes=SHAPES, strict=strict
    ).module()
    for count in COUNTS:
        x, domain = rows(count, seed=count)
        found = graph(x, domain=domain, condition=x)
        torch.testing.assert_close(found, adapted_(x, domain=domain, condition=x))


def test_a_module_that_is_read_is_exported_as_it_is():
    adapted_ = adapted(read=lambda x: (x[:, 0].long(), x)).eval()
    x, domain = rows(7)
    x[:, 0] = domain
    graph = torch.export.export(adapted_.module, (x,), dynamic_shapes=({0: ROWS},)).module()
    x, domain = rows(13)
    x[:, 0] = domain
    torch.testing.assert_close(graph(x), adapted_(x, domain=domain, condition=x))


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_onnx_takes_the_domain_as_an_input(tmp_path: Path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra isthmus[onnx] is not installed")
    import onnxruntime

    adapted_ = trained()
    x, domain = rows(7)
    program = torch.onnx.export(
        adapted_, (x,), kwargs={"domain": domain, "condition": x},
        input_names=["x", "domain", "condition"], dynamic_shapes=SHAPES, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    path = tmp_path / "adapted.onnx"
    program.save(path)
    served: Any = onnxruntime.InferenceSession(path)
    assert [given.name for given in served.get_inputs()] == ["x", "domain", "condition"]
    for count in COUNTS:
        x, domain = rows(count, seed=count)
        given = {"x": x.numpy(), "domain": domain.numpy(), "condition": x.numpy()}
        expected = adapted_(x, domain=domain, condition=x).detach()
        torch.testing.assert_close(torch.from_numpy(served.run(None, given)[0]), expected)


@pytest.mark.parametrize(("n_domains", "count"), [(3, 1), (3, 70), (40, 50), (40, 300), (400, 64)])
def test_tiles_of_a_graph_route_as_those_outside(n_domains: int, count: int):
    generator = torch.Generator().manual_seed(count)
    for _ in range(5):
        domain = torch.randint(0, n_domains + 1, (count,), generator=generator)
        h = torch.randn(count, 5, generator=generator)
        weight = torch.randn(n_domains + 1, 5, 4, generator=generator)
        tiles = _lay_out_in_graph(domain, n_domains)
        found = tiles.join(torch.bmm(tiles.split(h), tiles.pick(weight)))
        torch.testing.assert_close(found, Routing(domain, n_domains).apply(h, weight))
        assert copies_stay_at_home(tiles, domain)
        assert len(tiles.source) <= count + (n_domains + 1) * (tiles.length - 1) + tiles.length


def copies_stay_at_home(tiles: Tiles, domain: Tensor) -> bool:
    """Whether every slot of a tile, the copies too, holds a row of the tile's own domain."""
    held = domain.index_select(0, tiles.source).view(-1, tiles.length)
    return bool((held == tiles.domain.unsqueeze(1)).all())


def test_domains_are_counted_in_a_graph():
    _, domain = rows(20)

    def count(domain: Tensor) -> Tensor:
        return Routing(domain, N_DOMAINS).counts()

    compiled = torch.compile(count, fullgraph=True, backend="eager")
    assert torch.equal(compiled(domain), count(domain))
