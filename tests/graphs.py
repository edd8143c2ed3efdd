"""Adapted networks as graphs: what `test_attach_graphs` runs in a process without shape checks.

Each function below is one check. ``python graphs.py FOLDER`` runs them all and prints what each said.
"""

import copy
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from attached import N_DOMAINS, adapted, rows, small
from isthmus.adapters import AbstractAdapter, ModulationConfig
from isthmus.attaching import Attachment, attach
from isthmus.layers.routing import Routing

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


def follows_the_domain(adapted_: Attachment) -> None:
    """Compiled once, it gives for other domains what it gives without, and its gradients too."""
    torch._dynamo.reset()
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


def compiled_in_training(folder: Path) -> None:
    follows_the_domain(trained().train())


def compiled_in_eval(folder: Path) -> None:
    follows_the_domain(trained())


def compiled_and_frozen(folder: Path) -> None:
    adapted_ = trained().train()
    adapted_.freeze()
    follows_the_domain(adapted_)


def compiled_with_cells_at_linears(folder: Path) -> None:
    torch.manual_seed(1)
    adapted_ = attach(small(), at="*.0", adapter=ModulationConfig(), n_domains=N_DOMAINS)
    drawn(adapted_.adapter)
    follows_the_domain(adapted_)


def drawn(adapter: AbstractAdapter) -> None:
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)


def compiled_in_a_batch_around_it(folder: Path) -> None:
    torch._dynamo.reset()
    adapted_ = trained()
    compiled = torch.compile(adapted_.module, fullgraph=True, backend="aot_eager")
    x, domain = rows(16)
    for turn in (domain, domain.flip(0)):
        with adapted_.batch(domain=turn, condition=x):
            found = compiled(x)
        torch.testing.assert_close(found, adapted_(x, domain=turn, condition=x))


def exported(strict: bool) -> None:
    adapted_ = trained()
    x, domain = rows(7)
    graph = torch.export.export(
        adapted_, (x,), {"domain": domain, "condition": x}, dynamic_shapes=SHAPES, strict=strict
    ).module()
    for count in COUNTS:
        x, domain = rows(count, seed=count)
        found = graph(x, domain=domain, condition=x)
        torch.testing.assert_close(found, adapted_(x, domain=domain, condition=x))


def exported_strictly(folder: Path) -> None:
    exported(strict=True)


def exported_not_strictly(folder: Path) -> None:
    exported(strict=False)


def exported_where_the_module_is_read(folder: Path) -> None:
    adapted_ = adapted(read=lambda x: (x[:, 0].long(), x)).eval()
    x, domain = rows(7)
    x[:, 0] = domain
    graph = torch.export.export(adapted_.module, (x,), dynamic_shapes=({0: ROWS},)).module()
    x, domain = rows(13)
    x[:, 0] = domain
    torch.testing.assert_close(graph(x), adapted_(x, domain=domain, condition=x))


def served_by_onnx(folder: Path) -> None:
    import onnxruntime

    adapted_ = trained()
    x, domain = rows(7)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            adapted_, (x,), kwargs={"domain": domain, "condition": x},
            input_names=["x", "domain", "condition"], dynamic_shapes=SHAPES, dynamo=True,
            verbose=False,
        )  # fmt: skip
    assert program is not None
    path = folder / "adapted.onnx"
    program.save(path)
    served: Any = onnxruntime.InferenceSession(path)
    assert [given.name for given in served.get_inputs()] == ["x", "domain", "condition"]
    for count in COUNTS:
        x, domain = rows(count, seed=count)
        given = {"x": x.numpy(), "domain": domain.numpy(), "condition": x.numpy()}
        expected = adapted_(x, domain=domain, condition=x).detach()
        torch.testing.assert_close(torch.from_numpy(served.run(None, given)[0]), expected)


def counted(folder: Path) -> None:
    _, domain = rows(20)

    def count(domain: Tensor) -> Tensor:
        return Routing(domain, N_DOMAINS).counts()

    compiled = torch.compile(count, fullgraph=True, backend="eager")
    assert torch.equal(compiled(domain), count(domain))


CHECKS: tuple[Callable[[Path], None], ...] = (
    compiled_in_training,
    compiled_in_eval,
    compiled_and_frozen,
    compiled_with_cells_at_linears,
    compiled_in_a_batch_around_it,
    exported_strictly,
    exported_not_strictly,
    exported_where_the_module_is_read,
    served_by_onnx,
    counted,
)


def said(check: Callable[[Path], None], folder: Path) -> str:
    """Nothing, or how the check failed."""
    try:
        check(folder)
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcomes = {check.__name__: said(check, folder) for check in CHECKS}
    sys.stdout.write(json.dumps(outcomes))
